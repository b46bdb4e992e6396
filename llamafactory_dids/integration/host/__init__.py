"""LLaMA-Factory's own computing: its losses, its sharding, its random numbers, its checkpoints."""
