"""What the operating system and the libraries lend us: errors, files, progress, schedules."""
