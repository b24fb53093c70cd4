"""Errors, atomic files, progress bars, schedules and other services below the method."""
