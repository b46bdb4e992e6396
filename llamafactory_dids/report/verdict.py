"""A run in words with numbers, for someone who was not there.

Each sentence says what was measured and no more. One run's log cannot tell whether another mixture would do better.
"""

from typing import NamedTuple

import numpy as np

from ..config import FEW_UPDATES
from .evaluation import held_out
from .outcomes import TaskOutcome, learned, task_outcomes
from .run import Floats, Run
from .shares import (
    MANY_REPEATS,
    Share,
    data_shares,
    domain_shares,
    drawn_shares,
    most_cut,
    most_fed,
    repeated,
    shares_by_source,
    sizes_D,
)
from .words import counted, number, percent, t, times

NUM_NAMED = 3


class Verdict(NamedTuple):
    """The top of a report, from its first sentences (`lines`) to the `cautions`.

    `fed_more` and `fed_less` are domains. `sources` is sorted from the largest gain against the data to the largest
    cut.
    """

    lines: list[str]
    fed_more: list[Share]
    fed_less: list[Share]
    sources: list[Share]
    tasks: list[TaskOutcome]
    learned: str
    cautions: list[str]


def judge(run: Run) -> Verdict:
    domains, sources = domain_shares(run), _own_sources(run)
    told = sources if any(share.moved for share in sources) else domains  # moves within data sets are told by domain
    tasks = task_outcomes(run)
    return Verdict(
        lines=[line for line in (_held_out(run), *_moves(run, told), _headline(run)) if line],
        fed_more=most_fed(domains)[:NUM_NAMED],
        fed_less=most_cut(domains)[:NUM_NAMED],
        sources=sorted(sources, key=lambda share: -share.change),
        tasks=tasks,
        learned=learned(tasks),
        cautions=_cautions(run, domains),
    )


def reference(run: Run) -> str:
    """The reference of the shares, in words."""
    if sizes_D(run) is None:
        return t("the start")
    return t("the data (in tokens)") if run.lines[0].get("share_of") == "tokens" else t("the data")


def effective_number(shares_D: Floats) -> float:
    """exp(entropy): the number of domains in an even mixture of the same entropy."""
    positive = shares_D[shares_D > 0]
    return float(np.exp(-(positive * np.log(positive)).sum()))


def _held_out(run: Run) -> str:
    losses = held_out(run)
    if not losses:
        return ""
    each = ", ".join(f"{name} {loss:.3f}" for name, loss in losses.items())
    if len(losses) == 1:
        return t("Loss on held-out data after the training: {each}.", each=each)
    mean = f"{np.mean(list(losses.values())):.3f}"
    return t("Loss on held-out data after the training: mean {mean} ({each}).", mean=mean, each=each)


def _moves(run: Run, shares: list[Share]) -> list[str]:
    """Sentences on the largest cuts and the largest gains, against the data."""
    of = reference(run)
    sentences = []
    if cut := most_cut(shares)[:NUM_NAMED]:
        sentences.append(
            t("Cut most, from its share of {of} to its share of what was drawn: {each}.", of=of, each=_each(cut))
        )
    if fed := most_fed(shares)[:NUM_NAMED]:
        sentences.append(t("Fed more than its share of {of}: {each}.", of=of, each=_each(fed)))
    if not sentences:
        sentences.append(t("Everything was drawn by its share of {of}, but for chance.", of=of))
    return sentences


def _each(shares: list[Share]) -> str:
    return ", ".join(
        f"{share.name} {percent(share.data)} → {percent(share.drawn)} ({times(share.times)})" for share in shares
    )


def _headline(run: Run) -> str:
    now_D, data_D = run.record.probabilities_UD[-1], data_shares(run)
    what = t("{strategy} over {domains}", strategy=run.strategy, domains=counted(len(now_D), "domain"))
    moved = percent(float(np.abs(drawn_shares(run) - data_D).sum()) / 2)
    of, samples = reference(run), f"{int(run.record.samples_U[-1]):,}"
    updates = counted(run.num_updates, "update")
    if run.is_too_short:
        window = run.config.get("dids_update_samples")
        return t(
            "{what}: no update was made. The training ended after {samples} samples, before the first one (a window "
            "has {window}), so the mixture stayed as it began.",
            what=what,
            samples=samples if int(run.record.samples_U[-1]) else t("so few"),
            window=window if window is not None else "dids_update_samples",
        )
    if run.is_fixed:
        return t(
            "{what}: a mixture that is not updated; {moved} of what was drawn went elsewhere than the shares of {of} "
            "would have sent it.",
            what=what,
            moved=moved,
            of=of,
        )
    if run.num_moves < run.num_updates:
        updates = t("{updates} ({moves} of them moved the mixture)", updates=updates, moves=run.num_moves or t("none"))
    return t(
        "{what}: in {updates} over {samples} training samples, {moved} of what was drawn went elsewhere than the "
        "shares of {of} would have sent it. The mixture is now as spread out as {now} domains with equal shares would "
        "be ({of}: {data}).",
        what=what,
        updates=updates,
        samples=samples,
        moved=moved,
        of=of,
        now=number(effective_number(now_D)),
        data=number(effective_number(data_D)),
    )


def _own_sources(run: Run) -> list[Share]:
    """The data sets; empty if there is only one, or they are the domains themselves."""
    found = shares_by_source(run)
    are_domains = len(found) == len(run.domains) and all(len(domain["sources"]) == 1 for domain in run.domains)
    return [] if len(found) < 2 or are_domains else found


def _cautions(run: Run, domains: list[Share]) -> list[str]:
    cautions = []
    if run.is_too_short or 0 < run.num_updates < FEW_UPDATES:
        cautions.append(
            t(
                "{updates}: at least {few} are needed for most of the gain (lower dids_update_samples, or train "
                "longer).",
                updates=counted(run.num_updates, "update"),
                few=FEW_UPDATES,
            )
        )
    if run.num_updates and not run.num_moves and len(run.record.domain_names) > 1:
        cautions.append(
            t(
                "The mixture never moved from its start: in no window did the domains differ beyond noise. The run "
                "drew {each} samples of each domain on average. A longer training or fewer domains (dids_num_domains) "
                "tell more.",
                each=f"{run.record.samples_U[-1] / len(run.record.domain_names):,.0f}",
            )
        )
    if often := repeated(domains):
        each = ", ".join(f"{share.name} ×{number(share.repeats)} ({share.size:,})" for share in often[:NUM_NAMED])
        cautions.append(
            t(
                "{domains} repeated more than {many} times: {each} (its samples in brackets). What a model "
                "still learns from a repetition fades after about that many: more data of this kind, or a higher "
                "dids_floor, helps.",
                domains=counted(len(often), "domain"),
                many=f"{MANY_REPEATS:g}",
                each=each,
            )
        )
    for name, losses_U in zip(run.record.task_names, run.record.task_losses_UT.T, strict=True):
        if missing := int((~np.isfinite(losses_U)).sum()):
            cautions.append(
                t(
                    "{name}: no finite loss at {missing} of {count} measurements.",
                    name=name,
                    missing=missing,
                    count=len(losses_U),
                )
            )
    return cautions
