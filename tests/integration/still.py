"""A training of a model that stands still, so that what its batches showed can be measured again after it."""

import itertools
from typing import Any

from llamafactory_dids.training.sampler import MixtureSampler
from tests.integration.support import Run, train

STILL = {"learning_rate": 0.0, "dids_update_samples": 1000, "dids_domains": "source"}
MEAN_GRADIENTS = {"dids_update": "exponentiated", "dids_impact_normalize": "cosine"}


def still_run(values: dict[str, Any]) -> tuple[Run, dict[int, list[Any]]]:
    """The run, in which no update is made, and the rows of each domain that it trained on.

    `dids` looks at mean gradients there, as it does for its other readings.
    """
    ran = train(values | STILL | (MEAN_GRADIENTS if values["mix_strategy"] == "dids" else {}))
    plan, state, arguments = ran.trainer.mixture.plan, ran.trainer.state, ran.trainer.args
    again = MixtureSampler(plan.domains_N, plan.mixer.init().probabilities_D, seed=plan.seed, epoch_size=1000)
    trained = state.global_step * arguments.train_batch_size * arguments.gradient_accumulation_steps
    rows: dict[int, list[Any]] = {domain: [] for domain in range(len(plan.domain_names))}
    for i in itertools.islice(iter(again), trained):
        rows[int(plan.domains_N[i])].append(ran.trainer.train_dataset[i])
    return ran, rows
