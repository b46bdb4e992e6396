"""Which of the paper's printed figures do not follow from each other, as footnotes that are recomputed each time.

A printed value stands for anything within half a unit of its last digit. A mean of rounded values is off by half a
unit at most, its own rounding by another half, so a printed average disagrees where it differs from the recomputed
one by more than one unit: 0.1 for one decimal.
"""

import math
import statistics
from collections.abc import Sequence

from .definition import Definition, Row

UNIT = 0.1  # of scores, which have one decimal
SLACK = 1e-9  # of binary fractions
PARAMETERS, TOKENS = 8.03e9, 1e9  # of Table 3
FLOP_A_PARAMETER = 6  # forward 2, backward 4


def footnotes(definition: Definition) -> list[str]:
    """What does not add up in a table, a line each."""
    if definition.kind == "cost":
        return [*_units(definition), *_sums(definition), *_overheads(definition)]
    if definition.kind == "data":
        return _total_of_data(definition)
    return _averages(definition) if definition.average else []


def disagreement(values: Sequence[float | None], printed: float, unit: float = UNIT) -> float | None:
    """The recomputed mean where `printed` is off by more than rounding explains, else None."""
    known = [value for value in values if value is not None]
    mean = statistics.fmean(known)
    return mean if abs(mean - printed) > unit + SLACK else None


def _averages(definition: Definition) -> list[str]:
    found = []
    for row in definition.rows:
        if not row.paper or row.paper[-1] is None:
            continue
        mean = disagreement(row.paper[:-1], row.paper[-1])
        if mean is not None:
            where = f"{row.section}, {row.label}" if row.section else row.label
            found.append(f"{where}: the paper prints an average of {row.paper[-1]}; that of its values is {mean:.2f}.")
    return found


def _units(definition: Definition) -> list[str]:
    base = next(row for row in definition.rows if row.more.get("stage") == "base" or row.label == "Base Training")
    flop, printed = FLOP_A_PARAMETER * PARAMETERS * TOKENS, base.paper[0]
    if printed is None or printed * 1e12 > flop / 10:
        return []
    return [
        f"{base.label}: printed {printed:.3g} TFLOPs; 6 x {PARAMETERS:.3g} parameters x {TOKENS:.0e} tokens are "
        f"{flop:.3g} FLOP, which is {flop / 1e12:.3g} TFLOP or {flop / 1e15:.3g} PFLOP."
    ]


def _sums(definition: Definition) -> list[str]:
    """Totals that are not what their parts sum to, by more than the parts' rounding."""
    totals = [row for row in definition.rows if row.more.get("total")]
    found = []
    for total in totals:
        for place, column in enumerate(definition.columns):
            parts = [_value(row, place) for row in definition.rows if not row.more.get("total")]
            printed, summed = total.paper[place], math.fsum(parts)
            tolerance = math.fsum(map(_half_unit, parts)) + _half_unit(printed or 0.0)
            if printed is not None and abs(summed - printed) > tolerance + SLACK:
                found.append(f"{column}: the paper prints a total of {printed:g}; its parts sum to {summed:.5g}.")
    return found


def _value(row: Row, place: int) -> float:
    value = row.paper[place]
    return 0.0 if value is None or row.more.get("below") else value


def _half_unit(value: float) -> float:
    """Half a unit of the last digit of a printed cost: three digits in powers of ten, one decimal of hours."""
    if value == 0:
        return 0.0
    return 0.05 if 1 <= abs(value) < 200 else 0.5 * 10 ** (math.floor(math.log10(abs(value))) - 2)


def _overheads(definition: Definition) -> list[str]:
    """Overheads that are not those of the totals beside them, by more than their rounding; parts that do not sum."""
    if "overhead_percent" not in definition.columns:
        return []
    base, found = definition.rows[0].paper[0], []
    assert base is not None
    for row in definition.rows[1:]:
        total, printed, _ = row.paper
        assert total is not None and printed is not None
        low, high = _overhead(total - _half_unit(total), base), _overhead(total + _half_unit(total), base)
        if not low - 0.05 - SLACK <= printed <= high + 0.05 + SLACK:
            found.append(f"{row.label}: printed {printed}% overhead; its total gives {_overhead(total, base):.1f}%.")
        parts = row.more.get("parts")
        if parts and abs(base + sum(parts) - total) > 2 * _half_unit(total):
            found.append(
                f"{row.label}: printed {total:.4g}; base training and its parts sum to {base + sum(parts):.4g}."
            )
    return found


def _overhead(total: float, base: float) -> float:
    return 100 * (total / base - 1)


def _total_of_data(definition: Definition) -> list[str]:
    total = next(row for row in definition.rows if row.more.get("total"))
    listed = [row for row in definition.rows if row.paper and not row.more.get("total")]
    samples = sum(int(row.paper[0] or 0) for row in listed)
    printed = int(total.paper[0] or 0)
    if samples == printed:
        return []
    missing = [row for row in definition.rows if not row.paper]
    names = ", ".join(f"{row.label} ({row.more['samples']:,})" for row in missing)
    left = printed - samples - sum(row.more["samples"] for row in missing)
    found = f"{len(listed)} sources sum to {samples:,} samples under a total of {printed:,}; not listed: {names}"
    return [f"{found}." if left == 0 else f"{found}, which leaves {left:,}."]
