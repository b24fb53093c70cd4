"""Pages and files that people look at: the report of a run, the answer to a query."""
