"""The data path: the host's loading and tokenising, with the source and the content key of each sample kept."""
