"""A seeded sparse sign projection from P to K dimensions (Appendix A; method.md, section 1).

Each input entry p is added, with a sign, to one output entry: y[bucket(p)] += sign(p) * x[p]. This is a CountSketch
(Charikar et al. 2002): <Sx, Sy> is unbiased over seeds, with variance

    (|x|^2 |y|^2 + <x, y>^2 - 2 sum_p x_p^2 y_p^2) / K

A row costs O(P). Appendix A's dense +-1/sqrt(K) matrix has the same variance and costs O(P K). No P x K matrix is made.

Bucket and sign are a stateless hash of (p, seed), not the output of a random generator. They are the same on every
device and in every version of torch, and can be computed for any part of the input alone.

Shapes: `N` samples, `P` input entries, `M` kept entries, `K` output entries, `C` the entries of one chunk.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import devices, gpu

_MASK = 0xFFFFFFFF


def _mix(x: Tensor) -> Tensor:
    """A bijection of 32-bit integers, held in int64; each output bit depends on all input bits.

    This is lowbias32 (C. Wellons). A factor above 2^31 is replaced by the negative number equal to it modulo 2^32, so
    that no product overflows int64, which would be undefined.
    """
    x = (x ^ (x >> 16)).mul_(0x7FEB352D).bitwise_and_(_MASK)
    x = (x ^ (x >> 15)).mul_(0x846CA68B - (1 << 32)).bitwise_and_(_MASK)
    return x ^ (x >> 16)


def _hash(indices_C: Tensor, seed: int) -> Tensor:
    """32 random-looking bits for each (index, seed), as int64."""
    words = torch.tensor([seed & _MASK, (seed >> 32) & _MASK], dtype=torch.int64)
    first, second = _mix(_mix(words).cumsum(0).bitwise_xor(0x9E3779B9).bitwise_and(_MASK)).tolist()
    # The second key enters between two rounds: one key alone would only permute one fixed table.
    return _mix(_mix((indices_C + first).bitwise_and_(_MASK)).bitwise_xor_(second))


_BLOCK = 1 << 22  # entries of sparse rows projected at a time


def _chunk(device: torch.device) -> int:
    """Entries to process at a time. On a CPU the temporaries stay in its cache; on a GPU there are few launches."""
    return 1 << 14 if device.type == "cpu" else 1 << 22


class Projection:
    """Projects gradients of `input_dim` (P) entries to `output_dim` (K). The same seed gives the same projection.

    It holds one int32 for each input entry on each device in use. It is not trainable, and no gradient flows through
    it. Raises ValueError for dimensions outside [1, 2^30] (output) and [1, 2^32) (input).

    >>> x_NP = torch.randn(2, 1000, generator=torch.Generator().manual_seed(0))
    >>> y_NK = Projection(1000, 256).project(x_NP)
    >>> y_NK.shape, bool((y_NK.norm(dim=1) / x_NP.norm(dim=1)).sub(1).abs().max() < 0.2)
    (torch.Size([2, 256]), True)
    """

    def __init__(self, input_dim: int, output_dim: int = 1024, seed: int = 0) -> None:
        if not 1 <= input_dim <= _MASK:
            raise ValueError(f"input_dim: got {input_dim!r}, allowed: 1 to {_MASK}")
        if not 1 <= output_dim <= 1 << 30:
            raise ValueError(f"dids_projection_dim: got {output_dim!r}, allowed: 1 to {1 << 30}")
        self.input_dim, self.output_dim, self.seed = input_dim, output_dim, seed
        self._codes: dict[torch.device, Tensor] = {}

    @torch.no_grad()
    def project(self, x_NP: Tensor) -> Tensor:
        """Project `x_NP` of any float dtype to `y_NK`, float32, on the same device.

        Sums are in float64, on the CPU if the device has no float64. Raises ValueError if x is not N x input_dim.
        """
        if x_NP.ndim != 2 or x_NP.shape[1] != self.input_dim:
            raise ValueError(f"x: got shape {tuple(x_NP.shape)}, allowed: N x {self.input_dim}")
        device, x_NP = x_NP.device, x_NP.to(devices.exact(x_NP.device))
        codes_P, chunk = self.codes_on(x_NP.device), _chunk(x_NP.device)
        y_NK = self._zeros(x_NP)
        if gpu.has_kernels(x_NP) and x_NP.dtype == torch.float32:
            none_N = torch.full((len(x_NP),), -1, dtype=torch.int32, device=x_NP.device)  # below all magnitudes
            arguments = (x_NP, codes_P, none_N, y_NK, none_N, none_N, self.output_dim)
            gpu.run_on_rows(gpu.kernels.add_above, *arguments, TIES=0)
            return y_NK.float()
        for start in range(0, self.input_dim, chunk):
            bucket_C, sign_C = _unpack(codes_P[start : start + chunk])
            for y_K, x_P in zip(y_NK, x_NP, strict=True):
                y_K.index_add_(0, bucket_C, x_P[start : start + chunk].double() * sign_C)
        return y_NK.float().to(device)

    @torch.no_grad()
    def project_sparse(self, indices_NM: Tensor, values_NM: Tensor) -> Tensor:
        """Project rows given as M (index, value) pairs each to `y_NK`; all other entries are zero.

        The result equals `project` of the dense rows. Raises ValueError if the two shapes differ.
        """
        if indices_NM.ndim != 2 or indices_NM.shape != values_NM.shape:
            shapes = f"{tuple(indices_NM.shape)} and {tuple(values_NM.shape)}"
            raise ValueError(f"indices and values: got shapes {shapes}, allowed: N x M, both the same")
        device, exact = values_NM.device, devices.exact(values_NM.device)
        indices_NM, values_NM = indices_NM.to(exact), values_NM.to(exact)
        codes_P, y_NK = self.codes_on(exact), self._zeros(values_NM)
        rows = max(1, _BLOCK // max(1, indices_NM.shape[1]))
        for start in range(0, len(y_NK), rows):
            block = slice(start, start + rows)
            bucket_RM, sign_RM = _unpack(codes_P[indices_NM[block]])
            y_NK[block].scatter_add_(1, bucket_RM, values_NM[block].double() * sign_RM)
        return y_NK.float().to(device)

    def _zeros(self, like: Tensor) -> Tensor:
        # In float32 the order of a GPU's atomic additions would change the result; in float64 it hardly does.
        return torch.zeros((len(like), self.output_dim), dtype=torch.float64, device=like.device)

    def codes_on(self, device: torch.device) -> Tensor:
        """2 * bucket + (1 if the sign is negative) for each input entry, int32, on `device`."""
        if device not in self._codes:
            chunk = _chunk(device)
            codes_P = torch.empty(self.input_dim, dtype=torch.int32, device=device)
            for start in range(0, self.input_dim, chunk):
                part_C = codes_P[start : start + chunk]
                hash_C = _hash(torch.arange(start, start + len(part_C), device=device), self.seed)
                # The lowest bit is the sign. The others choose the bucket by multiplication: no bias, any K.
                part_C.copy_((((hash_C >> 1) * self.output_dim) >> 31) * 2 + (hash_C & 1))
            self._codes[device] = codes_P
        return self._codes[device]


def _unpack(codes_C: Tensor) -> tuple[Tensor, Tensor]:
    """`(bucket_C int64, sign_C float64 of +-1)`."""
    codes_C = codes_C.long()
    return codes_C >> 1, 1.0 - 2.0 * (codes_C & 1)
