"""One colour for each domain, the same in all pictures and pages of a run.

It depends only on the names of the run's domains. A source has a hue, and its domains have shades of it, so they look
alike.
"""

from collections.abc import Sequence

# Paul Tol's muted palette, which is safe for colour-blind readers; then colours of his other palettes.
COLOURS = (
    *("#332288", "#88CCEE", "#44AA99", "#117733", "#999933", "#DDCC77", "#CC6677", "#882255", "#AA4499"),
    *("#EE7733", "#0077BB", "#225522", "#663333", "#EE3377", "#77AADD", "#666633"),
)
REST = "#DDDDDD"  # for series without a colour of their own
DARKEST, LIGHTEST = -0.4, 0.4  # shades of a source's first and last domain: towards black, towards white


def colour(index: int) -> str:
    """The colour of the index-th series."""
    return COLOURS[index % len(COLOURS)]


def source_of(domain: str) -> str:
    """The source in a domain's name: `code` in `code/3`."""
    head, _, number = domain.rpartition("/")
    return head if head and number.isdigit() else domain


def domain_colours(names: Sequence[str]) -> list[str]:
    """A colour for each domain of a run, in the order of its log."""
    members: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        members.setdefault(source_of(name), []).append(i)
    found = [REST] * len(names)
    for place, mine in enumerate(members.values()):
        for k, i in enumerate(mine):
            shade = 0.0 if len(mine) == 1 else DARKEST + (LIGHTEST - DARKEST) * k / (len(mine) - 1)
            found[i] = shaded(colour(place), shade)
    return found


def source_colours(names: Sequence[str]) -> dict[str, str]:
    """The hue of each source of a run, from the names of its domains."""
    return {source: colour(i) for i, source in enumerate(dict.fromkeys(map(source_of, names)))}


def shaded(hue: str, amount: float) -> str:
    """A colour moved towards white by the share `amount`, or towards black if `amount` is negative."""
    goal = 255 if amount > 0 else 0
    parts = (int(hue[k : k + 2], 16) for k in (1, 3, 5))
    return "#" + "".join(f"{round(part + abs(amount) * (goal - part)):02X}" for part in parts)
