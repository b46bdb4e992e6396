"""`dids_swap_domains`: the run trains with spoilt domains, the map that they were made of stays as it was."""

import numpy as np
import pytest

from llamafactory_dids.artifacts.domain_map import load_map
from tests.integration.support import arguments, module_of, our_log, refusal, same_domains, train

pytestmark = pytest.mark.integration

DOMAIN, KEY, SOURCE = "dids_domain", "dids_key", "dids_source"


def only(paths):
    (path,) = paths
    return path


@pytest.fixture(scope="module")
def swapped(world, tmp_path_factory):
    """A finished run over clusters half of which were swapped."""
    values = arguments(world, tmp_path_factory.mktemp("swapped"), dids_swap_domains=0.5, max_steps=4)
    with our_log() as messages:
        return train(values), values, messages


def test_rows_and_saved_map_have_the_swapped_domains_in_their_sizes(swapped):
    ran, values, messages = swapped
    cached = load_map(only((ran.folder.parent / "cache" / "domains").iterdir()))
    saved = load_map(ran.dids)
    moved = saved.domains_N != cached.domains_N
    assert saved.sizes().tolist() == cached.sizes().tolist()
    for domain, size in enumerate(cached.sizes()):
        assert abs(int(moved[cached.domains_N == domain].sum()) - size / 2) <= 0.5
    rows, lookup = ran.trainer.train_dataset, saved.lookup()
    assert rows[DOMAIN] == [lookup[pair] for pair in zip(rows[SOURCE], rows[KEY], strict=True)]
    assert f"dids_swap_domains: {int(moved.sum())} of 270 samples changed places (0.5 asked for)" in messages


def test_cached_map_stays_as_it_was_found(swapped, finished):
    ran = swapped[0]
    cached = load_map(only((ran.folder.parent / "cache" / "domains").iterdir()))
    assert cached.lookup() == load_map(finished.dids).lookup()
    assert "swapped" not in cached.inputs and any(cached.typical_texts.values())


def test_saved_map_says_that_it_was_swapped_and_shows_no_typical_texts(swapped):
    saved = load_map(swapped[0].dids)
    assert saved.inputs["swapped"] == {"share": 0.5, "seed": 3} and not any(saved.typical_texts.values())


def test_given_map_is_swapped_in_the_same_way(swapped, finished, world, tmp_path):
    values = arguments(world, tmp_path, dids_swap_domains=0.5, **same_domains(finished))
    plan = module_of(values)[0]["mixing"]
    assert plan.domain_map.lookup() == load_map(swapped[0].dids).lookup()


def test_map_of_a_swapped_run_can_be_trained_with_but_not_swapped_again(swapped, world, no_model, tmp_path):
    given = arguments(world, tmp_path, **same_domains(swapped[0]))
    assert module_of(given)[0]["mixing"].domain_map.lookup() == load_map(swapped[0].dids).lookup()
    message = refusal(given | {"dids_swap_domains": 0.5})
    assert message.startswith("dids_swap_domains: got 0.5, allowed: 0 with a map whose samples were swapped before")


def test_only_training_samples_of_a_larger_map_change_places(finished, world, tmp_path):
    changes = {"dataset": "sums,pairs", "dids_swap_domains": 0.5, **same_domains(finished)}
    plan = module_of(arguments(world, tmp_path, **changes))[0]["mixing"]
    assert set(plan.domain_map.sources_N.to_pylist()) == {"sums", "pairs"}
    before = load_map(finished.dids)
    sizes = {n: s for n, s in zip(before.names, before.sizes(), strict=True) if not n.startswith("noise")}
    assert dict(zip(plan.domain_names, np.bincount(plan.domains_N), strict=True)) == sizes


@pytest.mark.parametrize("packing", [False, True])
def test_sources_are_swapped_too(packing, world, tmp_path):
    values = arguments(world, tmp_path, dids_domains="source", dids_swap_domains=0.5, packing=packing)
    plan = module_of(values)[0]["mixing"]
    domains = {entry["name"]: entry for entry in plan.domain_map.describe()}
    assert {name: entry["size"] for name, entry in domains.items()} == {"sums": 120, "pairs": 90, "noise": 60}
    assert {name: entry["sources"][name] for name, entry in domains.items()} == {"sums": 60, "pairs": 45, "noise": 30}


def test_single_domain_is_refused(world, no_model, tmp_path):
    message = refusal(arguments(world, tmp_path, dataset="sums", dids_domains="source", dids_swap_domains=0.5))
    assert message.startswith("dids_swap_domains: got 0.5, allowed: 0 with one domain")
