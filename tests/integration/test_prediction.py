"""`predict_with_generate` is of the host's evaluation: tasks are read as for training, with it as without.

The host refuses the key where the packages of its scores are not installed; here it is let believe that they are.
"""

import json

import pytest

from tests.integration.support import arguments, train, tuner

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def generating(world, tmp_path_factory):
    """The finished run once more, in a cache of its own, which generates answers when it has trained."""
    tuner()
    from llamafactory.hparams import parser
    from llamafactory.train.sft import workflow

    generates = {"predict_with_generate": True, "eval_dataset": "task_sums", "per_device_eval_batch_size": 20}
    predicts = {"do_predict": True, "max_new_tokens": 2}
    with pytest.MonkeyPatch.context() as patched:  # the scores' packages count as installed, the scores are left out
        patched.setattr(parser, "check_version", lambda *_args, **_kwargs: None)
        patched.setattr(workflow, "ComputeSimilarity", lambda tokenizer: lambda _predictions: {})
        return train(arguments(world, tmp_path_factory.mktemp("generating"), **generates, **predicts))


@pytest.mark.parametrize("signal", ["probabilities", "task_loss", "impact"])
def test_tasks_are_measured_as_without_it(signal, generating, finished):
    assert [line.get(signal) for line in generating.lines] == [line.get(signal) for line in finished.lines]


def test_one_file_trains_with_a_mixture_and_then_predicts(generating):
    predictions = (generating.folder / "generated_predictions.jsonl").read_text().splitlines()
    assert len(predictions) == 20 and all("predict" in json.loads(line) for line in predictions)
