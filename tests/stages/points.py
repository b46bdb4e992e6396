"""Points to be clustered."""

import numpy as np


def blobs(*sizes: int, seed: int = 0, far: float = 20.0) -> np.ndarray:
    """Groups of points of these sizes around the corners of a simplex, one group after the other."""
    rng = np.random.default_rng(seed)
    centres = far * np.eye(len(sizes), 12)
    parts = [centre + rng.normal(0, 0.5, (size, 12)) for centre, size in zip(centres, sizes, strict=True)]
    return np.concatenate(parts).astype(np.float32)
