"""An explanation as lines for a person."""

import math

from ...config import FEW_UPDATES
from ..domains.sizes import LARGE
from .explain import Explanation

SHOWN = 12  # shares of a mixture


def in_words(found: Explanation) -> str:
    """The explanation as lines for a person."""
    names = ", ".join(f"{name} {count:,}" for name, count in found.sources.items())
    rows = [
        ("Data", f"{sum(found.sources.values()):,} samples of {_number(len(found.sources), 'dataset')}: {names}"),
        ("Domains", f"{'up to ' * found.domains_from.startswith('k-means')}{found.num_domains}: {found.domains_from}"),
        *([("Mixture", _mixture_words(found))] if found.mixtures else []),
        ("Tasks", _task_words(found)),
        ("Training", _training_words(found)),
        ("Updates", _update_words(found)),
        ("Cost", _cost_words(found)),
        ("Memory", f"{_bytes(found.gradient_bytes)} on each device for the domains' running gradients"),
        ("Proxy", _proxy_words(found)),
        (
            "Disk",
            f"about {_bytes(found.disk_bytes)} in {found.cache}, made once; log, map and report in {found.output}",
        ),
    ]
    return "\n".join(f"{what + ':':<10}{text}" for what, text in [("Strategy", found.strategy), *rows])


def _number(count: int, what: str) -> str:
    return f"{count:,} {what}" + ("" if count == 1 else "s")


def _bytes(count: float) -> str:
    power = min(4, int(math.log10(max(1, count))) // 3)
    return f"{count / 1000**power:.3g} {('bytes', 'kB', 'MB', 'GB', 'TB')[power]}"


def _mixture_words(found: Explanation) -> str:
    """The shares, of a schedule at each point; the smallest of many together."""
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
    return "observes " + ", ".join(f"{count} samples of {name}" for name, count in found.tasks.items())


def _training_words(found: Explanation) -> str:
    packed = ", fewer where samples are packed together" if found.packing else ""
    return (
        f"{found.training_samples:,} samples in {_number(found.steps, 'step')} of {found.samples_per_step}, on "
        f"{_number(found.processes, 'process').replace('processs', 'processes')}{packed}"
    )


def _update_words(found: Explanation) -> str:
    if not found.num_updates and not found.update_passes:
        fixed = "none" if found.training_samples < found.update_samples else "none: the mixture is fixed"
        return fixed
    few = "" if found.num_updates >= FEW_UPDATES else (
        f"; at least {FEW_UPDATES} are needed for most of the gain: lower dids_update_samples"
    )  # fmt: skip
    return f"{found.num_updates}, one every {found.update_samples:,} samples{few}"


def _proxy_words(found: Explanation) -> str:
    if not found.proxy_parameters:
        return "none: no gradients are clustered"
    smaller = "; a small model of its family (dids_proxy_model) makes the domains faster"
    return (
        f"{found.proxy}, {found.proxy_parameters:,} parameters, whole on each process: {_bytes(found.proxy_bytes)} of "
        f"memory and its activations{smaller if found.proxy_parameters >= LARGE else ''}"
    )


def _cost_words(found: Explanation) -> str:
    share = found.training_passes
    parts = []
    if found.domain_passes:
        parts.append(f"{found.domain_passes / share:.1%} to make the domains, once")
    if found.update_passes:
        parts.append(f"{found.update_passes / share:.1%} for the updates")
    if found.proxy_run:
        parts.append(
            f"at least {found.proxy_run_passes / share:.0%} for the proxy run {found.proxy_run!r} and its like"
        )
    size = f"; the model has {found.parameters:,} parameters" if found.parameters else ""
    if not parts:
        return f"as much computing as without mixing{size}"
    return f"about {found.overhead:.1%} of the training's computing on top: {', '.join(parts)}{size}"
