"""`predict_with_generate` is of the host's evaluation: tasks are read as for training, with it as without.

The host refuses the key where the packages of its scores are not installed; here it is let believe that they are.
"""

import json

import pytest

from tests.integration.support import SOURCES, arguments, train, tuner

pytestmark = pytest.mark.integration

GENERATES = {"predict_with_generate": True, "eval_dataset": "task_sums", "per_device_eval_batch_size": 20}
WAYS = {
    "clustered": {},
    "by_source": {"dids_domains": "source", "dids_num_domains": None},
    "importance": {"mix_strategy": "importance"},
    "dga_by_source": {"mix_strategy": "dga", "dids_domains": "source", "dids_num_domains": None},
}
SIGNALS = ("probabilities", "task_loss", "impact")


@pytest.fixture(autouse=True)
def scored(monkeypatch):
    """The host takes the packages for its scores as installed, and the scores are left out."""
    tuner()
    from llamafactory.hparams import parser
    from llamafactory.train.sft import workflow

    monkeypatch.setattr(parser, "check_version", lambda *_args, **_kwargs: None)
    monkeypatch.setattr(workflow, "ComputeSimilarity", lambda tokenizer: lambda _predictions: {})


@pytest.mark.parametrize("way", WAYS)
def test_tasks_are_measured_as_without_it(way, world, tmp_path):
    changes = WAYS[way] | {"max_steps": 8}
    plain = train(arguments(world, tmp_path / "plain", **changes))
    generating = train(arguments(world, tmp_path / "generating", **changes, **GENERATES))
    assert len(plain.lines) == 3
    for line, other in zip(plain.lines, generating.lines, strict=True):
        assert {key: line.get(key) for key in SIGNALS} == {key: other.get(key) for key in SIGNALS}


def test_one_file_trains_with_a_mixture_and_then_predicts(world, tmp_path):
    changes = {"do_predict": True, "max_new_tokens": 2, "max_steps": 8}
    ran = train(arguments(world, tmp_path, dids_domains="source", **GENERATES, **changes))
    assert set(ran.probabilities[-1]) == set(SOURCES)
    predictions = (ran.folder / "generated_predictions.jsonl").read_text().splitlines()
    assert len(predictions) == 20 and all("predict" in json.loads(line) for line in predictions)
