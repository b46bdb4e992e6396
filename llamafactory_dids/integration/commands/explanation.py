"""An explanation as lines of text, in the width of the terminal."""

import shutil
import textwrap

from ...text import byte_size
from ..domains.sizes import LARGE
from .explain import Explanation

SHOWN = 12  # shares of a mixture that are shown


def in_words(found: Explanation) -> str:
    by_size = sorted(found.sources.items(), key=lambda item: -item[1])
    names = _listed([f"{name} {count:,}" for name, count in by_size])
    rows = [
        ("Strategy", found.strategy),
        ("Data", f"{sum(found.sources.values()):,} samples of {_number(len(found.sources), 'dataset')}: {names}"),
        ("Domains", f"{'up to ' * found.domains_from.startswith('k-means')}{found.num_domains}: {found.domains_from}"),
        *([("Mixture", _mixture_words(found))] if found.mixtures else []),
        ("Tasks", _task_words(found)),
        ("Training", _training_words(found)),
        ("Updates", _update_words(found)),
        ("Cost", _cost_words(found)),
        ("Memory", f"{byte_size(found.gradient_bytes)} on each device for the gradients that the impact is taken of"),
        ("Proxy", _proxy_words(found)),
        (
            "Disk",
            f"about {byte_size(found.disk_bytes)} in {found.cache}, made once; log, map and report in {found.output}",
        ),
    ]
    rows += [("Caution", _CAUTIONS[kind].format(**said)) for kind, said in found.cautions]
    width = min(110, max(60, shutil.get_terminal_size().columns))
    wrap = textwrap.TextWrapper(width, subsequent_indent=" " * 10, break_on_hyphens=False)
    return "\n".join(wrap.fill(f"{what + ':':<10}{text}") for what, text in rows)


_CAUTIONS = {
    "few_updates": "{count} updates: with fewer than {least} most of the gain is lost. Lower dids_update_samples, or "
    "train longer.",
    "trained_task": "{name} is both trained on and observed as a task: its loss says little then.",
    "repeated": "each sample is drawn {times} times on average, and those of a domain that grows more often; beyond "
    "four times a repetition helps little.",
    "note": "{text}",
}
MOST_NAMES = 6  # datasets, or tasks, named one by one


def _number(count: int, what: str, plural: str = "s") -> str:
    return f"{count:,} {what}" + ("" if count == 1 else plural)


def _mixture_words(found: Explanation) -> str:
    """The shares of a mixture, or of each point of a schedule. The smallest of many shares are added up."""
    points = [(at, _shares_words(shares)) for at, shares in found.mixtures.items()]
    words = points[0][1] if len(points) == 1 else "; ".join(f"at {at}: {shares}" for at, shares in points)
    return f"{words} of the {found.share_of}"


def _shares_words(shares: dict[str, float]) -> str:
    largest = sorted(shares, key=lambda name: -shares[name])[:SHOWN]
    words = [f"{name} {shares[name]:.1%}" for name in shares if name in largest]
    if len(shares) > SHOWN:
        words.append(f"{len(shares) - SHOWN} others {sum(shares.values()) - sum(shares[name] for name in largest):.1%}")
    return ", ".join(words)


def _task_words(found: Explanation) -> str:
    if not found.tasks:
        return "none: this strategy looks at no task"
    counts = set(found.tasks.values())
    if len(counts) == 1:
        return f"observes {counts.pop()} samples each of {_listed(list(found.tasks))}"
    return "observes samples of " + _listed([f"{name} ({count})" for name, count in found.tasks.items()])


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more


def _training_words(found: Explanation) -> str:
    packed = ", fewer where samples are packed together" if found.packing else ""
    return (
        f"{found.training_samples:,} samples in {_number(found.steps, 'step')} of {found.samples_per_step}, on "
        f"{_number(found.processes, 'process', 'es')}{packed}"
    )


def _update_words(found: Explanation) -> str:
    if not found.updates_wanted:
        return "none: the mixture is fixed"
    every = f"one every {found.update_samples:,} samples{'' if found.window_is_set else ', by the length of the run'}"
    if not found.num_updates:
        return f"none: {every} would be, and the run has {found.training_samples:,}"
    return f"{found.num_updates}, {every}"


def _proxy_words(found: Explanation) -> str:
    if not found.proxy_parameters:
        return "none: no gradients are clustered"
    large = found.proxy_parameters >= LARGE
    smaller = "; a small model of its family (dids_proxy_model) makes the domains faster" if large else ""
    return (
        f"{found.proxy}, {found.proxy_parameters:,} parameters, whole on each process: {byte_size(found.proxy_bytes)} "
        f"of memory and its activations{smaller}"
    )


def _cost_words(found: Explanation) -> str:
    words = {
        "domains": "{:.1%} to make the domains, once",
        "updates": "{:.1%} for the updates",
        "proxy_run": f"at least {{:.0%}} for the proxy run {found.proxy_run!r} and its like",
    }
    parts = [words[what].format(share) for what, share in found.costs.items()]
    size = f"; the model has {found.parameters:,} parameters" if found.parameters else ""
    if not parts:
        return f"as much computing as without mixing{size}"
    return f"about {found.overhead:.1%} of the training's computing on top: {', '.join(parts)}{size}"
