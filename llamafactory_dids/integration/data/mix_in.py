"""Irrelevant data, mixed in on purpose (section 5.5.2): datasets cut to a share of all training samples."""

import logging
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ...artifacts.samples import column
from ...config import MixingConfig
from ...errors import refuse
from ...training.collator import KEY_COLUMN
from ..settings import Settings
from .tags import content_order

logger = logging.getLogger(__name__)


def cut(parts: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """The loaded datasets by name, with those mixed in cut to their share of all samples.

    Which of their samples stay is a matter of their content and the seed, whatever their order. Raises DidsError
    where they have too few.
    """
    sizes = {name: len(part) for name, part in parts.items()}
    counts = cut_sizes(sizes, settings.config)
    names = settings.config.mix_in()
    if names:
        logger.info(
            "dids_mix_in: %d samples beside %d others (%s)",
            sum(counts[name] for name in names),
            sum(size for name, size in sizes.items() if name not in names),
            ", ".join(f"{name} {counts[name]} of {sizes[name]}" for name in names),
        )
    return {name: _chosen(part, counts[name], settings.seed) if name in names else part for name, part in parts.items()}


def cut_sizes(sizes: Mapping[str, int], config: MixingConfig) -> dict[str, int]:
    """Samples of each dataset, those mixed in cut to their share of all. Raises DidsError where they have too few."""
    names = config.mix_in()
    if not names:
        return dict(sizes)
    num_others = sum(size for name, size in sizes.items() if name not in names)
    mixed_in = [sizes[name] for name in names]
    wanted = _wanted(config, num_others, sum(mixed_in))
    return {**sizes, **dict(zip(names, _in_proportion(mixed_in, wanted), strict=True))}


def samples_beside(num_others: int, share: float) -> int:
    """Samples that are `share` of all, beside `num_others` others."""
    return round(num_others * share / (1 - share))


def _wanted(config: MixingConfig, num_others: int, available: int) -> int:
    share = config.dids_mix_in_share
    assert share is not None, "as checked"
    wanted = samples_beside(num_others, share)
    if wanted > available:
        largest = math.floor(available / (available + num_others) * 10_000) / 10_000
        raise refuse(
            "dids_mix_in_share",
            share,
            f"at most {largest}, since {config.dids_mix_in} has {available} samples and {wanted} would be that share "
            f"beside the {num_others} others",
        )
    if wanted < (least := len(config.mix_in())):
        smallest = math.ceil(least / (least + num_others) * 10_000) / 10_000
        raise refuse("dids_mix_in_share", share, f"at least {smallest}, a sample of each of {config.dids_mix_in}")
    return wanted


def _in_proportion(sizes: list[int], total: int) -> list[int]:
    """`total` shared out in proportion to the sizes: at least one each, never more than a size."""
    due = np.array(sizes) * total / sum(sizes)
    counts = np.clip(np.floor(due).astype(int), 1, None)
    while (rest := total - int(counts.sum())) != 0:
        # the one that is furthest below its due gets one more, or the one furthest above gives one back
        possible = counts < sizes if rest > 0 else counts > 1
        counts[int(np.where(possible, np.sign(rest) * (due - counts), -np.inf).argmax())] += np.sign(rest)
    return [int(count) for count in counts]


def _chosen(dataset: Any, count: int, seed: int) -> Any:
    return dataset.select(sorted(content_order(column(dataset, KEY_COLUMN).to_pylist(), seed)[:count]))
