"""Domain Impact-aware Data Sampling (DIDS) for LLaMA-Factory."""

__version__ = "0.1.0"
