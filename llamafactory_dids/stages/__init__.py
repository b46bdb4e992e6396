"""The stages that need a model: gradients of samples, domains from gradients, signals for the mixers.

Torch modules and batches go in, arrays and artifacts come out. Nothing here knows LLaMA-Factory or a trainer.
"""
