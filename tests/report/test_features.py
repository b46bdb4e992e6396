from dataclasses import replace

import numpy as np
import pytest

from llamafactory_dids.artifacts.domain_map import DomainMap, save_map
from llamafactory_dids.artifacts.files import fingerprint
from llamafactory_dids.artifacts.gradient_store import open_store
from llamafactory_dids.artifacts.samples import samples_digest
from llamafactory_dids.report.features import MAX_POINTS, principal_axes, project_features
from llamafactory_dids.report.pictures import FIGURES
from llamafactory_dids.report.run import load_run
from tests.helpers import rows_of_map
from tests.report.made_up import write_run

DIM = 16


def write_store(folder, num_samples: int, kind: str = "gradients", part_rows: int = 1000):
    """A run whose 3 domains lie apart, and the store in its cache; the rows (N, K) and the map."""
    run = folder / "dids"
    write_run(run, 3, 4, num_sources=3)
    rng = np.random.default_rng(0)
    domains_N = rng.integers(0, 3, num_samples)
    rows_NK = (np.eye(DIM)[domains_N] + rng.normal(0, 0.05, (num_samples, DIM))).astype(np.float16)
    names = load_run(run).record.domain_names
    keys = [f"key{i}" for i in range(num_samples)]
    sources = [names[d].split("/")[0] for d in domains_N]
    inputs = {"samples": samples_digest(sources, keys), "dids_seed": 0}
    store = open_store(folder / "cache" / kind / fingerprint(inputs), inputs, num_samples, DIM, part_rows)
    for part in range(store.num_parts):
        span = store.rows(part)
        written_R = np.array([i != 1 for i in span])  # sample 1 has no features
        store.write_part(part, rows_NK[span.start : span.stop], np.ones(len(span), np.float32), written_R)
    domain_map = DomainMap(names, keys, sources, domains_N, {}, {"dids_num_domains": 3, kind: inputs})
    save_map(domain_map, run)
    (run / "config.yaml").write_text(f"dids_cache_dir: {folder / 'cache'}\n")
    return run, rows_NK, domain_map, store


@pytest.mark.parametrize("kind", ["gradients", "embeddings"])
def test_each_samples_place_is_that_of_its_own_features(tmp_path, kind):
    run, rows_NK, domain_map, _ = write_store(tmp_path, 2500, kind)
    found = project_features(load_run(run))
    assert found.num_samples == 2500 and len(found.points_N2) == 2499
    kept = [i for i in range(2500) if i != 1]
    assert found.sources_N == [domain_map.sources_N[i].as_py() for i in kept]
    assert found.domains_N.tolist() == domain_map.domains_N[kept].tolist()
    centres = np.stack([found.points_N2[found.domains_N == d].mean(axis=0) for d in range(3)])
    nearest = np.linalg.norm(found.points_N2[:, None] - centres, axis=2).argmin(axis=1)
    assert (nearest == found.domains_N).all(), "domains that lie apart are apart in the picture"


def test_the_axes_are_the_principal_ones(tmp_path):
    rows_NK = np.random.default_rng(1).normal(size=(200, DIM)) * np.linspace(1, 3, DIM)
    points_N2, explained = principal_axes(rows_NK)
    centred = rows_NK - rows_NK.mean(axis=0)
    left, lengths, _ = np.linalg.svd(centred, full_matrices=False)
    assert np.abs(points_N2) == pytest.approx(np.abs(left[:, :2] * lengths[:2]))
    assert explained == pytest.approx(tuple(lengths[:2] ** 2 / (lengths**2).sum()))


def test_of_many_samples_a_seeded_choice_is_drawn(tmp_path):
    run, *_ = write_store(tmp_path, MAX_POINTS + 500)
    first, second = project_features(load_run(run)), project_features(load_run(run))
    assert len(first.points_N2) in (MAX_POINTS - 1, MAX_POINTS)
    assert np.array_equal(first.points_N2, second.points_N2)
    figure = FIGURES["clusters"](load_run(run))
    assert f"of {MAX_POINTS + 500:,}" in figure.axes[1].get_title()


def test_where_the_features_are_not_at_hand_there_is_no_map(tmp_path):
    run, _, domain_map, store = write_store(tmp_path, 1500)
    save_map(rows_of_map(domain_map, slice(-1)), run)
    assert project_features(load_run(run)) is None, "rows of a map that lost a sample are not the store's"
    save_map(replace(domain_map, inputs={"domains": "source"}), run)
    assert project_features(load_run(run)) is None
    save_map(domain_map, run)
    assert project_features(load_run(run)) is not None
    (store.folder / "part-00001.npy").unlink()
    assert project_features(load_run(run)) is None, "an unfinished store"
    assert len(FIGURES["clusters"](load_run(run)).axes) == 1
