"""Pictures and a report of a run, from its artifacts alone."""
