"""Samples by (domain, number) from streams, against the same draws made of lists."""

import pickle
from dataclasses import dataclass, field

import numpy as np
import pytest

from llamafactory_dids.errors import DidsError
from llamafactory_dids.training.collator import DOMAIN_COLUMN
from llamafactory_dids.training.streams import DomainStream, StreamedRows, StreamSampler

P = np.array([0.5, 0.2, 0.3])


@dataclass
class Listed:
    """Reads the numbers below `size`; counts how many times it began and how many it gave."""

    size: int
    passes: int = 0
    given: list[int] = field(default_factory=list)

    def __call__(self):
        self.passes += 1
        for i in range(self.size):
            self.given.append(i)
            yield {"value": i}


def stream(size=10, buffer_size=1, domain=0, seed=3):
    return DomainStream("math", Listed(size), buffer_size=buffer_size, key=(seed, domain))


def values(stream, numbers):
    return [stream.example(number)["value"] for number in numbers]


def test_a_stream_without_a_buffer_comes_in_order_pass_after_pass():
    assert values(stream(4), range(10)) == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]


@pytest.mark.parametrize("buffer_size", [2, 5, 10, 99])
def test_each_pass_has_every_example_once_in_another_order(buffer_size):
    found = values(stream(10, buffer_size), range(40))
    passes = [tuple(found[start : start + 10]) for start in range(0, 40, 10)]
    assert all(sorted(one) == list(range(10)) for one in passes)
    assert len(set(passes)) == 4 and tuple(range(10)) not in passes


def test_the_order_is_of_seed_and_domain():
    orders = {tuple(values(stream(50, 50, domain, seed), range(50))) for domain in (0, 1) for seed in (3, 4)}
    assert len(orders) == 4


@pytest.mark.parametrize("numbers", [[7, 8, 30], [30, 29, 31], [200, 3], [0, 0, 5, 4]])
def test_an_example_is_the_same_whatever_was_asked_for_before(numbers):
    expected = values(stream(13, 5), range(201))
    assert values(stream(13, 5), numbers) == [expected[number] for number in numbers]


def test_a_stream_is_read_on_and_not_anew():
    one = stream(1000, 8)
    values(one, range(500))
    assert one.read.passes == 1 and len(one.read.given) <= 508 + 8


def test_an_empty_stream_is_refused_by_name():
    with pytest.raises(DidsError, match="domain 'math': its stream has no example"):
        stream(0).example(0)


def test_a_stream_goes_to_a_spawned_worker():
    one = stream(13, 5)
    expected = values(one, range(20))
    assert values(pickle.loads(pickle.dumps(one)), range(20)) == expected


# --- rows --------------------------------------------------------------------------------------------------


def rows(tokenise=lambda example: dict(example), sizes=(10, 4, 7)):
    return StreamedRows([stream(size, 3, domain) for domain, size in enumerate(sizes)], tokenise)


def test_rows_carry_their_domain():
    assert [rows()[domain, 5][DOMAIN_COLUMN] for domain in range(3)] == [0, 1, 2]


def test_an_example_without_a_row_is_replaced_by_the_next_whatever_was_asked_for_before():
    def even(example):
        return None if example["value"] % 2 else dict(example)

    order = values(stream(10, 3), range(30))
    expected = [next(v for v in order[number:] if v % 2 == 0) for number in range(20)]
    one = rows(even)
    assert [one[0, number]["value"] for number in range(20)] == expected
    assert [rows(even)[0, number]["value"] for number in (17, 4)] == [expected[17], expected[4]]
    with pytest.raises(DidsError, match="of which the host makes no row"):
        rows(lambda example: None)[0, 0]


def test_skipped_examples_are_not_tokenised():
    seen = []
    one = rows(lambda example: seen.append(example["value"]) or dict(example))
    one[0, 500]
    assert len(seen) == 1


def test_rows_for_a_measurement_leave_the_training_where_it_was():
    one, untouched = rows(), rows()
    before = [one[0, number] for number in range(3)]
    some = one.some(0, 6, draw=0)
    assert some == rows().some(0, 6, draw=0) and some != one.some(0, 6, draw=1)
    assert before + [one[0, 3]] == [untouched[0, number] for number in range(4)]


# --- the sampler -------------------------------------------------------------------------------------------


def make(epoch_size=1000):
    return StreamSampler(3, P, seed=3, epoch_size=epoch_size)


def test_a_draw_names_a_domain_and_how_many_of_it_came_before():
    counts = [0, 0, 0]
    for domain, number in make(10_000):
        assert number == counts[domain]
        counts[domain] += 1
    assert np.abs(np.array(counts) / 10_000 - P).max() < 0.02


@pytest.mark.parametrize("at", [1, 399, 400, 977])
def test_a_replayed_history_goes_on_with_the_same_draws(at):
    first, draws = make(), []
    for drawn in first:
        draws.append(drawn)
        if len(draws) == 400:
            first.set_probabilities([0.1, 0.8, 0.1])
    again = make()
    again.history = list(first.history)
    assert [drawn for i, drawn in enumerate(again) if i >= at] == draws[at:]
    again.seek(at)
    assert again.drawn().tolist() == [sum(d == domain for d, _ in draws[:at]) for domain in range(3)]
