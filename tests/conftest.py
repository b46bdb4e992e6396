"""For all tests: without a GPU, Triton's kernels are interpreted, which is decided when Triton is imported."""

import os

import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")
