"""What the reproduction trains with in place of clusters: a map whose samples scripts/experiments/maps.py moved."""

import numpy as np
import pytest

from llamafactory_dids.artifacts.domain_map import load_map, save_map
from scripts.experiments import maps
from tests.integration.support import arguments, same_domains, train

pytestmark = pytest.mark.integration


def test_a_run_trains_with_a_spoilt_map_and_starts_by_importance_on_it(finished, world, tmp_path):
    spoilt = maps.swapped_map(load_map(finished.dids), seed=3)
    save_map(spoilt, tmp_path / "swapped")
    given = same_domains(finished) | {"dids_domains": str(tmp_path / "swapped")}
    ran = train(arguments(world, tmp_path, **given, dids_init="importance", max_steps=4))
    rows, lookup = ran.trainer.train_dataset, spoilt.lookup()
    pairs = zip(rows["dids_source"], rows["dids_key"], strict=True)
    assert rows["dids_domain"] == [lookup[pair] for pair in pairs]
    assert load_map(ran.dids).inputs["swapped"] == {"share": 0.5, "seed": 3}
    assert np.ptp(list(ran.lines[0]["probabilities"].values())) > 0, "by the tasks' samples, not alike"
