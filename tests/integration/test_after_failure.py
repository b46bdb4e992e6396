"""A run after one that failed, or in a cache that lost a part, is as if that had not been."""

import pytest

from llamafactory_dids.errors import DidsError
from tests.integration.support import arguments, module_of, refusal, train, tuner

pytestmark = pytest.mark.integration


def test_good_run_after_failed_ones_is_as_if_they_had_not_been(finished, world, tmp_path, monkeypatch):
    tuner()
    from llamafactory_dids.integration.domains import features, making

    def fail(*_args, **_kwargs):
        raise DidsError("no space left")

    for module, name in ((features, "fill_store"), (making, "_cluster")):
        with monkeypatch.context() as patched:
            patched.setattr(module, name, fail)
            assert refusal(arguments(world, tmp_path)) == "no space left"
    assert train(arguments(world, tmp_path)).probabilities == finished.probabilities


def test_part_that_was_deleted_is_made_anew_as_it_was(world, tmp_path):
    values = arguments(world, tmp_path, dids_init="uniform")  # no store of the tasks' gradients
    module_of(values)
    (part,) = tmp_path.glob("cache/gradients/*/part-00000.npy")
    (domains,) = tmp_path.glob("cache/domains/*/domains.json")
    whole = part.read_bytes()
    part.unlink()
    domains.unlink()
    module_of(values)
    assert part.read_bytes() == whole


def test_more_domains_than_samples_are_refused_before_they_are_tokenised(world, monkeypatch, tmp_path):
    from llamafactory.data import loader

    host = loader._get_preprocessed_dataset

    def tasks_alone(*args, is_eval, **kwargs):
        assert is_eval, "the training set is tokenised"
        return host(*args, is_eval=is_eval, **kwargs)

    monkeypatch.setattr(loader, "_get_preprocessed_dataset", tasks_alone)
    message = refusal(arguments(world, tmp_path, dids_num_domains=271))
    assert message == "dids_num_domains: got 271, allowed: at most the number of training samples, 270"
