"""What `dids_probs`, `dids_schedule` and `dids_share_of` say, and what a run then draws."""

from unittest import mock

import numpy as np
import pytest

from llamafactory_dids.artifacts.domain_map import DomainMap
from llamafactory_dids.artifacts.mixture_log import MixtureLog
from llamafactory_dids.errors import DidsError
from llamafactory_dids.integration.plan.probabilities import Sizes, check_mixture, shares_of, sizes_of
from llamafactory_dids.integration.plan.schedules import check_schedule, schedule_of
from llamafactory_dids.training.collator import DOMAIN_COLUMN, DomainCollator
from tests.integration.support import BY_SOURCE, arguments, module_of, same_domains, train

pytestmark = pytest.mark.integration

SOURCES = ("math", "code", "web")
SIZES = Sizes(SOURCES, SOURCES, np.diag([10.0, 30, 60]))
# math in two domains, code in one, web in one that it shares with code
AMOUNTS_SD = np.array([[6.0, 4, 0, 0], [0, 0, 20, 10], [0, 0, 0, 60]])
CLUSTERS = Sizes(("math/0", "math/1", "code/0", "web/0"), SOURCES, AMOUNTS_SD)


def shares(text: str, sizes: Sizes = SIZES) -> list[float]:
    check_mixture("dids_probs", text, sizes.sources, sizes.domains)
    return shares_of("dids_probs", text, sizes).tolist()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.2,0.3,0.5", [0.2, 0.3, 0.5]),
        ("math=0.6, code=0.4, web=0", [0.6, 0.4, 0]),
        ("code=3, math=1, web=4", [0.125, 0.375, 0.5]),
        ("math=0.6, code=0.4", [0.6, 0.4, 0]),
        ("web=0.2", [0.2, 0.6, 0.2]),
        ("math=0.1", [0.1, 0.3, 0.6]),
        ("code=0", [1 / 7, 0, 6 / 7]),
        ("uniform", [1 / 3] * 3),
        ("proportional", [0.1, 0.3, 0.6]),
    ],
)
def test_shares_are_by_name_the_rest_by_size_or_in_order(text, expected):
    assert shares(text) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("math=0.5, code=0.5, web=0", [0.3, 0.2, 0.5 * 2 / 3, 0.5 / 3]),
        ("math=0.3", [0.18, 0.12, 0.7 / 3 * 2 / 3, 0.7 * 2 / 3 + 0.7 / 9]),
        ("math/1=0.5", [0.5 * 6 / 96, 0.5, 0.5 * 20 / 96, 0.5 * 70 / 96]),
        ("math/0=1, web/0=1, math/1=0, code/0=2", [0.25, 0, 0.5, 0.25]),
        ("0.1,0.2,0.3,0.4", [0.1, 0.2, 0.3, 0.4]),
    ],
)
def test_names_are_of_domains_or_of_datasets_whose_share_goes_to_their_domains_by_size(text, expected):
    assert shares(text, CLUSTERS) == pytest.approx(expected)


def test_samples_of_other_datasets_in_a_given_map_leave_the_shares_of_this_runs_alone():
    sources = [*["math"] * 10, *["code"] * 10, *["other"] * 80, *["math"] * 90, *["code"] * 10]
    wide = DomainMap(("global/0", "global/1"), list(map(str, range(200))), sources, np.repeat([0, 1], 100))
    expected = [[10, 90], [10, 10]]
    assert sizes_of(wide, ["math", "code"], [20, 100]).amounts_SD.tolist() == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("math/7=0.5", "dids_probs: got 'math/7', allowed: a dataset or a domain of this run, did you mean math/"),
        ("math=nan", "got 'math=nan', allowed: NAME=NUMBER"),
        ("math=lots", "got 'math=lots', allowed: NAME=NUMBER"),
        ("=0.5", "got '=0.5', allowed: NAME=NUMBER"),
        ("math=0.5, 0.5", "got '0.5', allowed: NAME=NUMBER"),
        ("math=0,code=0,web=0", "allowed: a number above 0 for one of them"),
        ("math=3,code=2", "whose numbers sum to 5 and leave nothing for 'web'; allowed: a sum below 1"),
        ("math=0.2,math/0=0.1", "dids_probs: got 'math/0', allowed: names of datasets alone, or of domains alone"),
        ("0.5,0.5", "allowed: 4 numbers (domains) or 3 (datasets)"),
    ],
)
def test_what_is_no_mixture_is_refused_in_one_line(text, message):
    with pytest.raises(DidsError) as caught:
        shares(text, CLUSTERS)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_clusters_that_are_to_be_made_may_be_named_and_others_not():
    check_mixture("dids_probs", "math/11=0.5", SOURCES, None)
    check_mixture("dids_probs", "global/3=0.5", SOURCES, None)
    for name in ("mathe/1", "math/one", "math/"):
        with pytest.raises(DidsError, match=f"got '{name}', allowed: a dataset or a domain"):
            check_mixture("dids_probs", f"{name}=0.5", SOURCES, None)
    with pytest.raises(DidsError, match="leave nothing for 'web'"):
        check_mixture("dids_probs", "math=2,code=1", SOURCES, None)


def test_a_stream_whose_size_is_not_known_needs_a_number_for_each():
    streams = Sizes(SOURCES, SOURCES, np.zeros((3, 3)))
    assert shares("math=1,code=1,web=2", streams) == [0.25, 0.25, 0.5]
    with pytest.raises(DidsError, match="which leaves 'web' a share by its size, which is not known with streaming"):
        shares("math=0.2,code=0.1", streams)
    with pytest.raises(DidsError, match="got 'proportional', allowed: with streaming, a mixture that needs no size"):
        shares("proportional", streams)


def test_a_log_of_shares_of_tokens_is_not_taken_for_shares_of_samples(tmp_path):
    line = {"samples_seen": 0, "probabilities": dict.fromkeys(SOURCES, 1 / 3), "task_loss": {}, "share_of": "tokens"}
    log = MixtureLog(tmp_path / "run=1" / "mixture.jsonl")
    log.append(line)
    check_mixture("dids_probs", str(log.path), SOURCES, SOURCES, "tokens")
    assert shares_of("dids_probs", str(log.path), SIZES) == pytest.approx([1 / 3] * 3)
    with pytest.raises(DidsError, match="dids_share_of: got 'samples', allowed: tokens, of which .*run=1"):
        check_mixture("dids_probs", str(log.path), SOURCES, SOURCES)


def test_sizes_are_of_the_rows_that_are_trained_on_whatever_else_the_map_holds():
    domain_map = DomainMap(("a", "b"), ["1", "2", "3", "4"], ["x", "y", "y", "y"], np.array([0, 0, 1, 1]))
    assert sizes_of(domain_map, ["x", "y"], [10, 6]).amounts_SD.tolist() == [[5, 0], [5, 6]]
    assert not sizes_of(domain_map, ["x", "y"], None).amounts_SD.any()


def test_a_schedule_has_a_mixture_of_any_kind_at_each_of_its_points():
    text = "0: proportional; 0.25: math=0.5; 1: 0,0,1;"
    check_schedule(text, SOURCES, SOURCES, "samples")
    found = schedule_of(text, SIZES)
    assert found["points_K"] == [0, 0.25, 1]
    expected_KD = [[0.1, 0.3, 0.6], [0.5, 0.5 / 3, 1 / 3], [0, 0, 1]]
    np.testing.assert_allclose(found["mixtures_KD"], expected_KD)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "dids_schedule: got '', allowed: POINT: MIXTURE; POINT: MIXTURE; …, the points ascending"),
        ("0: uniform; 0: math=1", "the points ascending"),
        ("math=1", "got 'math=1', allowed: POINT: MIXTURE, with a point from 0"),
        ("0: ", "got '0:', allowed: POINT: MIXTURE"),
        ("0: uniform; 1: mth=1", "dids_schedule: got 'mth', allowed: a dataset or a domain of this run, did you mean"),
    ],
)
def test_what_is_no_schedule_is_refused_in_one_line(text, message):
    with pytest.raises(DidsError) as caught:
        check_schedule(text, SOURCES, SOURCES, "samples")
    assert message in str(caught.value)


# --- runs ------------------------------------------------------------------------------------------------


def fixed(world, folder, **keys):
    """A run of data sets as domains that looks at no task."""
    return arguments(world, folder, **{"mix_strategy": "static", "dids_tasks": None, **BY_SOURCE} | keys)


def test_mixture_of_a_run_is_its_mean_over_the_run(finished, world, tmp_path):
    keys = {"mix_strategy": "static", "dids_tasks": None, "dids_probs": str(finished.folder)}
    plan = module_of(arguments(world, tmp_path, **keys, **same_domains(finished)))[0]["mixing"]
    expected = np.mean([list(line.values()) for line in finished.probabilities[:-1]], axis=0)
    assert plan.domain_names == tuple(finished.probabilities[0])
    assert plan.mixer.init().probabilities_D == pytest.approx(expected)


def trained_tokens(values):
    """A run, and the tokens of each domain that it was trained on, counted from the batches."""
    tokens, collate = {}, DomainCollator.__call__

    def count(self, samples):
        for sample in samples:
            tokens[sample[DOMAIN_COLUMN]] = tokens.get(sample[DOMAIN_COLUMN], 0) + len(sample["input_ids"])
        return collate(self, samples)

    with mock.patch.object(DomainCollator, "__call__", count):
        ran = train(values)
    return ran, np.array([tokens[domain] for domain in sorted(tokens)])


def test_shares_of_tokens_are_what_a_run_is_trained_on(world, tmp_path):
    mixture = {"sums": 2, "pairs": 1, "noise": 3}
    values = fixed(world, tmp_path, dids_probs=mixture, dids_share_of="tokens", max_steps=6)
    ran, tokens_D = trained_tokens(values | {"per_device_train_batch_size": 128})
    shares_D = tokens_D / tokens_D.sum()
    assert shares_D == pytest.approx([1 / 3, 1 / 6, 1 / 2], abs=0.03)
    assert list(ran.probabilities[0].values()) == pytest.approx([1 / 3, 1 / 6, 1 / 2])
    drawn_D = np.array(list(ran.lines[-1]["samples_drawn"].values()))
    mean_D = np.array(list(ran.lines[-1]["tokens_per_sample"].values()))
    assert ran.lines[-1]["share_of"] == "tokens" and mean_D == pytest.approx(tokens_D / drawn_D, rel=0.03)
    assert not np.allclose(drawn_D / drawn_D.sum(), shares_D, atol=0.05), "the samples' lengths differ"


def test_lengths_of_a_stream_are_taken_from_its_first_samples(world, tmp_path):
    values = fixed(world, tmp_path, dids_probs="uniform", dids_share_of="tokens")
    loaded, streamed = (module_of(values | {"streaming": streams})[0]["mixing"] for streams in (False, True))
    assert streamed.tokens_D == pytest.approx(loaded.tokens_D, rel=0.04)
    assert np.ptp(streamed.draws(np.full(3, 1 / 3)) * streamed.tokens_D) < 1e-9


def test_every_sample_alike_is_the_same_in_samples_and_in_tokens(world, tmp_path):
    plans = [
        module_of(fixed(world, tmp_path, mix_strategy="proportional", dids_share_of=unit))[0]["mixing"]
        for unit in ("samples", "tokens")
    ]
    by_samples, by_tokens = (plan.draws(plan.mixer.init().probabilities_D) for plan in plans)
    assert by_tokens == pytest.approx(by_samples)


def test_a_schedule_moves_at_each_update_and_goes_on_from_a_checkpoint(world, tmp_path):
    plan = {0: {"sums": 1, "noise": 0, "pairs": 0}, 0.5: "pairs=1", 1: "noise=1"}
    values = fixed(world, tmp_path, mix_strategy="schedule", dids_schedule=plan, save_strategy="steps", save_steps=9)
    ran = train(values)
    expected_UD = [[1 - u / 3, u / 3, 0] for u in range(3)] + [[0, 1 - u / 3, u / 3] for u in range(3)]
    np.testing.assert_allclose([list(p.values()) for p in ran.probabilities[:-1]], expected_UD, atol=1e-12)
    checkpoint = str(ran.folder / "checkpoint-9")
    resumed = train(values | {"overwrite_output_dir": False, "resume_from_checkpoint": checkpoint})
    assert resumed.lines[-1]["samples_drawn"] == ran.lines[-1]["samples_drawn"]
    assert resumed.probabilities == ran.probabilities


def test_balance_looks_at_no_task_and_moves_toward_what_the_domains_share(world, tmp_path):
    ran = train(fixed(world, tmp_path, mix_strategy="balance"))
    assert [line["step"] for line in ran.lines] == [0, 4, 8, 12, 16, 20, 24]
    assert list(ran.probabilities[0].values()) == pytest.approx([1 / 3] * 3)
    assert ran.lines[-1]["task_loss"] == {} and min(min(p.values()) for p in ran.probabilities) >= 0.05 / 3
    assert len({tuple(p.values()) for p in ran.probabilities[:-1]}) == 6
