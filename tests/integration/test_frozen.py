"""The in-run impact of a training whose model stands still, against fresh gradients of the samples it drew.

At a learning rate of zero the model after the run is that of each of its steps. So what hooks summed up while batches
were trained on can be computed anew: by the gradient engine, in other batches, in eval mode, from the rows alone.
"""

import numpy as np
import pytest
import torch

from tests.integration.support import arguments, train, watched_windows

pytestmark = pytest.mark.integration

EXACT = 1e-4  # error along a direction, relative to both lengths: rounding in fp32
ROUNDED = 3e-2  # 8 bits of mantissa, summed over a window in another order
CASES = {
    "plain": ({"disable_gradient_checkpointing": True}, EXACT),
    "reentrant_checkpointing": ({"use_reentrant_gc": True}, EXACT),
    "checkpointing": ({"use_reentrant_gc": False}, EXACT),
    "accumulated": ({"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}, EXACT),
    "packed": ({"packing": True, "per_device_train_batch_size": 2, "dids_update_samples": 8}, EXACT),
    "neatly_packed": ({"neat_packing": True, "per_device_train_batch_size": 2, "dids_update_samples": 8}, EXACT),
    "lora": ({"finetuning_type": "lora", "lora_rank": 4}, EXACT),
    "bf16": ({"bf16": True, "gradient_accumulation_steps": 2}, ROUNDED),
    "fp16": ({"fp16": True}, ROUNDED),
    "pt_packed": ({"stage": "pt", "per_device_train_batch_size": 2, "dids_update_samples": 8}, EXACT),
}
FROZEN = {"learning_rate": 0.0, "max_steps": 9, "dids_domains": "source", "dids_tracked_entries": 4096}


class Drawn:
    """The rows that a finished run drew, by the history of its mixture, and its engine to measure them anew."""

    def __init__(self, trainer, history=None):
        self.rows, self.plan = trainer.train_dataset, trainer.mixture.plan
        self.meter, sampler = trainer.mixture.observer.meter, trainer.mixture.sampler
        self.per_step, self.window = trainer.mixture.samples_per_step, self.plan.config.dids_update_samples
        sampler.history = history or sampler.history
        sampler.set_epoch(0)
        self.draws = [int(i) for i in sampler]

    def of_window(self, update, domain):
        """The rows of a domain that were drawn in a window."""
        window = self.draws[(update - 1) * self.window : update * self.window]
        return [self.rows[i] for i in window if self.plan.domains_N[i] == domain]

    def of_domain(self, domain):
        """All rows of a domain."""
        return [self.rows[int(i)] for i in (self.plan.domains_N == domain).nonzero()[0]]

    def weighted_gradients(self, update):
        """What the in-run means are along: each domain's tokens, each as heavy as in the loss of its step."""
        sums_DP = torch.zeros(len(self.plan.domain_names), self.meter.entries.size)
        weights_D = torch.zeros(len(sums_DP))
        for first in range((update - 1) * self.window, update * self.window, self.per_step):
            step = self.draws[first : first + self.per_step]
            total = sum(items(self.rows[i]) for i in step)
            for domain in range(len(sums_DP)):
                members = [self.rows[i] for i in step if self.plan.domains_N[i] == domain]
                weight = sum(map(tokens, members)) / total
                sums_DP[domain] += weight * self.meter.domain(members)
                weights_D[domain] += weight
        return sums_DP / weights_D[:, None]


def items(row):
    """What a step's loss is divided by, as transformers counts it: the first token too, where it has a label."""
    return sum(label != -100 for label in row.get("labels", row["input_ids"]))


def tokens(row):
    """How many tokens of a row the loss is of: the first has none before it that it could be told by."""
    return sum(label != -100 for label in row.get("labels", row["input_ids"])[1:])


@pytest.mark.parametrize("case", CASES)
def test_it_is_what_the_fresh_gradients_of_the_drawn_samples_give(case, world, tmp_path):
    changes, bound = CASES[case]
    with watched_windows() as windows:
        ran = train(arguments(world, tmp_path, **FROZEN, **changes))
    assert len(windows) >= 2
    assert_fresh(windows, Drawn(ran.trainer), bound)


def assert_fresh(windows, drawn, bound):
    for update, window in enumerate(windows, 1):
        drawn_D = np.isfinite(window["covariance_DTT"]).all(axis=(1, 2))
        assert drawn_D.sum() > len(drawn_D) / 2
        expected_DP, directions_TP = drawn.weighted_gradients(update), window["directions_TP"]
        lengths_DT = expected_DP.norm(dim=1)[:, None] * directions_TP.norm(dim=1)
        errors_DT = (torch.tensor(window["mean_DT"]).float() - expected_DP @ directions_TP.T).abs() / lengths_DT
        assert errors_DT[drawn_D].max() < bound, f"update {update}: {errors_DT}"


def test_its_errors_are_those_against_whole_domains(world, tmp_path):
    """E (mean - whole)^2 is the variance that is told for n samples drawn.

    Drawing without replacement makes it less, by at most the n / N that is drawn. So the ratio of the two, averaged
    over windows, domains and tasks, is near 1 and not above 2.
    """
    with watched_windows() as windows:
        ran = train(arguments(world, tmp_path, **FROZEN | {"max_steps": 24, "dids_update_samples": 64}))
    drawn = Drawn(ran.trainer)
    whole_DP = torch.stack([drawn.meter.domain(drawn.of_domain(d)) for d in range(len(drawn.plan.domain_names))])
    ratios = []
    for window in windows:
        errors_DT = window["mean_DT"] - (whole_DP @ window["directions_TP"].T).numpy()
        variance_DT = np.einsum("dtt->dt", window["covariance_DTT"])
        ratios.extend((errors_DT**2 / variance_DT)[np.isfinite(variance_DT)])
    assert len(ratios) > 10 and 0.3 < np.mean(ratios) < 2
