"""The running gradients of a training whose model stands still, against fresh ones of the samples it drew.

At a learning rate of zero the model after the run is that of each of its steps. So what hooks summed up while batches
were trained on can be computed anew: by the gradient engine, in other batches, in eval mode, from the rows alone.
"""

import json

import numpy as np
import pytest
import torch

from tests.integration.support import arguments, finish_well, start, train, watched_windows, write_yaml
from tests.integration.test_ranks import DRIVER, TORCHRUN

pytestmark = pytest.mark.integration

EXACT = 1e-4  # error of a domain's gradient, relative to its length: rounding in fp32
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
        """What the running sums stand for: each domain's tokens, each as heavy as in the loss of its step."""
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
def test_running_gradients_are_the_fresh_ones_of_the_drawn_samples(case, world, tmp_path):
    changes, bound = CASES[case]
    with watched_windows() as windows:
        ran = train(arguments(world, tmp_path, **FROZEN, **changes))
    assert len(windows) >= 2
    assert_fresh(windows, Drawn(ran.trainer), bound)


def assert_fresh(windows, drawn, bound):
    for update, (found_DP, known_D) in enumerate(windows, 1):
        assert known_D.all()
        expected_DP = drawn.weighted_gradients(update)
        errors = [relative_error(*pair) for pair in zip(found_DP, expected_DP, strict=True)]
        assert max(errors) < bound, f"update {update}: {errors}"


def test_running_gradients_of_two_ranks_are_the_fresh_ones_too(world, tmp_path):
    pair = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    values = arguments(world, tmp_path / "pair", **FROZEN, **pair)
    path = str(write_yaml(tmp_path / "run.yaml", values))
    process = start([*TORCHRUN, DRIVER, path, str(tmp_path)])
    alone = train(arguments(world, tmp_path / "alone", **FROZEN))
    finish_well(process)
    found = [torch.load(tmp_path / f"windows{rank}.pt", weights_only=False) for rank in (0, 1)]
    history = json.loads((tmp_path / "rank0.json").read_text())["history"]
    drawn = Drawn(alone.trainer, [(at, np.array(p)) for at, p in history])
    assert len(found[0]) == len(found[1]) == 2
    for windows in found:
        assert_fresh(windows, drawn, EXACT)


def test_running_gradients_estimate_those_of_whole_domains_as_well_as_their_number_of_samples_allows(world, tmp_path):
    """E |running - whole|^2 = V / n for n samples drawn, V the spread of a sample's share in the token-weighted mean.

    Drawing without replacement makes it less, by at most the n / N that is drawn. So the ratio of the two, averaged
    over windows and domains, is near 1 and not above 2; against another domain's gradient it is far above.
    """
    with watched_windows() as windows:
        ran = train(arguments(world, tmp_path, **FROZEN | {"max_steps": 24, "dids_update_samples": 64}))
    drawn = Drawn(ran.trainer)
    domains = range(len(drawn.plan.domain_names))
    whole, spread = zip(*(mean_and_spread(drawn.meter, drawn.of_domain(domain)) for domain in domains), strict=True)
    ratios = {True: [], False: []}
    for update, (found_DP, _) in enumerate(windows, 1):
        for domain in domains:
            expected = spread[domain] / len(drawn.of_window(update, domain))
            for other in domains:
                ratios[other == domain].append(float((found_DP[domain] - whole[other]).square().sum()) / expected)
    assert 0.3 < np.mean(ratios[True]) < 2
    assert np.mean(ratios[False]) > 5


def mean_and_spread(meter, rows):
    """Token-weighted mean gradient (P), and the mean square of a sample's distance from it in units of mean tokens."""
    gradients = [(tokens(row), meter.domain([row])) for row in rows]
    mean_tokens = sum(count for count, _ in gradients) / len(rows)
    mean_P = sum(count * gradient for count, gradient in gradients) / len(rows) / mean_tokens
    squares = [(count / mean_tokens) ** 2 * float((gradient - mean_P).square().sum()) for count, gradient in gradients]
    return mean_P, sum(squares) / len(rows)


def relative_error(found_P, expected_P):
    return float((found_P - expected_P).norm() / expected_P.norm())
