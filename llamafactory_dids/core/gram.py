"""Inner products between the domains' gradients (R&B's Gram matrix)."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from . import devices

_CHUNK = 1 << 16  # entries at once, in float64


def gram(gradients_DP: Tensor) -> NDArray[np.float64]:
    """<g_i, g_j> of every two rows, shape D x D, summed in float64 over chunks of P.

    >>> gram(torch.tensor([[1.0, 2.0], [0.0, 3.0]]))
    array([[5., 6.],
           [6., 9.]])
    """
    device = devices.exact(gradients_DP.device)
    products_DD = torch.zeros((len(gradients_DP), len(gradients_DP)), dtype=torch.float64, device=device)
    for start in range(0, gradients_DP.shape[1], _CHUNK):
        exact_DC = devices.doubled(gradients_DP[:, start : start + _CHUNK])
        products_DD += exact_DC @ exact_DC.T
    return products_DD.cpu().numpy()
