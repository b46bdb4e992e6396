"""When the mixture is updated: after each window of samples, at the end of the step that completes it."""

import logging
from typing import Any

from ..config import FEW_UPDATES, MixingConfig
from ..errors import refuse
from .plan import MixingPlan

logger = logging.getLogger(__name__)


def samples_per_step(training_args: Any, num_ranks: int | None = None) -> int:
    """Training samples between two steps of the optimizer, of all ranks: those that run, or as many as are told.

    A rank has one device: the host refuses a process with several.
    """
    per_rank = training_args.per_device_train_batch_size * training_args.gradient_accumulation_steps
    return int(per_rank * (num_ranks or training_args.world_size))


def check_window(config: MixingConfig, per_step: int) -> None:
    """Raise DidsError for a window that is shorter than a step."""
    if config.dids_update_samples < per_step:
        raise refuse(
            "dids_update_samples",
            config.dids_update_samples,
            f"at least the samples of a step, {per_step} (batch size x accumulation x ranks)",
        )


def updates_due(config: MixingConfig, step: int, per_step: int) -> int:
    """How many windows are complete at the end of a step."""
    return step * per_step // config.dids_update_samples


def updates_planned(config: MixingConfig, max_steps: int, per_step: int) -> int:
    """How many updates a run of so many steps makes: none after the last step, since nothing would be drawn by it."""
    return updates_due(config, max(0, max_steps - 1), per_step)


def announce(plan: MixingPlan, per_step: int, max_steps: int) -> int:
    """Say in the log what is planned, with a warning where updates are few; how many there will be, 0 if none ever."""
    total = max_steps * per_step
    if not plan.mixer.needs.measures:
        logger.info("%s: a fixed mixture over %d domains", plan.strategy, len(plan.domain_names))
        return 0
    num_updates = updates_planned(plan.config, max_steps, per_step)
    logger.info(
        "%s: %d domains, %d tasks, %d updates: one every %d of %d training samples",
        plan.strategy,
        len(plan.domain_names),
        len(plan.tasks),
        num_updates,
        plan.config.dids_update_samples,
        total,
    )
    if num_updates < FEW_UPDATES:
        logger.warning(
            "only %d updates of the mixture in %d samples: at least %d are needed for most of the gain; "
            "lower dids_update_samples (now %d)",
            num_updates,
            total,
            FEW_UPDATES,
            plan.config.dids_update_samples,
        )
    return num_updates
