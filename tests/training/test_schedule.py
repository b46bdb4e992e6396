"""How often the mixture is updated where no key says it: by the length of the run."""

from types import SimpleNamespace

import pytest

from llamafactory_dids.config import make_config
from llamafactory_dids.errors import DidsError
from llamafactory_dids.training.schedule import check_repeats, steps_planned, updates_planned, with_window


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


@pytest.mark.parametrize(("steps", "least"), [(1, 1), (34, 1), (35, 2), (68, 2), (69, 3)])
def test_a_limit_of_repeats_is_one_that_the_runs_length_allows_counted_in_epochs_of_whole_steps(steps, least):
    check_repeats(make_config({"dids_max_repeats": least}), 270, steps, per_step=8)
    if least > 1:
        with pytest.raises(DidsError, match=f"got {least - 1}, allowed: at least {least}, since the run draws"):
            check_repeats(make_config({"dids_max_repeats": least - 1}), 270, steps, per_step=8)


def test_without_a_limit_nobody_asks_how_many_rows_there_are():
    check_repeats(make_config({}), 0, 100, per_step=8)  # as of a stream
