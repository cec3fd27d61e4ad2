"""The command line: fedstream and its subcommands."""
