"""One sample's way from its JSON line to its row: key, source and domain come along, tokens are the host's."""

import re

import pytest

from llamafactory_dids.training.collator import DOMAIN_COLUMN as DOMAIN
from llamafactory_dids.training.collator import KEY_COLUMN as KEY
from llamafactory_dids.training.collator import SOURCE_COLUMN as SOURCE
from tests.integration.support import SOURCES, TASKS, arguments, examples, module_of, same_domains, without_mixture

pytestmark = pytest.mark.integration


UNANSWERED = {"instruction": "Case 99999: nothing", "input": "", "output": None}


def rows_of(values):
    return module_of(values)[0]["train_dataset"]


def keys_by_case(values):
    """Key of each training sample, by the case number in its text."""
    module, tokenizer = module_of(values)
    rows = module["train_dataset"]
    return dict(zip((cases(tokenizer, ids)[0] for ids in rows["input_ids"]), rows[KEY], strict=True))


def cases(tokenizer, ids):
    """Numbers of the samples whose beginning is among these tokens."""
    return [int(number) for number in re.findall(r"Case (\d+) ?:", tokenizer.decode(ids, skip_special_tokens=True))]


@pytest.fixture(scope="module")
def keys(world, tmp_path_factory):
    """Key of each sample of the world."""
    return keys_by_case(arguments(world, tmp_path_factory.mktemp("keys"), dids_domains="source"))


def test_keys_are_distinct_for_distinct_samples(keys):
    assert len(keys) == len(set(keys.values())) == sum(SOURCES.values())


def test_keys_survive_reordering_and_max_samples(keys, own, tmp_path):
    own.rewrite("sums", lambda rows: rows[::-1])
    found = keys_by_case(arguments(own, tmp_path, dids_domains="source", max_samples=40))
    assert len(found) == 120
    assert found.items() <= keys.items()


def test_keys_survive_rows_that_the_host_drops(keys, own, tmp_path):
    own.rewrite("pairs", lambda rows: [UNANSWERED, *rows[:30], UNANSWERED, *rows[30:]])
    assert keys_by_case(arguments(own, tmp_path, dids_domains="source")) == keys


def test_keys_do_not_depend_on_the_tokenizer_or_the_stage(keys, world, tmp_path):
    changes = {"model_name_or_path": str(world.proxy), "stage": "pt", "packing": False}
    other = rows_of(arguments(world, tmp_path, dids_domains="source", **changes))
    assert sorted(other[KEY]) == sorted(keys.values())


def test_each_row_has_its_source_and_domain(finished):
    rows, plan = finished.trainer.train_dataset, finished.trainer.mixture.plan
    lookup = plan.domain_map.lookup()
    assert rows[DOMAIN] == [lookup[pair] for pair in zip(rows[SOURCE], rows[KEY], strict=True)]
    assert [plan.domain_names[d].split("/")[0] for d in rows[DOMAIN]] == rows[SOURCE]


@pytest.mark.parametrize("stage", ["sft", "pt"])
def test_rows_are_the_hosts_own_row_for_row(stage, world, tmp_path):
    values = arguments(world, tmp_path, dids_domains="source", stage=stage, packing=False)
    ours, host = rows_of(values), rows_of(without_mixture(values))
    assert len(ours) == sum(SOURCES.values())
    assert set(ours.column_names) - set(host.column_names) == {DOMAIN, KEY, SOURCE}
    assert [{k: row[k] for k in host.column_names} for row in ours] == list(host)


def test_evaluation_rows_are_the_hosts_own(world, tmp_path):
    changes = {"eval_dataset": "task_sums,task_pairs", "eval_on_each_dataset": True, "do_eval": True}
    values = arguments(world, tmp_path, dids_domains="source", **changes)
    ours, host = (module_of(given)[0]["eval_dataset"] for given in (values, without_mixture(values)))
    assert set(ours) == set(host) == set(TASKS)
    assert all(list(ours[name]) == list(host[name]) for name in host)


@pytest.mark.parametrize("stage", ["sft", "pt"])
@pytest.mark.parametrize("kind", ["source", "cluster"])
def test_packed_row_holds_one_domain_and_no_sample_is_lost(stage, kind, world, tmp_path):
    values = arguments(world, tmp_path, stage=stage, packing=True, dids_domains=kind)
    module, tokenizer = module_of(values)
    plan = module["mixing"]
    unpacked = module_of(values | {"packing": False, "output_dir": str(tmp_path / "other")})[0]["train_dataset"]
    lookup = plan.domain_map.lookup()
    tags = zip(unpacked[SOURCE], unpacked[KEY], strict=True)
    domains = [lookup[tag] for tag in tags]
    domain_of = dict(zip((cases(tokenizer, ids)[0] for ids in unpacked["input_ids"]), domains, strict=True))
    seen = set()
    for row in module["train_dataset"]:
        found = [case for case in cases(tokenizer, row["input_ids"]) if case in domain_of]
        assert {domain_of[case] for case in found} <= {row[DOMAIN]}
        seen |= set(found)
    # pt cuts a stream of tokens into blocks: a number on a cut, or in a rest that fills no block, is not found
    assert len(seen) >= (0.8 if stage == "pt" else 1) * len(unpacked)


def test_map_without_the_samples_is_refused_when_packing(finished, own, tmp_path):
    own.rewrite("noise", lambda rows: [*rows, *examples("noise", 3, seed=99)])
    with pytest.raises(ValueError, match=r"the map lacks 3 training samples \(the first: .* of 'noise'\)"):
        rows_of(arguments(own, tmp_path, packing=True, **same_domains(finished)))


def test_task_samples_are_the_same_whatever_their_order(own, world, tmp_path):
    own.rewrite("task_sums", lambda rows: rows[::-1])
    changes = {"dids_domains": "source", "dids_task_samples": 7}
    first, second = (
        module_of(arguments(one, tmp_path, **changes))[0]["mixing"].tasks["task_sums"] for one in (world, own)
    )
    assert len(first) == 7
    assert sorted(map(str, first["input_ids"])) == sorted(map(str, second["input_ids"]))
