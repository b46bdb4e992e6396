"""Mixing while a transformers Trainer trains: sampler, running gradients, controller, trainer mixin, callback.

Depends on transformers, not on LLaMA-Factory.
"""
