"""Pictures of a run, from its artifacts alone."""
