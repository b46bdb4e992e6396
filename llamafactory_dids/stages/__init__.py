"""What needs a model, once each: gradients of samples, domains from them, signals for the mixers.

Torch modules and batches go in, arrays and artifacts come out. Nothing here knows LLaMA-Factory or a trainer.
"""
