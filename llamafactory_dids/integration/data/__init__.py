"""The data path: the host's loading and tokenising, which keeps each sample's source and content key."""
