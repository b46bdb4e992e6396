"""Mixing while a transformers Trainer trains: sampler, in-run impact, controller, trainer mixin, callback.

Depends on transformers, not on LLaMA-Factory.
"""
