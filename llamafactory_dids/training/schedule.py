"""The times of the updates: after each window of samples, at the end of the step that completes the window."""

import dataclasses
import logging
import math
from typing import Any

from ..config import FEW_UPDATES, WINDOWS, MixingConfig
from ..errors import refuse
from .plan import MixingPlan

logger = logging.getLogger(__name__)


def samples_per_step(training_args: Any, num_ranks: int | None = None) -> int:
    """Training samples of an optimizer step over all ranks: the ranks of this run, or `num_ranks`.

    A rank has one device: the host refuses a process with several.
    """
    per_rank = training_args.per_device_train_batch_size * training_args.gradient_accumulation_steps
    return int(per_rank * (num_ranks or training_args.world_size))


def steps_planned(training_args: Any, num_rows: int, per_step: int) -> int:
    """Steps of a run over `num_rows` rows, as the trainer counts them. The sampler fills an epoch up to whole steps."""
    if training_args.max_steps > 0:
        return int(training_args.max_steps)
    return max(1, math.ceil(training_args.num_train_epochs * math.ceil(num_rows / per_step)))


def with_window(config: MixingConfig, max_steps: int, per_step: int) -> MixingConfig:
    """The configuration with a window: if none is set, a 25th of the run and at least a step."""
    if config.dids_update_samples is not None:
        return config
    return dataclasses.replace(config, dids_update_samples=max(per_step, max_steps * per_step // WINDOWS))


def check_window(config: MixingConfig, per_step: int) -> None:
    """Raise DidsError for a window shorter than a step."""
    if config.dids_update_samples is not None and config.dids_update_samples < per_step:
        raise refuse(
            "dids_update_samples",
            config.dids_update_samples,
            f"at least the samples of a step, {per_step} (batch size x accumulation x ranks)",
        )


def check_repeats(config: MixingConfig, num_rows: int, steps: int, per_step: int) -> None:
    """Raise DidsError if the run is too long for `dids_max_repeats` with any mixture."""
    if config.dids_max_repeats is None:
        return
    least = math.ceil(steps / math.ceil(num_rows / per_step))  # an epoch is filled up to whole steps
    if config.dids_max_repeats < least:
        raise refuse(
            "dids_max_repeats",
            config.dids_max_repeats,
            f"at least {least}, since the run draws {steps * per_step} samples of {num_rows}",
        )


def updates_due(config: MixingConfig, step: int, per_step: int) -> int:
    """The number of windows that are complete at the end of a step."""
    assert config.dids_update_samples is not None, "as `with_window` has it"
    return step * per_step // config.dids_update_samples


def updates_planned(config: MixingConfig, max_steps: int, per_step: int) -> int:
    """The number of updates in a run. The last step makes none, since no sample would be drawn by it."""
    return updates_due(config, max(0, max_steps - 1), per_step)


def announce(plan: MixingPlan, per_step: int, max_steps: int) -> int:
    """Log the plan, and warn if updates are few. Returns the number of updates, 0 for a fixed mixture."""
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
    if len(plan.domain_names) == 1:
        logger.warning("%s: one domain alone, so the mixture cannot move", plan.strategy)
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
