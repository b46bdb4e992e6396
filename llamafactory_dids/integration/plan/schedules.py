"""`dids_schedule`: mixtures at points of the run, `0: web=0.8, math=0.2; 1: math=1`."""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...errors import refuse
from .probabilities import Sizes, check_mixture, shares_of

KEY = "dids_schedule"


class Point(NamedTuple):
    """A point of the run, as a share of its training samples, and the text of the mixture there."""

    at: float
    mixture: str


def parse_schedule(text: str) -> list[Point]:
    """The points in order. Raises DidsError for a text that is no schedule, or points that do not ascend."""
    points = [_point(part.strip()) for part in text.split(";") if part.strip()]
    if not points or not all(a.at < b.at for a, b in itertools.pairwise(points)):
        raise refuse(KEY, text, "POINT: MIXTURE; POINT: MIXTURE; …, the points ascending")
    return points


def _point(part: str) -> Point:
    at, _, mixture = part.partition(":")
    try:
        number = float(at)
    except ValueError:
        number = -1.0
    if not (0 <= number <= 1 and mixture.strip()):
        raise refuse(KEY, part, "POINT: MIXTURE, with a point from 0 (the run's start) to 1 (its end)")
    return Point(number, mixture.strip())


def check_schedule(text: str, sources: Sequence[str], domains: Sequence[str] | None, share_of: str) -> None:
    """Raise DidsError as `parse_schedule` does, and as `check_mixture` does for each mixture."""
    for point in parse_schedule(text):
        check_mixture(KEY, point.mixture, sources, domains, share_of)


def schedule_of(text: str, sizes: Sizes) -> dict[str, Any]:
    """The strategy's inputs: `points_K`, and the mixture by domain at each point. Raises DidsError as `shares_of`."""
    points = parse_schedule(text)
    mixtures_KD: NDArray[np.float64] = np.stack([shares_of(KEY, point.mixture, sizes) for point in points])
    return {"points_K": [point.at for point in points], "mixtures_KD": mixtures_KD}
