"""Shares of a run: each domain's and data set's share of the data, of the drawn samples, and of the mixture now.

"More" and "less" are always relative to the data. A strategy's start is no reference, since it is already a choice.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..text import beginning, one_line
from .run import Floats, Run

LONGEST_EXAMPLE = 110  # characters
BY_CHANCE = 3.0  # standard errors of a count; a smaller distance from the data's share is no move
MANY_REPEATS = 4.0  # times that a sample is seen; the gain from more fades (Muennighoff et al. 2023)


class Share(NamedTuple):
    """The shares of a domain or data set. `data` is its share of the data, or of the start's mixture if that is
    unknown.

    `count` samples were drawn of its `size`; None if unknown. `moved` says whether `drawn` differs by more than chance.
    """

    name: str
    data: float
    drawn: float
    now: float
    size: int | None
    count: int | None
    moved: bool
    example: str = ""

    @property
    def times(self) -> float | None:
        """The drawn share divided by the share of the data; None if the data has none of it."""
        return self.drawn / self.data if self.data > 0 else None

    @property
    def repeats(self) -> float | None:
        """The mean number of times that each of its samples was drawn; None if unknown."""
        return self.count / self.size if self.size and self.count is not None else None

    @property
    def change(self) -> float:
        """The drawn share minus the data's share; negative for a cut."""
        return self.drawn - self.data


def sizes_D(run: Run) -> Floats | None:
    """Number of samples of each domain (D); None without a map, or if the map counts none."""
    sizes = np.array([domain["size"] for domain in run.domains], dtype=float)
    return sizes if sizes.sum() > 0 else None


def tokens_D(run: Run) -> Floats:
    """Units of a sample of each domain (D): its mean tokens if the run's shares are of tokens, else 1."""
    tokens = run.lines[0].get("tokens_per_sample") or {}
    return np.array([tokens.get(name, 1.0) for name in run.record.domain_names], dtype=float)


def data_shares(run: Run) -> Floats:
    """Each domain's share of the data (D); its share of the starting mixture if sizes are unknown."""
    sizes = sizes_D(run)
    return run.record.probabilities_UD[0] if sizes is None else _normalised(sizes * tokens_D(run))


def in_samples(run: Run, shares: Floats) -> Floats:
    """A run's shares (..., D) as shares of samples, in which runs whose own shares are of tokens can be compared."""
    return _normalised(shares / tokens_D(run))


def drawn_shares(run: Run) -> Floats:
    """Each domain's share of everything drawn (D), by the counts, or else by the mixture."""
    counts_D = drawn_counts(run)
    if counts_D is not None:
        return _normalised(counts_D * tokens_D(run))
    return np.array(list(run.record.mean().values()))


def drawn_counts(run: Run) -> Floats | None:
    """Samples drawn of each domain until the last line (D); None if none was drawn, or the log does not say."""
    counts = run.lines[-1].get("samples_drawn") or {}
    counts_D = np.array([counts.get(name, 0) for name in run.record.domain_names], dtype=float)
    return counts_D if counts_D.sum() > 0 else None


def domain_shares(run: Run) -> list[Share]:
    """A Share for each domain, in the order of the log."""
    names = run.record.domain_names
    texts = [domain["typical_texts"] for domain in run.domains] or [[] for _ in names]
    shares = _shares(run, names, np.eye(len(names)))
    return [share._replace(example=_example(mine)) for share, mine in zip(shares, texts, strict=True)]


def source_counts(run: Run) -> tuple[list[str], Floats] | None:
    """(data sets, samples of each domain from each data set (D, S)); None if the sources are unknown."""
    names = list(dict.fromkeys(source for domain in run.domains for source in domain["sources"]))
    if not names:
        return None
    return names, np.array([[domain["sources"].get(name, 0) for name in names] for domain in run.domains], dtype=float)


def by_source(run: Run) -> tuple[list[str], Floats] | None:
    """(data sets, part of each domain that comes from each data set (D, S)); None if the sources are unknown.

    A domain of several data sets counts for each by its part of the domain's samples, as the sampler draws.
    """
    found = source_counts(run)
    if found is None:
        return None
    names, counts_DS = found
    return names, counts_DS / np.maximum(counts_DS.sum(axis=1, keepdims=True), 1)


def shares_by_source(run: Run) -> list[Share]:
    """A Share for each data set, in the order of the map; empty if the sources are unknown."""
    found = by_source(run)
    return [] if found is None else _shares(run, *found)


def _shares(run: Run, names: Sequence[str], parts_DS: Floats) -> list[Share]:
    """A Share for each name. `parts_DS` are the parts of each domain that belong to each name."""
    data_S, drawn_S = data_shares(run) @ parts_DS, drawn_shares(run) @ parts_DS
    now_S = run.record.probabilities_UD[-1] @ parts_DS
    sizes, counts = sizes_D(run), drawn_counts(run)
    packed = bool(run.config.get("packing"))  # a packed row holds many samples
    return [
        Share(
            name,
            float(data_S[j]),
            float(drawn_S[j]),
            float(now_S[j]),
            None if sizes is None else round(float(sizes @ parts_DS[:, j])),
            None if counts is None or packed else round(float(counts @ parts_DS[:, j])),
            _moved(float(data_S[j]), float(drawn_S[j]), counts),
        )
        for j, name in enumerate(names)
    ]


def _normalised(amounts: Floats) -> Floats:
    """Shares (..., D) that add up to 1 over D."""
    shares: Floats = amounts / amounts.sum(axis=-1, keepdims=True)
    return shares


def _moved(data: float, drawn: float, counts: Floats | None) -> bool:
    """Whether the drawn share is further from the data's share than chance explains."""
    if counts is None:
        return abs(drawn - data) > 1e-9
    return abs(drawn - data) > BY_CHANCE * math.sqrt(max(data * (1 - data), 1e-12) / float(counts.sum()))


def most_cut(shares: list[Share]) -> list[Share]:
    """Shares drawn less than their share of the data, the largest cut first."""
    return sorted((share for share in shares if share.moved and share.change < 0), key=lambda share: share.change)


def most_fed(shares: list[Share]) -> list[Share]:
    """Shares drawn more than their share of the data, the largest gain first."""
    return sorted((share for share in shares if share.moved and share.change > 0), key=lambda share: -share.change)


def repeated(shares: list[Share]) -> list[Share]:
    """Shares whose samples were drawn more than four times, the most repeated first."""
    found = [share for share in shares if (share.repeats or 0) > MANY_REPEATS]
    return sorted(found, key=lambda share: -(share.repeats or 0))


def named_domains(data_D: Floats, shares_UD: Floats, count: int) -> list[int]:
    """At most `count` domains to name, ascending: one half with the largest shares of the last line, the other half
    with the largest distances from the data's share.
    """
    largest = np.argsort(-shares_UD[-1], kind="stable").tolist()
    moved = np.argsort(-np.abs(shares_UD[-1] - data_D), kind="stable").tolist()
    chosen = dict.fromkeys(largest[: (count + 1) // 2])
    for i in moved + largest:
        if len(chosen) >= min(count, len(data_D)):
            break
        chosen.setdefault(i)
    return sorted(chosen)


def _example(texts: list[str]) -> str:
    """The first text, cut to one line. A sample tells a reader more than a name such as `code/3`."""
    return beginning(one_line(texts[0]), LONGEST_EXAMPLE, whole_words=True) if texts else ""
