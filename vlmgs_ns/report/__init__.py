"""One HTML page about a run, with everything in it that it shows."""
