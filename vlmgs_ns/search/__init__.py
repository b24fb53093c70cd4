"""Words looked up in a finished run: from which views, what is found in each, where it is in space, and files that show it."""
