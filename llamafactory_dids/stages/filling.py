"""Fills a store of features: the ranks share the missing parts.

A part is computed whole before it is written, so a run that was killed goes on with the missing parts. The files do not
depend on the number of ranks.
"""

import logging
from collections.abc import Iterator
from contextlib import nullcontext
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..artifacts.gradient_store import GradientStore
from ..errors import DidsError
from . import ranks
from .bar import progress

logger = logging.getLogger(__name__)


class Block(NamedTuple):
    """Features (N, K, fp32) of the samples at `places` of a part, whether each has any (N), and the amount read."""

    places: list[int]
    values_NK: Tensor
    ok_N: Tensor
    amount: int


class Features(Protocol):
    """A maker of a store's rows. `name` appears in the log and the progress bar; `unit` is the unit of `amount`.

    The blocks of a part depend on its samples alone, not on earlier parts.
    """

    name: str
    unit: str

    def blocks(self, rows: range) -> Iterator[Block]:
        """The features of these samples, a batch at a time, each sample once."""
        ...


def fill_store(store: GradientStore, features: Features, title: str | None = None) -> None:
    """Compute the missing parts of the store, shared by the ranks. Returns when all parts are there.

    `title` replaces the features' name in the progress. Raises DidsError on every rank if one rank failed; finished
    parts stay.
    """
    missing = ranks.decided_by_first(store.missing_parts)  # other runs may write parts meanwhile
    rank, num_ranks = ranks.world()
    if missing:
        done = store.num_parts - len(missing)
        logger.info("%s: %d of %d parts to compute in %s", features.name, len(missing), store.num_parts, store.folder)
        if done:
            logger.info("%s: going on after %d finished parts", features.name, done)
    failure: BaseException | None = None
    try:
        _fill_parts(store, features, missing[rank::num_ranks], (title or features.name) if rank == 0 else None)
    except (DidsError, OSError, RuntimeError, ValueError) as error:
        failure = error
    if messages := ranks.all_failures(failure):
        raise failure or DidsError(f"{features.name}: another process failed: {messages[0]}")


def _fill_parts(store: GradientStore, features: Features, parts: list[int], title: str | None) -> None:
    total = sum(len(store.rows(part)) for part in parts)
    with progress(title, total, features.unit) if title else nullcontext(_say_nothing) as advance:
        for part in parts:
            rows = store.rows(part)
            values_RK = np.zeros((len(rows), store.dim), dtype=np.float32)
            written_R = np.zeros(len(rows), dtype=np.bool_)
            for block in features.blocks(rows):
                values_RK[block.places] = block.values_NK.cpu().numpy()
                written_R[block.places] = block.ok_N.cpu().numpy()
                advance(len(block.places), block.amount)
            store.write_part(part, *_unit_rows(values_RK, written_R), written_R)


def _say_nothing(count: int, more: int = 0) -> None:
    """Only the first rank shows progress."""


def _unit_rows(
    values_RK: NDArray[np.float32], written_R: NDArray[np.bool_]
) -> tuple[NDArray[np.float16], NDArray[np.float32]]:
    values_RK = np.where(written_R[:, None], values_RK, 0)
    norm_R = np.linalg.norm(values_RK, axis=1)
    unit_RK = values_RK / np.maximum(norm_R, 1e-30)[:, None]
    return unit_RK.astype(np.float16), norm_R.astype(np.float32)
