"""The cost of a run, in words and as a table: from its `cost.json`, or else from the log alone."""

import numpy as np

from .run import Run
from .words import duration, percent, t

Rows = list[tuple[str, str]]


def in_words(run: Run) -> str:
    """The cost in one or a few sentences."""
    total, spent = run.seconds, run.cost.get("update_seconds")
    if _measures_nothing(run):
        trained = t("{time} of training, ", time=duration(total)) if run.cost else ""
        text = trained + t("as much as without mixing, since nothing was measured while it trained.")
    elif spent is None:
        text = t("{time} from the start of the training to the last update.", time=duration(total))
    else:
        share = f" ({percent(spent / total)})" if total > 0 else ""
        text = t(
            "{time} of training; {spent} of it{share} went into measuring and choosing the mixture.",
            time=duration(total),
            spent=duration(spent),
            share=share,
        )
    return " ".join([text, *_before(run)])


def _measures_nothing(run: Run) -> bool:
    return run.is_fixed and not np.isfinite(run.record.task_losses_UT[1:]).any()


def _before(run: Run) -> list[str]:
    """Sentences on the work before the training."""
    clustered = run.config.get("dids_domains") == "cluster"
    made, compared = run.cost.get("domain_seconds"), run.cost.get("importance_seconds")
    said = []
    if made:
        said.append(t("Making the domains took {time} before that.", time=duration(made)))
    elif clustered:
        said.append(
            t("Making the domains came before that.") if made is None else t("The domains had been made before.")
        )
    if compared:
        said.append(
            t("Finding the domains that the tasks' samples are nearest to took {time}.", time=duration(compared))
        )
    return said


def table(run: Run) -> Rows:
    """(what, how much) in the order of the run; empty for a fixed mixture without `cost.json`."""
    return [] if run.is_fixed and not run.cost else [*_rows_before(run), *_rows_of_training(run)]


def _rows_before(run: Run) -> Rows:
    made, compared = run.cost.get("domain_seconds"), run.cost.get("importance_seconds")
    rows = []
    if made is not None and run.config.get("dids_domains") != "source":
        took = duration(made) if made else t("0 s: they had been made before")
        rows.append((t("before the training: making the domains"), took))
    if compared:
        rows.append((t("before the training: finding the domains nearest to the tasks' samples"), duration(compared)))
    return rows


def _rows_of_training(run: Run) -> Rows:
    spent, measurements = run.cost.get("update_seconds"), len(run.lines)
    what = t("the training") if run.cost else t("the training, until the last update")
    rows = [(what, duration(run.seconds))]
    if _measures_nothing(run):
        return rows
    if spent is not None:
        rows.append((t("of that, measuring and choosing the mixture"), duration(spent)))
        rows.append((t("each of these {count} times, on average", count=measurements), duration(spent / measurements)))
    return [*rows, (t("training samples until the last update"), f"{int(run.record.samples_U[-1]):,}")]
