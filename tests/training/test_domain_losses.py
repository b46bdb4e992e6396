"""Mean training loss of each domain in a window."""

import math

import numpy as np
import torch

from llamafactory_dids.training.domain_losses import MOST_WAITING, DomainLosses


def filled() -> DomainLosses:
    losses = DomainLosses(4)
    losses.add([0, 2, 0], torch.tensor([1.0, 5.0, 2.0]), torch.tensor([3, 1, 9]))
    losses.add([2, 3, 0], torch.tensor([math.nan, 7.0, 6.0]), torch.tensor([2, 0, 1]))
    return losses


def test_each_samples_loss_counts_once_but_for_broken_and_unlabelled_ones():
    means = filled().close_window().losses_D.tolist()
    assert means[0] == 3.0 and means[2] == 5.0
    assert math.isnan(means[1]) and math.isnan(means[3])


def test_a_window_starts_from_nothing():
    losses = filled()
    losses.close_window()
    losses.add([1], torch.tensor([4.0]), torch.tensor([1]))
    means = losses.close_window().losses_D.tolist()
    assert means[1] == 4.0 and all(math.isnan(means[domain]) for domain in (0, 2, 3))


def test_a_window_goes_on_from_its_state():
    resumed = DomainLosses(4)
    resumed.restore(filled().common(), [filled().share()])
    whole = filled()
    for losses in (resumed, whole):
        losses.add([1, 0], torch.tensor([4.0, 8.0]), torch.tensor([1, 1]))
    for found, expected in zip(resumed.close_window(), whole.close_window(), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_terms_are_counted_over_all_windows_and_those_of_broken_losses_too():
    losses = filled()
    assert losses.look().terms_D.tolist() == losses.close_window().terms_D.tolist() == [13, 0, 3, 0]
    losses.add([1], torch.tensor([4.0]), torch.tensor([5]))
    resumed = DomainLosses(4)
    resumed.restore(losses.common(), [losses.share()])
    assert losses.close_window().terms_D.tolist() == resumed.close_window().terms_D.tolist() == [13, 5, 3, 0]


def test_a_model_that_does_not_tell_its_losses_has_its_terms_counted_all_the_same():
    losses = DomainLosses(2)
    losses.add([0, 1], None, torch.tensor([3, 4]))
    seen = losses.close_window()
    assert not losses.tells and seen.terms_D.tolist() == [3, 4] and np.isnan(seen.losses_D).all()


def test_many_batches_are_fetched_in_between_and_none_is_lost():
    losses = DomainLosses(1)
    for i in range(3 * MOST_WAITING // 2):
        losses.add([0], torch.tensor([float(i)]), torch.tensor([1]))
    assert losses.window["counts"].tolist() == [MOST_WAITING]
    seen = losses.close_window()
    assert seen.losses_D.tolist() == [(3 * MOST_WAITING // 2 - 1) / 2] and seen.terms_D.tolist() == [96]


def test_a_checkpoint_of_an_earlier_version_begins_the_count_anew():
    losses = filled()
    losses.restore({}, [{}])
    assert losses.close_window().terms_D.tolist() == [0, 0, 0, 0]
