"""Mean training loss of each domain in a window."""

import math

import numpy as np
import torch

from llamafactory_dids.training.domain_losses import DomainLosses


def filled() -> DomainLosses:
    losses = DomainLosses(4)
    losses.add([0, 2, 0], torch.tensor([1.0, 5.0, 2.0]), torch.tensor([3, 1, 9]))
    losses.add([2, 3, 0], torch.tensor([math.nan, 7.0, 6.0]), torch.tensor([2, 0, 1]))
    return losses


def test_each_samples_loss_counts_once_but_for_broken_and_unlabelled_ones():
    means = filled().close_window().tolist()
    assert means[0] == 3.0 and means[2] == 5.0
    assert math.isnan(means[1]) and math.isnan(means[3])


def test_a_window_starts_from_nothing():
    losses = filled()
    losses.close_window()
    losses.add([1], torch.tensor([4.0]), torch.tensor([1]))
    means = losses.close_window().tolist()
    assert means[1] == 4.0 and all(math.isnan(means[domain]) for domain in (0, 2, 3))


def test_a_window_goes_on_from_its_state():
    resumed = DomainLosses(4)
    resumed.restore([filled().share()])
    whole = filled()
    for losses in (resumed, whole):
        losses.add([1, 0], torch.tensor([4.0, 8.0]), torch.tensor([1, 1]))
    np.testing.assert_array_equal(resumed.close_window(), whole.close_window())
