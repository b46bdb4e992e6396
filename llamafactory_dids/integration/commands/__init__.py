"""The `llamafactory-dids` command, with a module for each larger subcommand."""
