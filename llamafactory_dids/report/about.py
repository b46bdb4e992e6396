"""When, where, by what and for how long a run was made, as rows for its report."""

from .evaluation import budget
from .run import Run
from .words import counted, duration, t

Rows = list[tuple[str, str]]


def rows(run: Run) -> Rows:
    """(what, value) for everything that the run's files tell."""
    about, found = run.about, []
    for key, what in (("started", "started"), ("hardware", "hardware"), ("command", "command")):
        if about.get(key):
            found.append((t(what), str(about[key])))
    if run.seconds:
        found.insert(1 if about.get("started") else 0, (t("duration of the training"), duration(run.seconds)))
    if about.get("processes", 1) > 1:
        found.append((t("processes"), str(about["processes"])))
    commits = about.get("commits") or {}
    if commits:
        found.append((t("commit"), ", ".join(f"{name} {commit}" for name, commit in commits.items())))
    if about.get("versions"):
        found.append((t("versions"), ", ".join(f"{name} {number}" for name, number in about["versions"].items())))
    trained = budget(run)
    if trained.samples is not None:
        tokens = (
            ""
            if trained.tokens is None
            else t(", {tokens} tokens whose loss was counted", tokens=f"{trained.tokens:,}")
        )
        found.append((t("trained on"), counted(trained.samples, "sample") + tokens))
    return found
