"""What passes of a model cost, each in units of its forward pass: a backward pass is two forward ones."""

BACKWARD = 2.0


def training_passes(samples: float) -> float:
    """Forward and backward over so many samples.

    >>> training_passes(100)
    300.0
    """
    return samples * (1 + BACKWARD)


def gradient_passes(samples: float, share: float) -> float:
    """Forward, and backward through the last `share` of the decoder blocks.

    >>> gradient_passes(100, share=0.1)
    120.0
    """
    return samples * (1 + BACKWARD * share)
