"""The gradient store against autograd, a sort and an explicit projection matrix; killed and continued."""

import math

import numpy as np
import pytest
import torch

from llamafactory_dids.artifacts.gradient_store import open_store
from llamafactory_dids.errors import DidsError
from llamafactory_dids.stages.filling import fill_store
from llamafactory_dids.stages.gradients import GradientFeatures, SampleProjector, Samples
from llamafactory_dids.stages.layers import track_layers
from tests.helpers import NEXT_TOKENS, collate, samples, tiny_model, unlabelled
from tests.reference.gradients import keep_largest_by_sorting, sample_gradient
from tests.reference.projection import explicit_matrix

K, SEED, RATIO, PART_ROWS = 24, 7, 0.1, 4
ROWS = [*samples(9), unlabelled(), *samples(4, seed=1)]


@pytest.fixture(scope="module")
def model():
    return tiny_model(num_blocks=3)


def make_projector(model) -> SampleProjector:
    return SampleProjector(model, track_layers(model, 0.3), NEXT_TOKENS, RATIO, K, SEED)


def fill(folder, projector, rows=ROWS):
    store = open_store(folder, {"made": "by a test"}, len(rows), K, PART_ROWS)
    tokenised = Samples(rows, [len(row["input_ids"]) for row in rows], collate)
    fill_store(store, GradientFeatures(tokenised, projector))
    return store


def read(store) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    parts = list(store.read_parts())
    return tuple(np.concatenate([part[i] for part in parts]) for i in (1, 2, 3))


@pytest.fixture(scope="module")
def whole(model, tmp_path_factory):
    """A store that was made at once."""
    return fill(tmp_path_factory.mktemp("whole"), make_projector(model))


def contents(store) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in store.folder.iterdir()}


def test_each_row_is_the_samples_largest_gradient_entries_projected(model, whole):
    tracked = track_layers(model, 0.3)
    matrix_PK = explicit_matrix(tracked.num_entries(), K, SEED)
    unit_NK, norm_N, written_N = read(whole)
    for n, row in enumerate(ROWS):
        if n == 9:
            continue
        gradient_P = sample_gradient(model, tracked.layers, row).double().numpy()
        expected_K = keep_largest_by_sorting(gradient_P, math.ceil(RATIO * len(gradient_P))) @ matrix_PK
        length = np.linalg.norm(expected_K)
        assert written_N[n]
        assert norm_N[n] == pytest.approx(length, rel=1e-4)
        # float16 has 11 bits, and no entry of a unit row is above one
        np.testing.assert_allclose(unit_NK[n], expected_K / length, atol=1e-3)


def test_a_sample_without_labels_is_not_written(whole):
    unit_NK, norm_N, written_N = read(whole)
    assert np.flatnonzero(~written_N).tolist() == [9]
    assert norm_N[9] == 0 and not unit_NK[9].any()


class Broken(SampleProjector):
    """Fails at a given batch, in the way given."""

    def fail_at(self, batch: int, error: BaseException) -> "Broken":
        self.left, self.error = batch, error
        return self

    def project(self, batch):
        if self.left == 0:
            raise self.error
        self.left -= 1
        return super().project(batch)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("out of memory")], ids=["killed", "failed"])
@pytest.mark.parametrize("batches", [0, 2])
def test_a_store_killed_half_way_and_continued_is_the_one_made_at_once(model, whole, tmp_path, batches, error):
    broken = Broken(model, track_layers(model, 0.3), NEXT_TOKENS, RATIO, K, SEED).fail_at(batches, error)
    with pytest.raises(type(error)):
        fill(tmp_path, broken)
    store = open_store(tmp_path, {"made": "by a test"}, len(ROWS), K, PART_ROWS)
    assert len(store.missing_parts()) == store.num_parts - batches  # a part of four samples is one batch
    assert contents(fill(tmp_path, make_projector(model))) == contents(whole)


@pytest.mark.parametrize("factor", [torch.inf, torch.nan, 1e30])
def test_a_gradient_without_a_finite_length_is_not_written_and_its_neighbours_are(model, whole, tmp_path, factor):
    projector = make_projector(model)
    run, bad = projector.engine.run, ROWS[2]["input_ids"]

    def overflow(batch):
        found = run(batch)
        for n, ids in enumerate(batch["input_ids"].tolist()):
            if ids[: len(bad)] == bad:
                found.pairs[0][1][n] *= factor
        return found

    projector.engine.run = overflow
    unit_NK, norm_N, written_N = read(fill(tmp_path, projector))
    assert np.flatnonzero(~written_N).tolist() == [2, 9]
    assert norm_N[2] == 0 and not unit_NK[2].any()
    others = [n for n in range(len(ROWS)) if n != 2]
    assert np.array_equal(unit_NK[others], read(whole)[0][others])


class Small(SampleProjector):
    """Has memory for so many samples at a time."""

    def holding(self, num_samples: int) -> "Small":
        self.num_samples, self.sizes = num_samples, []
        return self

    def project(self, batch):
        self.sizes.append(len(batch["input_ids"]))
        if self.sizes[-1] > self.num_samples:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().project(batch)


@pytest.mark.parametrize("holds", [1, 2, 3])
def test_a_batch_that_memory_is_too_small_for_is_halved_and_so_are_those_after_it(model, whole, tmp_path, holds):
    projector = Small(model, track_layers(model, 0.3), NEXT_TOKENS, RATIO, K, SEED).holding(holds)
    store = fill(tmp_path, projector)
    np.testing.assert_allclose(read(store)[0], read(whole)[0], atol=1e-3)
    failed = [size for size in projector.sizes if size > holds]
    assert failed == ([4, 2] if holds == 1 else [4]), "it is tried once"


def test_a_sample_that_memory_is_too_small_for_is_refused_with_what_would_help(model, tmp_path):
    projector = Small(model, track_layers(model, 0.3), NEXT_TOKENS, RATIO, K, SEED).holding(0)
    with pytest.raises(DidsError, match="dids_proxy_model: one sample .* does not fit .*allowed: a small"):
        fill(tmp_path, projector)


@pytest.mark.parametrize("at_once", [1, 3, 99])
def test_rows_are_the_same_however_many_gradients_are_whole_at_a_time(model, whole, tmp_path, monkeypatch, at_once):
    monkeypatch.setattr(SampleProjector, "_samples_at_once", lambda self: at_once)
    np.testing.assert_allclose(read(fill(tmp_path, make_projector(model)))[0], read(whole)[0], atol=1e-3)


def test_rows_are_the_same_in_any_order_and_in_batches_of_any_size(model, whole, tmp_path):
    order = torch.randperm(len(ROWS), generator=torch.Generator().manual_seed(3)).tolist()
    rows = [ROWS[i] for i in order]
    store = open_store(tmp_path, {}, len(rows), K, part_rows=7)
    features = GradientFeatures(Samples(rows, [len(row["input_ids"]) for row in rows], collate), make_projector(model))
    features.passes.max_samples = 3
    fill_store(store, features)
    there_NK, here_NK = read(whole)[0][order].astype(np.float64), read(store)[0].astype(np.float64)
    cosines_N = (there_NK * here_NK).sum(1) / np.maximum(np.linalg.norm(there_NK, axis=1), 1e-9) ** 2
    assert (cosines_N[[i != 9 for i in order]] > 0.9999).all(), cosines_N
