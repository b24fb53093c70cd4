"""The subcommands of ``vlmgs``: one dataclass of flags per file, with a ``run`` method that imports what the work needs."""
