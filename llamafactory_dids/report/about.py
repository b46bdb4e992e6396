"""When, where, by what and for how long a run was made, as rows for its report."""

from .evaluation import budget
from .run import Run
from .words import counted, duration, t

Rows = list[tuple[str, str]]


def rows(run: Run) -> Rows:
    """(what, value) for everything that the run's files tell."""
    about, (samples, tokens) = run.about, budget(run)
    trained = "" if samples is None else counted(samples, "sample")
    if tokens is not None:
        trained += t(", {tokens} tokens whose loss was counted", tokens=f"{tokens:,}")
    found = [
        (t("started"), about.get("started", "")),
        (t("duration of the training"), duration(run.seconds) if run.seconds else ""),
        (t("hardware"), about.get("hardware", "")),
        (t("command"), about.get("command", "")),
        (t("processes"), about["processes"] if about.get("processes", 1) > 1 else ""),
        (t("commit"), _listed(about.get("commits", {}))),
        (t("versions"), _listed(about.get("versions", {}))),
        (t("trained on"), trained),
    ]
    return [(what, str(value)) for what, value in found if value]


def _listed(values: dict[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
