"""The `llamafactory-dids` command, a module a subcommand."""
