"""The table of the results: scores of each estimate with intervals, below what the truth's own noise allows."""

import statistics
from collections.abc import Mapping, Sequence

import numpy as np

from llamafactory_dids.errors import DidsError
from scripts.experiments.stats import ends, markdown, plus_minus
from scripts.validity.estimates import TODAY
from scripts.validity.records import Checkpoint, Key
from scripts.validity.scoring import Scores, ceiling, reliability, score

HEAD = ("estimate", "share of the gain", "Pearson", "best source among its first three", "gain against today's")


def table(
    known: Mapping[Key, Checkpoint], seeds: Sequence[int] | None = None, steps: Sequence[int] | None = None
) -> str:
    """Markdown, the highest share of the gain first. Raises DidsError where no checkpoint is left.

    A score is the mean over tasks of a checkpoint; mean ± half of its 95% interval are over the checkpoints of all
    seeds, and differences are paired by checkpoint.
    """
    known = {
        (seed, step): found
        for (seed, step), found in sorted(known.items())
        if (seeds is None or seed in seeds) and (steps is None or step in steps)
    }
    if not known:
        raise DidsError("results: got no checkpoint with a truth, allowed: a file of `run`, and seeds and steps in it")
    scores = _scores(known)
    rows = [HEAD, _ceiling_row(known)]
    for name in sorted(scores, key=lambda name: -statistics.mean(float(s.gain) for s in scores[name].values())):
        of_name, today = scores[name], scores.get(TODAY, {})
        differences = [float(s.gain - today[key].gain) for key, s in of_name.items() if key in today]
        compared = ends(differences) if name != TODAY and len(differences) > 1 else ""
        label = f"**{name}** (today's)" if name == TODAY else name
        rows.append([_with_number(label, of_name, known), *_cells(list(of_name.values())), compared])
    return _about(known) + markdown(rows)


def _scores(known: Mapping[Key, Checkpoint]) -> dict[str, dict[Key, Scores]]:
    """Of each estimate the mean over tasks, by checkpoint."""
    found: dict[str, dict[Key, Scores]] = {}
    for key, checkpoint in known.items():
        for name, estimate_DT in checkpoint.estimates.items():
            found.setdefault(name, {})[key] = score(estimate_DT, checkpoint.truth_RDT.mean(axis=0)).mean()
    return found


def _ceiling_row(known: Mapping[Key, Checkpoint]) -> list[str]:
    highest = [ceiling(checkpoint.truth_RDT).mean() for checkpoint in known.values()]
    return ["*ceiling: the truth without its noise*", *_cells(highest), ""]


def _with_number(label: str, of_name: Mapping[Key, Scores], known: Mapping[Key, Checkpoint]) -> str:
    return label if len(of_name) == len(known) else f"{label} ({len(of_name)} of {len(known)} checkpoints)"


def _cells(scores: Sequence[Scores]) -> list[str]:
    gains, pearsons, bests = ([float(value) for value in values] for values in zip(*scores, strict=True))
    return [plus_minus(gains, 2), plus_minus(pearsons, 2), plus_minus([100 * best for best in bests], 0, "%")]


def _about(known: Mapping[Key, Checkpoint]) -> str:
    """What the table is of, and how reliable its truth is: the mean of each task over checkpoints, the lowest first."""
    seeds, steps = ({key[i] for key in known} for i in (0, 1))
    one = next(iter(known.values()))
    reliable_T = np.mean([reliability(checkpoint.truth_RDT) for checkpoint in known.values()], axis=0)
    by_task = sorted(zip(reliable_T.tolist(), one.tasks, strict=True))
    numbers = f"{len(known)} checkpoints (seeds {_listed(seeds)}; steps {_listed(steps)})"
    return (
        f"{numbers}, {len(one.domains)} domains, {len(one.tasks)} tasks. Reliability of the truth over "
        f"{len(one.truth_RDT)} orders: {reliable_T.mean():.2f} ("
        + ", ".join(f"{task} {value:.2f}" for value, task in by_task)
        + ").\n\n"
    )


def _listed(numbers: set[int]) -> str:
    return ", ".join(map(str, sorted(numbers)))
