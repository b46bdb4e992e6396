import dataclasses

import pytest

from llamafactory_dids.config import FIELDS, MixingConfig, make_config, split_list
from llamafactory_dids.errors import DidsError
from llamafactory_dids.stages.cluster import number_for


def refused(**values) -> str:
    """The sentence with which these values are refused."""
    with pytest.raises(DidsError) as caught:
        make_config(values)
    return str(caught.value)


def test_nothing_gives_the_defaults_and_the_defaults_pass_their_own_checks():
    assert make_config({}) == MixingConfig()
    assert make_config(dataclasses.asdict(MixingConfig())) == MixingConfig()


def test_the_papers_numbers_are_the_defaults():
    config = MixingConfig()
    assert (config.dids_update_samples, config.dids_projection_dim) == (None, 1024)
    assert number_for(939_000, 18, config.dids_min_domain_size) == 72
    assert (config.dids_gradient_layers, config.dids_topk_ratio, config.dids_task_samples) == (0.1, 0.1, 200)


def test_other_keys_are_the_hosts_and_left_alone():
    assert make_config({"learning_rate": 1.0, "dids_eta": 2.0}) == MixingConfig(dids_eta=2.0)


@pytest.mark.parametrize("received", [128, 128.0, "128", "1.28e2"])
def test_an_integer_is_taken_however_it_is_written(received):
    value = make_config({"dids_num_domains": received}).dids_num_domains
    assert value == 128 and type(value) is int


def test_an_integer_that_no_float_holds_is_refused():
    assert refused(dids_num_domains=10**400) == f"dids_num_domains: got {10**400}, allowed: an integer"


@pytest.mark.parametrize("received", [1, 1.0, "1", "1e0"])
def test_a_number_is_taken_however_it_is_written(received):
    value = make_config({"dids_topk_ratio": received}).dids_topk_ratio
    assert value == 1.0 and type(value) is float


def test_true_and_false_stay_apart_from_unset():
    assert [make_config({"dids_trajectory": v}).dids_trajectory for v in (True, False, None)] == [True, False, None]


@pytest.mark.parametrize(
    ("key", "low", "sentence"),
    [
        ("dids_task_samples", 1, "an integer >= 1"),
        ("dids_num_domains", 1, "an integer >= 1"),
        ("dids_min_domain_size", 1, "an integer >= 1"),
        ("dids_projection_dim", 2, "an integer from 2 to 1073741824"),
        ("dids_update_samples", 1, "an integer >= 1"),
        ("dids_max_repeats", 1, "an integer >= 1"),
        ("dids_fresh_samples", 1, "an integer >= 1"),
        ("dids_tracked_entries", 1, "an integer >= 1"),
    ],
)
def test_counts_have_a_smallest_value(key, low, sentence):
    assert getattr(make_config({key: low}), key) == low
    assert refused(**{key: low - 1}) == f"{key}: got {low - 1}, allowed: {sentence}"


@pytest.mark.parametrize("key", ["dids_gradient_layers", "dids_topk_ratio"])
@pytest.mark.parametrize("received", [0.0, -0.1, 1.01, 10.0])
def test_shares_are_above_zero_and_at_most_one(key, received):
    assert getattr(make_config({key: 1}), key) == 1.0
    assert refused(**{key: received}) == f"{key}: got {received}, allowed: a share in (0, 1]"


@pytest.mark.parametrize(
    ("key", "allowed"),
    [
        ("dids_cluster_features", ["gradient", "semantic"]),
        ("dids_preset", ["default", "paper", "literal", "authors"]),
        ("dids_impact", ["preconditioned", "fisher", "gradient", "kl"]),
        ("dids_cluster_scope", ["source", "global"]),
        ("dids_share_of", ["samples", "tokens"]),
        ("dids_domain_gradients", ["running", "fresh"]),
    ],
)
def test_choices_are_taken_and_others_refused_with_all_of_them(key, allowed):
    for value in allowed:
        assert getattr(make_config({key: value}), key) == value
    for received in ("other", allowed[0].upper(), 1, [allowed[0]]):
        assert refused(**{key: received}) == f"{key}: got {received!r}, allowed: {', '.join(allowed)}"


def test_every_key_that_is_unset_by_default_may_be_set_to_nothing():
    unset = {name for name in FIELDS if getattr(MixingConfig(), name) is None}
    assert make_config(dict.fromkeys(unset)) == MixingConfig()
    assert "nothing" not in refused(dids_impact="other")


@pytest.mark.parametrize(
    ("received", "names"),
    [
        (None, ()),
        ("", ()),
        ("a", ("a",)),
        ("a, b ,c", ("a", "b", "c")),
        ("a,,b,", ("a", "b")),
        (["a", " b "], ("a", "b")),
        (("a", 3), ("a", "3")),
        ([], ()),
    ],
)
def test_lists_are_written_with_commas_or_as_yaml_lists(received, names):
    assert split_list(received) == names
    assert make_config({"dids_tasks": received}).tasks() == names


def test_a_mixture_may_be_a_mapping_and_a_schedule_one_of_mixtures():
    config = make_config({"dids_probs": {"math": 0.6, "code": 0.4}})
    assert config.dids_probs == "math=0.6,code=0.4"
    config = make_config({"dids_schedule": {0: {"web": 0.8, "math": 0.2}, 0.5: "uniform", 1: [0, 1]}})
    assert config.dids_schedule == "0: web=0.8,math=0.2; 0.5: uniform; 1: 0,1"


@pytest.mark.parametrize("received", [-1, 2**31])
def test_a_seed_fits_what_takes_it(received):
    assert refused(dids_seed=received) == f"dids_seed: got {received}, allowed: an integer from 0 to {2**31 - 1}"
    assert [make_config({"dids_seed": seed}).dids_seed for seed in (0, 2**31 - 1)] == [0, 2**31 - 1]


def test_every_key_has_a_help_text_and_begins_alike():
    for item in dataclasses.fields(MixingConfig):
        assert item.name.startswith("dids_")
        assert item.metadata["help"].endswith("."), item.name


def test_a_configuration_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        MixingConfig().dids_eta = 3.0
