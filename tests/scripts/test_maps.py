"""Spoilt domains: sizes stay, about the share moves, and what moves lands elsewhere."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamafactory_dids.artifacts.domain_map import DomainMap, load_map, save_map
from llamafactory_dids.errors import DidsError
from scripts.experiments import maps
from scripts.experiments.maps import swapped_labels, swapped_map

SIZES = st.lists(st.integers(1, 60), min_size=1, max_size=7)


def labels(sizes) -> np.ndarray:
    return np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))


@settings(max_examples=300, deadline=None)
@given(SIZES, st.floats(0, 1), st.integers(0, 5))
def test_sizes_stay_and_each_domain_gives_its_share_as_far_as_the_others_take_it(sizes, share, seed):
    old_N = labels(sizes)
    new_N = swapped_labels(old_N, len(sizes), share, seed)
    assert np.bincount(new_N, minlength=len(sizes)).tolist() == sizes
    due = np.rint(share * np.array(sizes)).astype(int)
    due[due.argmax()] = min(due.max(), due.sum() - due.max())
    assert [int((new_N[old_N == d] != d).sum()) for d in range(len(sizes))] == due.tolist()


def test_what_moves_is_spread_over_all_other_domains():
    old_N = labels([400] * 5)
    new_N = swapped_labels(old_N, 5, 0.5, 0)
    flows = np.array([[((old_N == a) & (new_N == b)).sum() for b in range(5)] for a in range(5)])
    assert (np.diag(flows) == 200).all()
    assert (np.abs(flows[~np.eye(5, dtype=bool)] - 50) < 25).all()


def test_the_seed_alone_decides():
    first, again, other = (swapped_labels(labels([50, 40, 30]), 3, 0.5, seed) for seed in (1, 1, 2))
    assert (first == again).all() and (first != other).any()


@pytest.fixture
def domain_map():
    old_N = labels([30, 20, 10])
    keys = [f"{i:032x}" for i in np.random.default_rng(1).permutation(60)]
    sources = ["ab"[i % 2] for i in range(60)]
    texts = {"x": ["typical"], "y": [], "z": []}
    return DomainMap(("x", "y", "z"), keys, sources, old_N, texts, {"dids_seed": 3})


def test_map_says_that_it_was_swapped_and_has_no_typical_texts(domain_map):
    swapped = swapped_map(domain_map, 7)
    assert swapped.typical_texts == {}
    assert swapped.inputs == {"dids_seed": 3, "swapped": {"share": 0.5, "seed": 7}}
    assert (swapped.keys_N, swapped.names) == (domain_map.keys_N, domain_map.names)
    assert (swapped.domains_N != domain_map.domains_N).sum() == 30


def test_swap_does_not_depend_on_the_order_of_the_rows(domain_map):
    order = np.random.default_rng(2).permutation(60)
    shuffled = dataclasses.replace(
        domain_map,
        keys_N=domain_map.keys_N.take(pa.array(order)),
        sources_N=domain_map.sources_N.take(pa.array(order)),
        domains_N=domain_map.domains_N[order],
    )
    assert swapped_map(shuffled, 7).lookup() == swapped_map(domain_map, 7).lookup()


def test_rows_of_equal_content_stay_together():
    domains_N = np.array([0, 0, 0, 0, 1, 1, 1])
    domain_map = DomainMap(("x", "y"), ["a", "a", "a", "b", "c", "d", "d"], ["s"] * 7, domains_N)
    swapped = swapped_map(domain_map, 0, 1.0)
    assert swapped.domains_N.tolist() == [1, 1, 1, 1, 0, 0, 0]


def test_single_domain_is_refused(domain_map):
    alone = dataclasses.replace(domain_map, domains_N=np.zeros(60, dtype=np.int64))
    with pytest.raises(DidsError, match="swapped: got 0.5, allowed: two domains at least"):
        swapped_map(alone, 0)


def test_the_command_leaves_a_spoilt_map_of_the_runs_domains_with_its_seed(domain_map, tmp_path, monkeypatch):
    """`cluster` is stood in for by what it would say; the map that it names is read."""
    save_map(domain_map, tmp_path / "found")
    (tmp_path / "run.yaml").write_text("seed: 7\nmix_strategy: dids\n")
    said = subprocess.CompletedProcess([], 0, stdout=json.dumps({"path": str(tmp_path / "found")}))
    monkeypatch.setattr(maps.subprocess, "run", lambda words, **_: said if "cluster" in words else None)
    for kind, expected in (("swapped", swapped_map(domain_map, 7)), ("shuffled", maps.shuffled_map(domain_map, 7))):
        out = tmp_path / kind
        monkeypatch.setattr(sys, "argv", ["maps.py", str(tmp_path / "run.yaml"), kind, "--output", str(out)])
        maps.main()
        assert load_map(out).lookup() == expected.lookup()
