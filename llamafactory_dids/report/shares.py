"""What a run fed: each domain's and data set's share of the data, of what was drawn, and of the mixture now.

The data is the reference of all that is called more or less: a start that a strategy chose is a choice already.
"""

import math
from typing import NamedTuple

import numpy as np

from ..text import beginning, one_line
from .run import Floats, Run

LONGEST_EXAMPLE = 110  # characters
BY_CHANCE = 3.0  # standard errors of a count: what is nearer to the data's share is no move
MANY_REPEATS = 4.0  # times that a sample is seen; what is gained from more fades (Muennighoff et al. 2023)


class Share(NamedTuple):
    """Of a domain or data set. `data` is its share of the data, or, where that is not known, of the start's mixture.

    `repeats`: how often its samples were drawn, on average; None where that is not known.
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
        """The share that was drawn, of that of the data; None where the data has none of it."""
        return self.drawn / self.data if self.data > 0 else None

    @property
    def repeats(self) -> float | None:
        """How often each of its samples was drawn, on average; None where that is not known."""
        return self.count / self.size if self.size and self.count is not None else None

    @property
    def change(self) -> float:
        """What was drawn beyond the data's share: negative where it was cut."""
        return self.drawn - self.data


def sizes_D(run: Run) -> Floats | None:
    """Samples of each domain; None where the map is not there, or counts none."""
    sizes = np.array([domain["size"] for domain in run.domains], dtype=float)
    return sizes if sizes.sum() > 0 else None


def tokens_D(run: Run) -> Floats:
    """What a sample of each domain counts in the run's shares: its tokens, where they are of these, or else 1."""
    tokens = run.lines[0].get("tokens_per_sample") or {}
    return np.array([tokens.get(name, 1.0) for name in run.record.domain_names], dtype=float)


def data_shares(run: Run) -> Floats:
    """The share of the data that each domain has (D); of the mixture at the start where sizes are not known."""
    sizes = sizes_D(run)
    return run.record.probabilities_UD[0] if sizes is None else _normalised(sizes * tokens_D(run))


def drawn_shares(run: Run) -> Floats:
    """The share that each domain has of all that was drawn (D), by its count, or else by the mixture."""
    counts_D = drawn_counts(run)
    if counts_D is not None:
        return _normalised(counts_D * tokens_D(run))
    return np.array(list(run.record.mean().values()))


def drawn_counts(run: Run) -> Floats | None:
    """Samples that were drawn of each domain until the last line (D); None where none was, or the log does not say."""
    counts = run.lines[-1].get("samples_drawn") or {}
    counts_D = np.array([counts.get(name, 0) for name in run.record.domain_names], dtype=float)
    return counts_D if counts_D.sum() > 0 else None


def domain_shares(run: Run) -> list[Share]:
    """A share for each domain, in the order of the log."""
    names, sizes, counts = run.record.domain_names, sizes_D(run), drawn_counts(run)
    texts = [domain["typical_texts"] for domain in run.domains] or [[] for _ in names]
    now_D = run.record.probabilities_UD[-1]
    packed = bool(run.config.get("packing"))  # a draw is of many samples then
    return [
        Share(
            name,
            float(data),
            float(drawn),
            float(now_D[i]),
            None if sizes is None else int(sizes[i]),
            None if counts is None or packed else int(counts[i]),
            _moved(float(data), float(drawn), counts),
            _example(texts[i]),
        )
        for i, (name, data, drawn) in enumerate(zip(names, data_shares(run), drawn_shares(run), strict=True))
    ]


def by_source(run: Run) -> tuple[list[str], Floats] | None:
    """The data sets, and the share of each domain that is of each (D, S); None where domains are of no known source.

    A domain of several data sets counts for each by its share of the domain's samples, as the sampler draws.
    """
    if not run.domains:
        return None
    names = list(dict.fromkeys(source for domain in run.domains for source in domain["sources"]))
    if not names:
        return None
    weights_DS = np.array([[domain["sources"].get(name, 0) for name in names] for domain in run.domains], dtype=float)
    return names, weights_DS / np.maximum(weights_DS.sum(axis=1, keepdims=True), 1)


def source_shares(run: Run) -> tuple[list[str], Floats] | None:
    """The probability of each data set at each line, (names, shape (U, S)); None where they are not known."""
    found = by_source(run)
    return None if found is None else (found[0], run.record.probabilities_UD @ found[1])


def shares_by_source(run: Run) -> list[Share]:
    """A share for each data set, in the order of the map; empty where these are not known."""
    found = by_source(run)
    if found is None:
        return []
    names, weights_DS = found
    counts, own = drawn_counts(run), domain_shares(run)
    data_S, drawn_S = data_shares(run) @ weights_DS, drawn_shares(run) @ weights_DS
    now_S = run.record.probabilities_UD[-1] @ weights_DS
    sizes = {name: sum(domain["sources"].get(name, 0) for domain in run.domains) for name in names}
    known = counts is not None and all(share.count is not None for share in own)
    return [
        Share(
            name,
            float(data_S[j]),
            float(drawn_S[j]),
            float(now_S[j]),
            sizes[name],
            round(float(counts @ weights_DS[:, j])) if counts is not None and known else None,
            _moved(float(data_S[j]), float(drawn_S[j]), counts),
        )
        for j, name in enumerate(names)
    ]


def _normalised(amounts_D: Floats) -> Floats:
    return amounts_D / amounts_D.sum()


def _moved(data: float, drawn: float, counts: Floats | None) -> bool:
    """Whether what was drawn is further from the data's share than chance takes it."""
    if counts is None:
        return abs(drawn - data) > 1e-9
    return abs(drawn - data) > BY_CHANCE * math.sqrt(max(data * (1 - data), 1e-12) / float(counts.sum()))


def most_cut(shares: list[Share]) -> list[Share]:
    """Those that were drawn less than their share of the data, the largest cut first."""
    return sorted((share for share in shares if share.moved and share.change < 0), key=lambda share: share.change)


def most_fed(shares: list[Share]) -> list[Share]:
    """Those that were drawn more than their share of the data, the largest gain first."""
    return sorted((share for share in shares if share.moved and share.change > 0), key=lambda share: -share.change)


def repeated(shares: list[Share]) -> list[Share]:
    """Those whose samples were drawn more than four times, the most repeated first."""
    found = [share for share in shares if (share.repeats or 0) > MANY_REPEATS]
    return sorted(found, key=lambda share: -(share.repeats or 0))


def named_domains(data_D: Floats, shares_UD: Floats, count: int) -> list[int]:
    """The domains to name where not all can be: half of them for the largest shares of the last line, half for the
    largest distances from the data's share; in the order of the log.
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
    """The first text in one line, cut: names such as `code/3` tell a reader nothing, a sample does."""
    return beginning(one_line(texts[0]), LONGEST_EXAMPLE, whole_words=True) if texts else ""
