"""The words of a comparison: which runs end lower, by how much and how surely, or why nothing can be said."""

from .compare import Comparison
from .groups import Estimate, difference
from .words import t

MANY_TOKENS = 0.05  # share of a budget; a larger difference is mentioned
PLACES = (("held_out", "On the held-out data"), ("losses", "On the observed samples"))


def told(comparison: Comparison) -> Comparison:
    """The comparison with its words, in the current language."""
    if not comparison.has_equal_budgets:
        return comparison._replace(refused=_refusal(comparison))
    said = [sentence for field, where in PLACES for sentence in _sentences(comparison, field, t(where))]
    return comparison._replace(said=tuple(said), caution=_tokens(comparison))


def _refusal(comparison: Comparison) -> str:
    """The reason for no verdict: unequal or unknown budgets."""
    each = ", ".join(
        f"{summary.label} {t('unknown') if summary.samples is None else format(summary.samples, ',')}"
        for summary in comparison.summaries
    )
    return t(
        "No verdict: the runs were not trained on equally many samples ({each}), so a lower loss may be of the longer "
        "training. Compare runs of the same max_steps (or epochs), batch size and accumulation.",
        each=each,
    )


def _tokens(comparison: Comparison) -> str:
    """A caution for runs with equally many samples and different numbers of tokens; empty otherwise."""
    known = [(summary.tokens, summary.label) for summary in comparison.summaries if summary.tokens]
    if len(known) < len(comparison.summaries):
        return ""
    (fewest, short), (most, long) = min(known), max(known)
    if most - fewest <= MANY_TOKENS * most:
        return ""
    return t(
        "As many samples, and not as many tokens: {long} was trained on {most} (whose loss was counted), {short} on "
        "{fewest}, since domains have samples of other lengths.",
        long=long,
        most=f"{most:,}",
        short=short,
        fewest=f"{fewest:,}",
    )


def _sentences(comparison: Comparison, field: str, where: str) -> list[str]:
    """A sentence for each other group, which compares the group of the lowest mean with it."""
    names = comparison.common(field)
    if not names:
        return []
    found = [comparison.means(field, names, group) for group in comparison.groups]
    means = [sum(values.values()) / len(values) for values in found]
    order = sorted(range(len(means)), key=lambda i: means[i])
    first = order[0]
    sentences = []
    for other in order[1:]:
        values = {
            "where": where,
            "a": comparison.groups[first].label,
            "b": comparison.groups[other].label,
            "x": f"{means[first]:.3f}",
            "y": f"{means[other]:.3f}",
            "what": t("mean loss") if len(names) > 1 else t("loss"),
        }
        gap = difference(found[first], found[other])
        sentences.append(_sentence(gap, values) + _by_task(comparison, field, names, first, other))
    return sentences


def _sentence(gap: Estimate, values: dict[str, str]) -> str:
    if gap.half is None:
        if gap.is_level:
            return t("{where}, {a} and {b} end level: {what} {x} and {y}", **values)
        return t("{where}, {a} ends lower than {b}: {what} {x} against {y}", **values)
    values = values | {
        "by": f"{abs(gap.mean):.3f}",
        "range": interval(gap, sign=-1 if gap.mean < 0 else 1),
        "seeds": str(gap.count),
    }
    paired = t(", paired by seed") if gap.how == "paired" else ""
    if gap.is_level:
        text = t("{where}, {seeds} seeds do not tell {a} from {b}: {what} {x} against {y}", **values)
    else:
        text = t("{where}, {a} ends lower than {b}: {what} {x} against {y}", **values)
    return text + t(", a difference of {by} (95% interval {range}, {seeds} seeds{paired})", **values, paired=paired)


def interval(estimate: Estimate, sign: int = 1) -> str:
    """The ends of a 95% interval, in words."""
    assert estimate.half is not None
    low, high = sorted((sign * estimate.mean - estimate.half, sign * estimate.mean + estimate.half))
    return t("{low} to {high}", low=f"{low:.3f}".replace("-", "−"), high=f"{high:.3f}".replace("-", "−"))


def _by_task(comparison: Comparison, field: str, names: list[str], first: int, other: int) -> str:
    if len(names) < 2:
        return "."
    a, b = comparison.groups[first], comparison.groups[other]
    gaps = [difference(comparison.means(field, [n], a), comparison.means(field, [n], b)) for n in names]
    lower = sum(not gap.is_level and gap.mean < 0 for gap in gaps)
    higher = sum(not gap.is_level and gap.mean > 0 for gap in gaps)
    return t(
        "; lower on {lower} of {count} tasks, higher on {higher}, level on {level}.",
        lower=lower,
        count=len(names),
        higher=higher,
        level=len(names) - lower - higher,
    )
