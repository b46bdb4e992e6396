"""How often the mixture is updated where no key says it: by the length of the run."""

from types import SimpleNamespace

import pytest

from llamafactory_dids.config import make_config
from llamafactory_dids.training.schedule import steps_planned, updates_planned, with_window


def run(max_steps=-1, epochs=3.0):
    return SimpleNamespace(max_steps=max_steps, num_train_epochs=epochs)


@pytest.mark.parametrize(
    ("steps", "per_step", "window"),
    [
        (782, 128, 4003),  # the paper's 100,000 samples, in whole steps
        (3125, 32, 4000),
        (400, 32, 512),
        (24, 8, 8),  # 25 would be shorter than a step
    ],
)
def test_a_run_has_25_windows_where_none_is_set_each_of_a_step_at_least(steps, per_step, window):
    config = with_window(make_config({}), steps, per_step)
    assert config.dids_update_samples == window
    assert updates_planned(config, steps, per_step) in (23, 24)  # after the last step there is none


def test_a_window_that_is_set_stays():
    assert with_window(make_config({"dids_update_samples": 32}), 1000, 8).dids_update_samples == 32


def test_steps_are_counted_as_the_trainer_does_over_epochs_of_whole_steps():
    assert steps_planned(run(max_steps=7), 270, 8) == 7
    assert steps_planned(run(), 270, 8) == 3 * 34
    assert steps_planned(run(epochs=0.5), 270, 8) == 17
    assert steps_planned(run(epochs=0.01), 5, 8) == 1
