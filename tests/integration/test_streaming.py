"""`streaming: true`: domains drawn from streams, the same samples whatever workers, ranks and interruptions."""

import functools

import pytest

from llamafactory_dids.artifacts.domain_map import load_map, save_map
from llamafactory_dids.training.collator import DOMAIN_COLUMN
from tests.helpers import rows_of_map
from tests.integration.support import SOURCES, arguments, assert_same_weights, module_of, same_domains, timeless, train
from tests.integration.traced import Break, traced

pytestmark = pytest.mark.integration

STREAM = {"streaming": True, "dids_domains": "source", "buffer_size": 60, "save_strategy": "steps", "save_steps": 7}


@pytest.fixture(scope="module")
def whole_runs(world, tmp_path_factory):
    """Runs that were not broken off, by their number of loader workers, made once."""

    @functools.cache
    def whole(workers):
        folder = tmp_path_factory.mktemp("whole")
        return traced(arguments(world, folder, **STREAM, dataloader_num_workers=workers))

    return whole


def tokens_of(values):
    """The token rows of each domain of a run that does not stream."""
    module, _ = module_of(values)
    rows, names = module["train_dataset"], module["mixing"].domain_names
    found = {name: [] for name in names}
    for ids, domain in zip(rows["input_ids"], rows[DOMAIN_COLUMN], strict=True):
        found[names[domain]].append(ids)
    return found


def test_mixture_is_updated_and_logged(whole_runs):
    whole = whole_runs(0)
    assert [line["step"] for line in whole.lines] == [0, 4, 8, 12, 16, 20, 24]
    assert list(whole.lines[0]["probabilities"]) == list(SOURCES)
    mixtures = {tuple(line["probabilities"].values()) for line in whole.lines}
    assert len(mixtures) > 2, "a window may tell nothing but noise, not all but one"
    assert all(set(line["impact"]) == set(SOURCES) for line in whole.lines[1:-1])


@pytest.mark.parametrize("shuffled", [True, False])
def test_a_pass_over_a_stream_is_the_rows_that_would_be_loaded(shuffled, world, tmp_path):
    values = arguments(world, tmp_path, **STREAM, disable_shuffling=not shuffled)
    expected = tokens_of(values | {"streaming": False})
    rows = module_of(values)[0]["train_dataset"]
    for domain, (name, size) in enumerate(SOURCES.items()):
        found = [rows[domain, number]["input_ids"] for number in range(size)]
        assert sorted(found) == sorted(expected[name])
        assert (found == expected[name]) == (not shuffled)


def test_domains_of_a_map_are_streamed_by_key(finished, world, tmp_path):
    values = arguments(world, tmp_path, **STREAM | same_domains(finished))
    expected = tokens_of({k: v for k, v in values.items() if k not in ("streaming", "buffer_size")})
    module, _ = module_of({k: v for k, v in values.items() if v is not None})
    rows, plan = module["train_dataset"], module["mixing"]
    assert list(plan.domain_names) == list(expected)
    for domain, name in enumerate(plan.domain_names):
        found = [rows[domain, number]["input_ids"] for number in range(len(expected[name]))]
        assert sorted(found) == sorted(expected[name])


def test_a_sample_that_the_map_lacks_is_refused_when_it_comes(finished, world, tmp_path):
    found = load_map(finished.dids)
    save_map(rows_of_map(found, slice(-3)), tmp_path / "less")
    values = arguments(world, tmp_path, **STREAM | same_domains(finished) | {"dids_domains": str(tmp_path / "less")})
    with pytest.raises(ValueError, match="dids_domains: the map lacks a training sample .* of 'noise'"):
        train({k: v for k, v in values.items() if v is not None})


def test_a_map_without_one_of_the_data_sets_is_refused(finished, world, tmp_path):
    save_map(load_map(finished.dids).of_sources(SOURCES.keys() - {"noise"}), tmp_path / "less")
    values = arguments(world, tmp_path, **STREAM | same_domains(finished) | {"dids_domains": str(tmp_path / "less")})
    with pytest.raises(ValueError, match="dids_domains: got .*, allowed: a map that has samples of 'noise'"):
        train({k: v for k, v in values.items() if v is not None})


@pytest.mark.parametrize(("workers", "killed_at", "resumed_from"), [(0, 23, 21), (2, 16, 14)])
def test_killed_run_ends_as_one_that_was_not_killed(whole_runs, workers, killed_at, resumed_from, world, tmp_path):
    whole = whole_runs(workers)
    values = arguments(world, tmp_path, **STREAM, dataloader_num_workers=workers)
    broken = traced(values, Break(killed_at))
    resumed = traced(
        values | {"resume_from_checkpoint": str(tmp_path / "out" / f"checkpoint-{resumed_from}"), "save_steps": 30}
    )
    assert broken.seen[:resumed_from] + resumed.seen == whole.seen
    assert timeless(resumed) == timeless(whole)
    assert_same_weights(resumed.weights, whole.weights)


def test_workers_give_the_samples_that_none_gives_until_the_mixture_changes(whole_runs):
    assert whole_runs(2).seen[:4] == whole_runs(0).seen[:4]


def test_evaluation_is_whole_and_not_streamed(world, tmp_path):
    changes = {"eval_dataset": "task_sums", "eval_strategy": "steps", "eval_steps": 4, "max_steps": 4}
    ran = train(arguments(world, tmp_path, **STREAM | changes))
    assert len(ran.trainer.eval_dataset) == 20
    assert any("eval_loss" in entry for entry in ran.trainer.state.log_history)


@pytest.mark.parametrize(
    "gradients", [{"dids_domain_gradients": "fresh"}, {"mix_strategy": "uniform", "dids_tasks": None}]
)
def test_other_ways_of_measuring_train(gradients, world, tmp_path):
    ran = train(arguments(world, tmp_path, **STREAM | gradients | {"max_steps": 8}))
    assert ran.trainer.state.global_step == 8
