"""The projection as an explicit P x K matrix, its hash in Python's unbounded integers."""

import numpy as np

WORD = 2**32


def mix(x: int) -> int:
    x = (x ^ (x >> 16)) * 0x7FEB352D % WORD
    x = (x ^ (x >> 15)) * 0x846CA68B % WORD
    return x ^ (x >> 16)


def hashed(index: int, seed: int) -> int:
    word_low, word_high = mix(seed % WORD), mix((seed >> 32) % WORD)
    first = mix((word_low ^ 0x9E3779B9) % WORD)
    second = mix(((word_low + word_high) ^ 0x9E3779B9) % WORD)
    return mix(mix((index + first) % WORD) ^ second)


def explicit_matrix(input_dim: int, output_dim: int, seed: int) -> np.ndarray:
    matrix_PK = np.zeros((input_dim, output_dim))
    for p in range(input_dim):
        bits = hashed(p, seed)
        matrix_PK[p, (bits >> 1) * output_dim >> 31] = -1.0 if bits % 2 else 1.0
    return matrix_PK


def appendix_a_matrix(input_dim: int, output_dim: int, seed: int) -> np.ndarray:
    """Appendix A: independent entries of +-1 / sqrt(K)."""
    signs_PK = np.random.default_rng(seed).choice([-1.0, 1.0], size=(input_dim, output_dim))
    return signs_PK / np.sqrt(output_dim)
