"""The decay by brute force: every b of a fine grid, and for each the best a, c >= 0 by cases."""

import numpy as np


def best_residual(losses: np.ndarray, num_rates: int = 4000) -> float:
    """The least sum of squares that any a, c >= 0 and b in [0.02, 3] reach."""
    t = np.arange(len(losses))
    return min(residual(np.exp(-b * t), losses) for b in np.geomspace(0.02, 3.0, num_rates))


def residual(decay: np.ndarray, losses: np.ndarray) -> float:
    """The least sum of squares of losses - (a * decay + c): inside the quadrant, or else on an edge."""
    design = np.stack([decay, np.ones_like(decay)], axis=1)
    a, c = np.linalg.lstsq(design, losses, rcond=None)[0]
    only_a = max(0.0, decay @ losses / (decay @ decay))
    only_c = max(0.0, losses.mean())
    candidates = [(only_a, 0.0), (0.0, only_c)] + ([(a, c)] if a >= 0 and c >= 0 else [])
    return min(float(((losses - a * decay - c) ** 2).sum()) for a, c in candidates)
