"""Which keys the page offers, and what is said of an entry that is wrong."""

import pytest

from llamafactory_dids import mixers
from llamafactory_dids.config import FIELDS, make_config
from llamafactory_dids.integration.webui import fields
from tests.integration.support import arguments, make_world

pytestmark = pytest.mark.integration

DIDS = {**fields.FIRST, "mix_strategy": "dids", "dids_tasks": ["a", "b"]}
FIXED = ("uniform", "proportional", "static")  # known before the run, so no domain is looked for


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """The arguments of a run that is in order."""
    folder = tmp_path_factory.mktemp("fields")
    return arguments(make_world(folder / "world"), folder)


def test_page_as_it_is_opened_says_nothing():
    assert fields.chosen(fields.FIRST) == {}


def test_domains_are_clusters_unless_the_mixture_is_fixed_where_they_would_be_a_pass_for_nothing():
    for strategy in mixers.names():
        domains = fields.chosen({**DIDS, "mix_strategy": strategy}).get("dids_domains", FIELDS["dids_domains"].default)
        assert domains == ("source" if strategy in FIXED else "cluster"), strategy
    assert "dids_domains" not in fields.chosen({**DIDS, "mix_strategy": "uniform", "dids_domains": "cluster"})
    assert "dids_num_domains" not in fields.applicable({**DIDS, "mix_strategy": "uniform"})


def test_what_the_page_does_not_say_a_run_does_not_do():
    without = mixers.create("dids", 2, 1).options
    assert mixers.create("dids", 2, 1, trajectory=fields.FIRST["dids_trajectory"]).options == without


def test_strategy_and_tasks_alone_are_the_two_lines_of_a_yaml_file():
    assert fields.chosen(DIDS) == {"mix_strategy": "dids", "dids_tasks": "a,b"}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("dids_task_samples", 12),
        ("dids_num_domains", 6),
        ("dids_proxy_model", "small"),
        ("dids_update_samples", 32),
        ("dids_share_of", "tokens"),
        ("dids_preset", "paper"),
        ("dids_ema_beta", "0.3"),
        ("dids_trajectory", False),
        ("dids_impact", "gradient"),
        ("dids_cluster_features", "semantic"),
        ("dids_domains", "source"),
    ],
)
def test_each_choice_becomes_its_key(key, value):
    chosen = fields.chosen({**DIDS, key: value})
    assert chosen == {"mix_strategy": "dids", "dids_tasks": "a,b", key: value}
    assert getattr(make_config(chosen), key) == (0.3 if key == "dids_ema_beta" else value)


def test_what_is_hidden_is_not_said():
    values = {**DIDS, "mix_strategy": "uniform", "dids_domains": "source", "dids_num_domains": 6, "dids_ema_beta": "1"}
    assert fields.chosen(values) == {"mix_strategy": "uniform", "dids_domains": "source"}
    assert fields.chosen({**values, "mix_strategy": "interleave_under"}) == {"mix_strategy": "interleave_under"}


@pytest.mark.parametrize(
    ("strategy", "with_these", "without_these"),
    [
        ("concat", set(), set(fields.FIRST) - {"mix_strategy"}),
        ("dids", {"dids_tasks", "dids_update_samples", "dids_impact"}, {"dids_probs", "dids_proxy_share"}),
        ("uniform", {"dids_domains", "dids_share_of"},
         {"dids_num_domains", "dids_tasks", "dids_update_samples", "dids_probs"}),
        ("static", {"dids_probs", "dids_share_of"}, {"dids_tasks", "dids_update_samples", "dids_preset"}),
        ("importance", {"dids_tasks", "dids_task_samples"}, {"dids_update_samples", "dids_trajectory"}),
        ("odm", {"dids_update_samples"}, {"dids_tasks", "dids_impact"}),
        ("doremi", {"dids_tasks", "dids_update_samples", "dids_proxy_share", "dids_proxy_model"}, {"dids_probs"}),
    ],
)  # fmt: skip
def test_fields_shown_are_those_that_mean_something(strategy, with_these, without_these):
    shown = set(fields.applicable({**fields.FIRST, "mix_strategy": strategy}))
    assert with_these <= shown and not without_these & shown


def test_given_domains_need_no_proxy_but_for_a_strategy_that_looks_at_features():
    given = {**fields.FIRST, "dids_domains": "source"}
    for strategy, wanted in (("dids", False), ("uniform", False), ("importance", True)):
        shown = fields.applicable({**given, "mix_strategy": strategy})
        assert ("dids_proxy_model" in shown) == wanted, strategy


def test_field_that_a_strategy_takes_as_an_option_is_shown_with_it_alone():
    for strategy in mixers.names():
        taken = set(mixers.options(strategy))
        shown = set(fields.applicable({**fields.FIRST, "mix_strategy": strategy}))
        for option in ("preset", "ema_beta", "trajectory", "impact", "proxy_share"):
            assert (f"dids_{option}" in shown) == (option in taken), (strategy, option)


def test_run_in_order_has_no_problem(given):
    assert fields.problem(given) == ""
    assert fields.problem({**given, "mix_strategy": "concat"}) == ""


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dids_ema_beta": "much"}, "dids_ema_beta: got 'much'"),
        ({"dids_ema_beta": 2}, "dids_ema_beta"),
        ({"dids_num_domains": 0}, "dids_num_domains: got 0"),
        ({"dids_num_domains": 2.5}, "dids_num_domains: got 2.5"),
        ({"dids_num_domains": 2}, "dids_num_domains: got 2, allowed: at least one for each of the 3 datasets"),
        ({"dids_tasks": ""}, "dids"),
        ({"dids_tasks": "nowhere"}, "dids_tasks: got 'nowhere'"),
        ({"dids_tasks": "task_sum"}, "did you mean task_sums?"),
        ({"dids_proxy_model": "/nope/model"}, "dids_proxy_model: got '/nope/model'"),
        ({"mix_stategy": "dids"}, "mix_stategy: unknown key, did you mean mix_strategy?"),
        ({"dids_domains": "/no/such/map"}, "dids_domains: got '/no/such/map'"),
        ({"dids_task": "a"}, "dids_task: unknown key"),
        ({"mix_strategy": "didz"}, "mix_strategy: got 'didz'"),
        ({"mix_strategy": "static"}, "dids_probs"),
    ],
)
def test_wrong_entry_is_one_line_that_names_its_key(given, changes, said):
    problem = fields.problem({**given, **changes})
    assert said in problem and ("allowed" in problem or "unknown key" in problem)
    assert "\n" not in problem
