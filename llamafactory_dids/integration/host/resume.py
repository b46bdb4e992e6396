"""The checkpoint that a run resumes from: a complete one of the same set-up, found before a model is loaded."""

import logging
from pathlib import Path
from typing import Any

from transformers.trainer_utils import get_last_checkpoint

from ...artifacts.run_state import load_values, whole_checkpoints
from ...errors import DidsError, refuse
from ...training.checkpoint import check_identity, identity
from ...training.plan import MixingPlan
from ...training.schedule import samples_per_step
from ..settings import Settings

logger = logging.getLogger(__name__)

KEY = "resume_from_checkpoint"


def settle(settings: Settings, training_args: Any) -> None:
    """Put the checkpoint to resume from, or none, into the host's arguments.

    A checkpoint that the user named must be complete. If the host looks for the last one itself, it gets the last
    complete one. Raises DidsError if there is none, and nothing shows that a mixture began here.
    """
    if not training_args.resume_from_checkpoint:
        return
    wanted = settings.arguments.get(KEY)
    if wanted is None or wanted is True:
        training_args.resume_from_checkpoint = _last_whole(training_args, wanted)
    else:
        load_values(Path(training_args.resume_from_checkpoint))


def _last_whole(training_args: Any, wanted: bool | None) -> str | None:
    output_dir = Path(training_args.output_dir)
    whole = whole_checkpoints(output_dir)
    if not whole and wanted:
        raise refuse(KEY, wanted, f"where {output_dir} holds a whole checkpoint of a mixture")
    if not whole and not (output_dir / "dids" / "mixture.jsonl").exists():
        raise DidsError(
            f"output_dir: {output_dir} holds checkpoints made without a mixture; "
            "allowed: another output_dir, or overwrite_output_dir: true"
        )
    found = str(whole[0]) if whole else None
    if found != (cut_off := get_last_checkpoint(str(output_dir))):
        logger.warning("%s is not whole: %s", cut_off, f"resuming from {found}" if found else "training starts anew")
    return found


def window_of_checkpoint(training_args: Any) -> int | None:
    """Samples between two updates in the resumed run, whose window is kept; None if no run is resumed."""
    if not training_args.resume_from_checkpoint:
        return None
    values = load_values(Path(training_args.resume_from_checkpoint))
    found = values.get("identity", {}).get("dids_update_samples")
    return int(found) if found is not None else None


def check_set_up(plan: MixingPlan, training_args: Any) -> None:
    """Raise DidsError, with both values, if the checkpoint to resume from belongs to another set-up."""
    if not training_args.resume_from_checkpoint:
        return
    folder = Path(training_args.resume_from_checkpoint)
    check_identity(folder, load_values(folder), identity(plan, samples_per_step(training_args)))
