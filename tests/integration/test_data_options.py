"""Options of the host's data path under a mixture: each is honoured, or refused before anything is loaded."""

import pickle
import shutil

import pytest

from llamafactory_dids.artifacts.domain_map import load_map, save_map
from tests.helpers import rows_of_map
from tests.integration.support import (
    SOURCES,
    arguments,
    drawn_rows,
    module_of,
    refusal,
    same_domains,
    timeless,
    train,
    tuner,
    without_mixture,
)
from tests.integration.test_data_path import DOMAIN
from tests.integration.traced import traced

pytestmark = pytest.mark.integration

# --- order and workers -------------------------------------------------------------------------------------


def test_disable_shuffling_keeps_each_domains_samples_in_the_order_of_the_file(world, tmp_path):
    ran = train(arguments(world, tmp_path, dids_domains="source", disable_shuffling=True))
    rows, draws = ran.trainer.train_dataset, drawn_rows(ran)
    domains = rows[DOMAIN]
    for domain, size in enumerate(SOURCES.values()):
        first = domains.index(domain)
        own = [i for i in draws if domains[i] == domain]
        assert own == [first + n % size for n in range(len(own))]
    assert len({tuple(line["probabilities"].values()) for line in ran.lines}) > 1


def test_four_workers_hand_out_the_samples_that_none_does_until_the_mixture_changes(world, tmp_path):
    changes = {"dids_domains": "source", "max_steps": 8}
    alone = traced(arguments(world, tmp_path / "0", **changes))
    workers = traced(arguments(world, tmp_path / "4", **changes, dataloader_num_workers=4))
    # batches that the workers had asked for keep the probabilities that they were drawn with, as the log says
    assert [line["applies_from_sample"] for line in alone.lines] == [0, 40, 72]
    assert [line["applies_from_sample"] for line in workers.lines][0] == 0
    assert all(line["applies_from_sample"] > 40 for line in workers.lines[1:])
    assert workers.seen[:5] == alone.seen[:5]
    assert timeless(workers)[0] == timeless(alone)[0]


# --- evaluation --------------------------------------------------------------------------------------------


def test_val_size_takes_the_rows_that_the_host_would_and_leaves_the_rest_to_the_domains(world, tmp_path):
    values = arguments(world, tmp_path, dids_domains="source", val_size=27)
    module, host = module_of(values)[0], module_of(without_mixture(values))[0]
    columns = host["eval_dataset"].column_names
    assert [{k: row[k] for k in columns} for row in module["eval_dataset"]] == list(host["eval_dataset"])
    assert len(module["train_dataset"]) == sum(SOURCES.values()) - 27
    assert len(module["mixing"].domains_N) == sum(SOURCES.values()) - 27
    ran = train(values | {"eval_strategy": "steps", "eval_steps": 4, "max_steps": 8})
    assert {entry["step"] for entry in ran.trainer.state.log_history if "eval_loss" in entry} == {4, 8}


# --- tokenized_path ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(world, tmp_path_factory):
    """Runs that saved their tokenised data, unpacked and packed, with their arguments. The files of what is not packed
    are gone; the domains of what is packed are found by its samples.
    """
    made = {}
    for packing in (False, True):
        folder = tmp_path_factory.mktemp("saved")
        data = shutil.copytree(world.data, folder / "data")
        changes = {"packing": packing, "tokenized_path": str(folder / "tokens"), "dataset_dir": str(data)}
        values = arguments(world, folder, max_steps=4, **changes)
        made[packing] = train(values), values
        for name in () if packing else SOURCES:
            (data / f"{name}.json").unlink()
    return made


@pytest.mark.parametrize("packing", [False, True])
def test_saved_data_gives_the_run_that_made_it(saved, packing, tmp_path):
    first, values = saved[packing]
    again = train(values | {"output_dir": str(tmp_path / "out")})
    assert again.probabilities == first.probabilities
    assert list(again.trainer.train_dataset) == list(first.trainer.train_dataset)


def test_saved_data_finds_its_domains_in_another_map(saved, world, tmp_path):
    _, values = saved[False]
    ran = train(values | {"output_dir": str(tmp_path / "out"), "dids_domains": "source"})
    assert list(ran.lines[0]["probabilities"]) == list(SOURCES)


def test_saved_data_that_a_map_lacks_is_refused(saved, world, tmp_path, no_model):
    first, values = saved[False]
    found = load_map(first.dids)
    save_map(rows_of_map(found, slice(9, None)), tmp_path / "less")
    changes = same_domains(first) | {"dids_domains": str(tmp_path / "less"), "output_dir": str(tmp_path / "out")}
    message = refusal({k: v for k, v in (values | changes).items() if v is not None})
    assert "dids_domains: the map lacks 9 of 270 training samples" in message


def test_packed_data_of_another_map_is_refused_with_both(saved, tmp_path, no_model):
    first, values = saved[True]
    message = refusal(values | {"output_dir": str(tmp_path / "out"), "dids_domains": "source"})
    assert f"was saved with domain_map = {load_map(first.dids).digest()!r}, this run has '" in message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cutoff_len": 32}, "cutoff_len = 64, this run has 32"),
        ({"packing": True, "cutoff_len": 65}, "packing = False, this run has True"),
        ({"dataset": "sums,pairs"}, "dataset = ['sums', 'pairs', 'noise'], this run has ['sums', 'pairs']"),
        ({"stage": "pt", "packing": False}, "stage = 'sft', this run has 'pt'"),
    ],
    ids=["cutoff", "packing", "dataset", "stage"],
)
def test_saved_data_that_was_made_otherwise_is_refused_with_both_values(saved, changes, words, tmp_path, no_model):
    _, values = saved[False]
    message = refusal(values | {"output_dir": str(tmp_path / "out")} | changes)
    assert words in message


def test_saved_data_of_another_tokenizer_is_refused(saved, world, tmp_path, no_model):
    _, values = saved[False]
    changes = {"output_dir": str(tmp_path / "out"), "dids_domains": "source", "model_name_or_path": str(world.proxy)}
    assert "was saved with vocabulary = '" in refusal(values | changes)


# --- hashes ------------------------------------------------------------------------------------------------


def test_data_arguments_are_named_and_not_described_where_they_are_hashed_or_sent(monkeypatch):
    """`datasets` hashes them for every `map`, and its workers unpickle them, who may have parsed none."""
    tuner()
    from llamafactory.hparams import parser

    from llamafactory_dids.integration.arguments import keys

    (kind,) = (host for host in parser._TRAIN_ARGS if host.__name__ == "DataArguments")
    sent = pickle.dumps(kind(dataset="sums", template="default", dids_eta=3.0))
    assert len(sent) < 10_000
    monkeypatch.delattr(keys, kind.__qualname__)
    assert pickle.loads(sent) == kind(dataset="sums", template="default", dids_eta=3.0)
