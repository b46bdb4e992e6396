"""From a YAML file to `Settings`, or to one line that says what is wrong."""
