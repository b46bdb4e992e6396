"""What LLaMA-Factory is and computes: its losses, its sharding, its random numbers, its checkpoints."""
