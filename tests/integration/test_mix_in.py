"""Irrelevant data is mixed in to its share of all samples, and is data like the rest from then on."""

import json
from collections import Counter

import pytest
import yaml

from tests.integration.support import SOURCES, TASKS, arguments, module_of, our_log, refusal, write_dataset

pytestmark = pytest.mark.integration

KEY, SOURCE = "dids_key", "dids_source"


def mixed(world, folder, **changes):
    """Arguments with 210 samples of two datasets, and the 60 of `noise` to mix in."""
    base = {"dataset": "sums,pairs", "dids_domains": "source", "dids_mix_in": "noise", "dids_mix_in_share": 0.16}
    return arguments(world, folder, **base | changes)


def rows_of(values):
    return module_of(values)[0]["train_dataset"]


def test_share_is_that_of_all_training_samples(world, tmp_path):
    with our_log() as messages:
        rows = rows_of(mixed(world, tmp_path))
    assert Counter(rows[SOURCE]) == {"sums": 120, "pairs": 90, "noise": 40}  # 40 of 250 are 0.16
    assert "dids_mix_in: 40 samples beside 210 others (noise 40 of 60)" in messages


def test_share_is_of_what_max_samples_leaves(world, tmp_path):
    rows = rows_of(mixed(world, tmp_path, max_samples=50, dids_mix_in_share=0.2))
    assert Counter(rows[SOURCE]) == {"sums": 50, "pairs": 50, "noise": 25}


def test_several_datasets_share_in_proportion_to_their_size(world, tmp_path):
    rows = rows_of(mixed(world, tmp_path, dataset="sums", dids_mix_in="pairs,noise", dids_mix_in_share=0.2))
    assert Counter(rows[SOURCE]) == {"sums": 120, "pairs": 18, "noise": 12}


def test_samples_are_chosen_by_content_and_seed_whatever_their_order(world, tmp_path):
    for name in (*SOURCES, *TASKS):
        rows = json.loads((world.data / f"{name}.json").read_text())
        write_dataset(tmp_path / "data", name, rows[::-1])
    chosen = [
        {key for key, source in zip(rows[KEY], rows[SOURCE], strict=True) if source == "noise"}
        for rows in (
            rows_of(mixed(world, tmp_path)),
            rows_of(mixed(world, tmp_path, dataset_dir=str(tmp_path / "data"))),
            rows_of(mixed(world, tmp_path, dids_seed=4)),
        )
    ]
    assert chosen[0] == chosen[1] != chosen[2]


@pytest.mark.parametrize("packing", [False, True])
def test_domains_of_what_is_mixed_in_are_clustered_and_drawn_like_others(packing, world, tmp_path):
    changes = {"dids_domains": "cluster", "packing": packing, "mix_strategy": "proportional", "dids_tasks": None}
    plan = module_of(mixed(world, tmp_path, **changes))[0]["mixing"]
    assert len(plan.domain_names) == 6 and {name.split("/")[0] for name in plan.domain_names} == {*SOURCES}
    if not packing:  # where a row is a sample
        p = dict(zip(plan.domain_names, plan.mixer.init().probabilities_D, strict=True))
        assert sum(p[name] for name in p if name.startswith("noise")) == pytest.approx(0.16)


def test_repeated_run_mixes_in_the_same(world, tmp_path):
    first = rows_of(mixed(world, tmp_path))
    config = yaml.safe_load((tmp_path / "out" / "dids" / "config.yaml").read_text())
    assert rows_of(config | {"output_dir": str(tmp_path / "again")})[KEY] == first[KEY]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dids_mix_in_share": 0.25}, ["dids_mix_in_share: got 0.25", "at most 0.2222", "60 samples", "70 would be"]),
        ({"dids_mix_in_share": 0.001}, ["dids_mix_in_share: got 0.001", "at least 0.0048"]),
        ({"dids_mix_in_share": None}, ["dids_mix_in_share: got None", "dids_mix_in is given"]),
        ({"dids_mix_in": None}, ["dids_mix_in: got None", "dids_mix_in_share is given"]),
        ({"dids_mix_in": "noise,sums"}, ["dids_mix_in: got 'sums'", "not in dataset"]),
        ({"dids_mix_in": "noise,noise"}, ["dids_mix_in: got 'noise'", "each name once"]),
        ({"dids_mix_in": "lost"}, ["dids_mix_in: got 'lost'", "dataset_info.json"]),
        ({"dids_mix_in_share": 1}, ["dids_mix_in_share: got 1", "a share in (0, 1)"]),
    ],
)
def test_impossible_mix_in_is_refused_before_a_model_is_loaded(changes, words, world, no_model, tmp_path):
    message = refusal(mixed(world, tmp_path, **changes))
    assert [word for word in words if word not in message] == [], message


def test_largest_share_that_is_told_is_possible(world, tmp_path):
    rows = rows_of(mixed(world, tmp_path, dids_mix_in_share=0.2222))
    assert Counter(rows[SOURCE])["noise"] == 60
