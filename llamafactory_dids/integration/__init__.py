"""The only package that knows LLaMA-Factory: what is rebound, the YAML keys, the data path, the commands."""
