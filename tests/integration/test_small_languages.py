"""Small worlds of made-up languages: what equals a task is fed, and noise is not, by the measured impact alone.

A language has a word for each letter. A source asks for the words of two letters, in one language. Two of the
languages are the tasks. Two sources are noise, each of another kind. Sizes, words and kinds of noise go by a seed.
"""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.support import BY_SOURCE, World, arguments, build_model, train, write_dataset

pytestmark = pytest.mark.integration

LETTERS = "abcdefgh"
TASKS = ("language_0", "language_1")
Answer = Callable[[list[str]], list[str]]


def make_languages(folder: Path, seed: int) -> tuple[World, dict[str, int]]:
    """A world, and the number of samples of each source."""
    rng, world, sizes = random.Random(seed), World(folder), {}
    for name, answer, size in sources(rng):
        phrase, sizes[name] = word(rng), size
        write_dataset(world.data, name, samples(rng, phrase, answer, size))
        if name in TASKS:
            write_dataset(world.data, f"task_{name}", samples(rng, phrase, answer, 24))
    build_model(world.model, world.data, vocab_size=400, layers=2)
    return world, sizes


def sources(rng: random.Random) -> Iterator[tuple[str, Answer, int]]:
    for i in range(rng.randint(4, 6)):
        yield f"language_{i}", language(rng), rng.randint(60, 300)
    words = [word(rng) for _ in range(20)]
    language_of_noise = language(rng)
    noise: dict[str, Answer] = {
        "any_words": lambda asked: rng.choices(words, k=rng.randint(1, 4)),
        "letters": lambda asked: list(word(rng)),
        "one_word": lambda asked: [words[0]] * rng.randint(1, 3),
        "other_answers": lambda asked: language_of_noise(rng.choices(LETTERS, k=2)),
    }
    for kind in rng.sample(sorted(noise), 2):
        yield f"noise_{kind}", noise[kind], rng.randint(150, 400)


def language(rng: random.Random) -> Answer:
    known = {letter: word(rng) for letter in LETTERS}
    return lambda asked: [known[letter] for letter in asked]


def word(rng: random.Random) -> str:
    return "".join(rng.choices("klmnopqrstuvwxyz", k=4))


def samples(rng: random.Random, phrase: str, answer: Answer, count: int) -> list[dict[str, str]]:
    asked = [rng.choices(LETTERS, k=2) for _ in range(count)]
    return [
        {"instruction": f"{phrase} {' '.join(letters)}", "input": "", "output": " ".join(answer(letters))}
        for letters in asked
    ]


@pytest.mark.parametrize("seed", [4, 5])
def test_what_equals_a_task_gets_twice_its_share_and_noise_half(tmp_path, seed):
    world, sizes = make_languages(tmp_path, seed)
    changes = {
        "dataset": ",".join(sizes),
        "dids_tasks": ",".join(f"task_{name}" for name in TASKS),
        "dids_task_samples": 24,
        **BY_SOURCE,
        "dids_init": "proportional",
        "dids_update_samples": 128,
        "per_device_train_batch_size": 16,
        "max_steps": 300,
        "learning_rate": 3e-3,
    }
    p = train(arguments(world, tmp_path, **changes)).probabilities

    def times(is_meant: Callable[[str], bool]) -> float:
        names = [name for name in sizes if is_meant(name)]
        share = sum(sizes[name] for name in names) / sum(sizes.values())
        return sum(p[-1][name] for name in names) / share

    assert times(lambda name: name in TASKS) > 2
    assert times(lambda name: name.startswith("noise_")) < 0.5
