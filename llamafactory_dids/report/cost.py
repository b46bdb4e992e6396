"""The cost of a run in words: from its `cost.json`, or else from the log alone."""

import numpy as np

from .run import Run
from .words import duration, percent, t


def in_words(run: Run) -> str:
    """The cost in one or a few sentences."""
    total, spent = run.seconds, run.cost.get("update_seconds")
    if run.is_fixed and not np.isfinite(run.record.task_losses_UT[1:]).any():
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


def _before(run: Run) -> list[str]:
    """Sentences on the work before the training."""
    made, compared = run.cost.get("domain_seconds"), run.cost.get("importance_seconds")
    said = []
    if made:
        said.append(t("Making the domains took {time} before that.", time=duration(made)))
    elif made is not None and run.config.get("dids_domains") == "cluster":
        said.append(t("The domains had been made before."))
    if compared:
        said.append(
            t("Finding the domains that the tasks' samples are nearest to took {time}.", time=duration(compared))
        )
    return said
