import numpy as np
import pytest
from numpy.typing import ArrayLike
from scipy.stats import chisquare

from llamafactory_dids.training import sampler as module
from llamafactory_dids.training.sampler import MixtureSampler

SIZES = (30, 7, 13, 50)
DOMAINS_N = np.random.default_rng(0).permutation(np.repeat(np.arange(4), SIZES))
P = np.array([0.4, 0.1, 0.2, 0.3])
EARLIER, LATER = P, np.array([0.05, 0.6, 0.3, 0.05])


def make(probabilities_D=P, seed=3, epoch_size=100, domains_N=DOMAINS_N, **options) -> MixtureSampler:
    return MixtureSampler(domains_N, probabilities_D, seed=seed, epoch_size=epoch_size, **options)


def stream(sampler: MixtureSampler, count: int) -> list[int]:
    """The first `count` draws, over as many epochs as that takes."""
    drawn: list[int] = []
    while len(drawn) < count:
        drawn += list(sampler)
    return drawn[:count]


def passes_of(draws: list[int], domain: int) -> list[list[int]]:
    """A domain's draws, cut where each sample can have come once."""
    own = [i for i in draws if DOMAINS_N[i] == domain]
    return [own[start : start + SIZES[domain]] for start in range(0, len(own), SIZES[domain])]


def assert_follows(draws: list[int], probabilities_D: np.ndarray) -> None:
    counts = np.bincount(DOMAINS_N[draws], minlength=4)
    assert chisquare(counts, probabilities_D * len(draws)).pvalue > 1e-3, counts / len(draws)


@pytest.mark.parametrize("chunk", [4096, 16])
def test_a_domain_is_seen_in_full_before_any_of_its_samples_comes_again(chunk, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", chunk)
    draws = stream(make(), 1500)
    for domain in range(4):
        passes = passes_of(draws, domain)
        members = set(np.flatnonzero(domain == DOMAINS_N).tolist())
        assert len(passes) > 3
        assert all(set(one) == members for one in passes[:-1])
        assert len(set(passes[-1])) == len(passes[-1])


def test_each_pass_over_a_domain_is_in_another_order():
    passes = passes_of(stream(make(), 1500), 0)[:-1]
    assert len({tuple(one) for one in passes}) == len(passes)


@pytest.mark.parametrize("probabilities_D", [P, np.array([0.0, 0.97, 0.0, 0.03]), np.full(4, 0.25)])
def test_domains_are_drawn_as_often_as_their_probabilities_say(probabilities_D):
    draws = stream(make(probabilities_D), 20_000)
    counts = np.bincount(DOMAINS_N[draws], minlength=4)
    assert (counts[probabilities_D == 0] == 0).all()
    drawn = probabilities_D > 0
    assert chisquare(counts[drawn], probabilities_D[drawn] * 20_000).pvalue > 1e-3, counts / 20_000


def changing(sampler: MixtureSampler, changes: dict[int, ArrayLike], count: int) -> list[int]:
    """`count` draws, with the probabilities changed after so many of them."""
    draws: list[int] = []
    while len(draws) < count:
        for sample in sampler:
            draws.append(sample)
            if len(draws) in changes:
                assert sampler.set_probabilities(changes[len(draws)]) == len(draws)
    return draws[:count]


@pytest.mark.parametrize("at", [1, 37, 99, 100, 101, 4095, 4096, 4097, 5000])
@pytest.mark.parametrize("epoch_size", [100, 10_000])
def test_new_probabilities_apply_exactly_from_the_draw_that_is_returned(at, epoch_size):
    draws = changing(make([1, 0, 0, 0], epoch_size=epoch_size), {at: [0, 0, 0, 1]}, 10_000)
    assert (DOMAINS_N[draws[:at]] == 0).all() and (DOMAINS_N[draws[at:]] == 3).all()
    assert draws[:at] == stream(make([1, 0, 0, 0], epoch_size=epoch_size), at)


def test_new_probabilities_before_the_first_draw_replace_the_old():
    sampler = make([1, 0, 0, 0])
    assert sampler.set_probabilities(P) == 0
    assert stream(sampler, 300) == stream(make(P), 300)


def test_both_sides_of_a_change_in_the_middle_of_a_chunk_follow_their_probabilities():
    sampler, draws = make(EARLIER, epoch_size=40_000), []
    for sample in sampler:
        draws.append(sample)
        if len(draws) == 18_001:
            sampler.set_probabilities(LATER)
    assert_follows(draws[:18_001], EARLIER)
    assert_follows(draws[18_001:], LATER)


@pytest.mark.parametrize("max_repeats", [None, 1, 2])
def test_a_change_does_not_bring_a_sample_back_too_early(max_repeats):
    sampler, draws = make(epoch_size=2000, max_repeats=max_repeats), []
    for sample in sampler:
        draws.append(sample)
        if len(draws) in (3, 50, 51, 700):
            sampler.set_probabilities(np.roll(P, len(draws)))
    for domain in range(4):
        assert all(len(set(one)) == len(one) for one in passes_of(draws, domain))


CHANGES = {30: LATER, 100: np.full(4, 0.25), 150: LATER, 350: P}


@pytest.mark.parametrize("max_repeats", [None, 1, 2])
@pytest.mark.parametrize("chunk", [4096, 32])
def test_the_same_history_replays_the_same_sequence(max_repeats, chunk, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", chunk)
    first = make(max_repeats=max_repeats)
    draws = changing(first, CHANGES, 500)
    again = make(np.full(4, 0.25), max_repeats=max_repeats)
    again.history = list(first.history)
    assert stream(again, 500) == draws


@pytest.mark.parametrize("max_repeats", [None, 1, 2])
@pytest.mark.parametrize("epoch", [0, 1, 3])
def test_an_epoch_begun_by_itself_is_the_one_that_was_drawn_in_order(max_repeats, epoch):
    first = make(max_repeats=max_repeats)
    draws = changing(first, CHANGES, 500)
    again = make(max_repeats=max_repeats)
    again.history = list(first.history)
    again.set_epoch(epoch)
    assert list(again) == draws[epoch * 100 : (epoch + 1) * 100]


@pytest.mark.parametrize("told", [[], [0], [1], [0, 1]])
def test_a_resumed_sampler_goes_on_in_its_epoch_whatever_a_loader_counts(told):
    whole = stream(make(), 300)
    resumed = make()
    resumed.resume_in(1)
    for epoch in told:
        resumed.set_epoch(epoch)
    assert list(resumed) == whole[100:200]
    resumed.set_epoch(2)
    assert list(resumed) == whole[200:]


@pytest.mark.parametrize("max_repeats", [None, 1, 2])
def test_draws_are_skipped_a_chunk_at_a_time_without_choosing_any_sample(max_repeats, monkeypatch):
    domains_N = np.random.default_rng(1).integers(0, 1152, 200_000)
    probabilities_D = np.random.default_rng(2).dirichlet(np.ones(1152))
    sampler = make(probabilities_D, domains_N=domains_N, epoch_size=200_000, max_repeats=max_repeats)
    picks, pick = [], module._pick
    monkeypatch.setattr(module, "_pick", lambda p_D, uniforms: picks.append(len(uniforms)) or pick(p_D, uniforms))
    for choosing in ("_draw", "_shuffled"):
        monkeypatch.setattr(sampler, choosing, lambda *_: pytest.fail("a sample was chosen"))
    sampler.seek(199_999)
    # where a domain is full, what is left of the chunk is picked anew; each of them is once in so many draws
    once_more = 1152 if max_repeats else 0
    assert len(picks) <= -(-199_999 // module.CHUNK) + once_more
    assert sampler.drawn().sum() == 199_999


@pytest.mark.parametrize("most", [1, 2, 3])
def test_a_limit_gives_what_drawing_one_by_one_gives(most):
    for probabilities_D in (P, np.array([0.97, 0.01, 0.01, 0.01]), np.array([0.5, 0.5, 0.0, 0.0])):
        sampler = make(probabilities_D, max_repeats=most)
        uniforms, counts_D = sampler._uniforms(0, 1000), np.zeros(4, dtype=int)
        for sample, uniform in zip(stream(sampler, 1000), uniforms, strict=True):
            rounds_D = counts_D // (most * np.array(SIZES))
            open_D = rounds_D == rounds_D.min()
            left_D = probabilities_D * open_D
            left_D = left_D if left_D.any() else np.array(SIZES) * open_D
            domain = int(np.searchsorted(np.cumsum(left_D) / left_D.sum(), uniform, side="right"))
            assert DOMAINS_N[sample] == domain
            counts_D[domain] += 1


@pytest.mark.parametrize("max_repeats", [None, 1, 2])
def test_unshuffled_each_domain_comes_in_the_order_of_the_data_again_and_again(max_repeats):
    draws = stream(make(shuffled=False, max_repeats=max_repeats), 1500)
    for domain in range(4):
        members = np.flatnonzero(domain == DOMAINS_N).tolist()
        own = [i for i in draws if DOMAINS_N[i] == domain]
        assert own == (members * len(own))[: len(own)]
    shuffled = stream(make(max_repeats=max_repeats), 1500)
    assert DOMAINS_N[draws].tolist() == DOMAINS_N[shuffled].tolist()


def test_new_probabilities_can_wait_for_a_whole_block():
    sampler, draws = make([1, 0, 0, 0], epoch_size=400), []
    for sample in sampler:
        draws.append(sample)
        if len(draws) == 37:
            assert sampler.set_probabilities([0, 0, 0, 1], block=16) == 48
    assert (DOMAINS_N[draws[:48]] == 0).all() and (DOMAINS_N[draws[48:]] == 3).all()


@pytest.mark.parametrize("position", [0, 1, 77, 250, 499])
def test_drawn_counts_the_draws_before_the_position_after_going_forward_and_back(position):
    sampler = make()
    draws = changing(sampler, CHANGES, 500)
    for target in (position, 480, position):
        sampler.seek(target)
        assert sampler.drawn().tolist() == np.bincount(DOMAINS_N[draws[:target]], minlength=4).tolist()


def test_drawn_counts_what_has_been_handed_out_and_nothing_that_was_only_prepared():
    sampler, draws = make(epoch_size=1000), []
    for sample in sampler:
        draws.append(sample)
        if len(draws) in (1, 10, 600):
            assert sampler.drawn().tolist() == np.bincount(DOMAINS_N[draws], minlength=4).tolist()


def test_an_epoch_left_early_goes_on_where_the_next_one_begins():
    left, whole = make(), stream(make(), 300)
    iterator = iter(left)
    assert [next(iterator) for _ in range(40)] == whole[:40]
    left.set_epoch(1)
    assert list(left) == whole[100:200]
    assert list(left) == whole[200:300]


def test_two_ranks_with_the_same_seed_agree_and_another_seed_differs():
    assert changing(make(), CHANGES, 500) == changing(make(), CHANGES, 500)
    assert stream(make(seed=3), 100) != stream(make(seed=4), 100)


def test_an_epoch_is_as_long_as_it_says():
    sampler = make(epoch_size=37)
    assert len(sampler) == 37 and len(list(sampler)) == 37


@pytest.mark.parametrize("probabilities_D", [P, np.array([0.97, 0.01, 0.01, 0.01]), np.array([0.5, 0.5, 0.0, 0.0])])
@pytest.mark.parametrize("most", [1, 2, 3])
def test_no_sample_is_seen_more_often_than_the_limit_before_all_were_seen_that_often(probabilities_D, most):
    draws = stream(make(probabilities_D, max_repeats=most), 600)
    for start in range(0, 600, most * 100):
        assert sorted(draws[start : start + most * 100]) == sorted(most * list(range(100)))


def test_a_domain_without_samples_may_have_no_probability():
    with pytest.raises(ValueError, match="domain without samples"):
        make([0.5, 0.5], domains_N=np.zeros(4, int))
    sampler = make([1.0, 0.0], domains_N=np.zeros(4, int), epoch_size=8)
    assert sorted(stream(sampler, 8)) == [0, 0, 1, 1, 2, 2, 3, 3]
    with pytest.raises(ValueError, match="domain without samples"):
        sampler.set_probabilities([0.9, 0.1])
