"""What a run cost, in words and as a table: from its `cost.json`, or, where there is none, from the log alone."""

from .run import Run
from .verdict import duration, percent

Rows = list[tuple[str, str]]


def in_words(run: Run) -> str:
    """The cost in a sentence or a few."""
    total, spent = run.seconds, run.cost.get("update_seconds")
    if run.is_fixed:
        trained = f"{duration(total)} of training, " if run.cost else ""
        text = f"{trained}as much as without mixing, since nothing was measured while it trained"
    elif spent is None:
        text = f"{duration(total)} from the start of the training to the last update"
    else:
        share = f" ({percent(spent / total)})" if total > 0 else ""
        measured = f"{duration(spent)} of it{share} went into measuring and choosing the mixture"
        text = f"{duration(total)} of training; {measured}"
    return " ".join([f"{text}.", *_before(run)])


def _before(run: Run) -> list[str]:
    """What came before the training."""
    clustered = run.config.get("dids_domains") == "cluster"
    made, compared = run.cost.get("domain_seconds"), run.cost.get("importance_seconds")
    said = []
    if made:
        said.append(f"Making the domains took {duration(made)} before that.")
    elif clustered:
        said.append("Making the domains came before that." if made is None else "The domains had been made before.")
    if compared:
        said.append(f"Finding the domains that the tasks' samples are nearest to took {duration(compared)}.")
    return said


def table(run: Run) -> Rows:
    """(what, how much) in the order of the run; nothing for a fixed mixture of which no `cost.json` says."""
    return [] if run.is_fixed and not run.cost else [*_rows_before(run), *_rows_of_training(run)]


def _rows_before(run: Run) -> Rows:
    made, compared = run.cost.get("domain_seconds"), run.cost.get("importance_seconds")
    rows = []
    if made is not None and run.config.get("dids_domains") != "source":
        took = duration(made) if made else "0 s: they had been made before"
        rows.append(("before the training: making the domains", took))
    if compared:
        rows.append(("before the training: finding the domains nearest to the tasks' samples", duration(compared)))
    return rows


def _rows_of_training(run: Run) -> Rows:
    spent, measurements = run.cost.get("update_seconds"), len(run.lines)
    rows = [("the training" if run.cost else "the training, until the last update", duration(run.seconds))]
    if run.is_fixed:
        return rows
    if spent is not None:
        rows.append(("of that, measuring and choosing the mixture", duration(spent)))
        rows.append((f"each of these {measurements} times, on average", duration(spent / measurements)))
    return [*rows, ("training samples until the last update", f"{int(run.record.samples_U[-1]):,}")]
