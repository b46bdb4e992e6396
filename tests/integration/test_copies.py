"""Domains that are one data set under many names: nothing may tell them apart."""

import pytest

from tests.integration.support import BY_SOURCE, arguments, examples, train, write_dataset

pytestmark = pytest.mark.integration

TIMES = [10, 1, 1, 6] + [2] * 20  # how often a copy holds each row; its share at the start goes by it


def test_copies_of_one_data_set_keep_the_ratios_that_they_began_with(world, tmp_path):
    """Over 25 updates by real gradients: a copy that is drawn rarely is known less well, but no worse."""
    rows = examples("sums", 24, 0)
    for i, times in enumerate(TIMES):
        write_dataset(tmp_path / "data", f"copy_{i}", rows * times)
    write_dataset(tmp_path / "data", "task_sums", examples("task_sums", 16, 3))
    changes = {
        "dataset_dir": str(tmp_path / "data"),
        "dataset": ",".join(f"copy_{i}" for i in range(len(TIMES))),
        "dids_tasks": "task_sums",
        **BY_SOURCE,
        "dids_init": "proportional",
        "dids_update_samples": 128,
        "per_device_train_batch_size": 16,
        "max_steps": 200,
    }
    p = [list(shares.values()) for shares in train(arguments(world, tmp_path, **changes)).probabilities]
    assert len(p) >= 25
    ratios = [last / first for first, last in zip(p[0], p[-1], strict=True)]
    assert max(ratios) / min(ratios) < 1.1, ratios
