"""The cost of a model's passes, in forward passes of one sample. A backward pass costs two forward passes."""

BACKWARD = 2.0


def training_passes(samples: float) -> float:
    """Cost of a forward and a backward pass over `samples` samples.

    >>> training_passes(100)
    300.0
    """
    return samples * (1 + BACKWARD)


def gradient_passes(samples: float, share: float) -> float:
    """Cost of a forward pass, and a backward pass through the last `share` of the decoder blocks.

    >>> gradient_passes(100, share=0.1)
    120.0
    """
    return samples * (1 + BACKWARD * share)
