"""Generate the quickstart's data: 13 training sources and 3 downstream tasks about a made-up world.

    python scripts/quickstart/generate.py --output quickstart/data --seed 0

Writes one alpaca-format JSON file per dataset, and `dataset_info.json`. The same seed gives the same bytes.
All text is lower case and short (20 to 60 tokens with its prompt), so that a model of a million parameters
learns some of it on two CPU cores in a minute.

Training sources. As in real mixtures the useful ones are small; two that help nothing hold 44% of the rows:

    source          rows  what it is                                                 can help
    addition        1200  sums of two numbers from zero to twenty, in words          task_arithmetic
    subtraction      700  differences of two such numbers                            task_arithmetic
    comparison       900  the larger or smaller of two numbers                       (number words only)
    weekdays         600  the day some days before or after another                  (number words only)
    atlas            800  facts of countries: capital, language, currency, river     task_geography
    taxonomy         360  which kind of animal an animal is                          task_animals, first half
    traits           200  how each kind of animal lives                              task_animals, second half
    spelling         900  a word letter by letter, forward or backward               -
    two_parts        600  two questions of the eight kinds above, answered in turn   two-part answers
    echo            1200  the words of the input, once or twice                      -
    lexicon         3200  word by word into a made-up language                       - (learnable, irrelevant)
    random_answers  3600  open questions, answered by words drawn at random          - (nothing to learn)
    grab_bag        1200  a collection, like FLAN: a sixth each of addition, atlas,  through its parts
                          weekdays, spelling, lexicon and random_answers

Tasks. Each has an observed part (`task_x`, 200 rows, which the method may look at) and a held-out part
(`task_x_test`, 300 rows, for the score). No source has a task in its form: the questions are worded
differently, and the answers of the last two combine what sources teach one at a time.

    task_arithmetic  a story of gaining or losing things      three plus four is seven
    task_geography   one or two facts about a country         the river of x is y and the capital of x is z
    task_animals     from an animal to its kind to its trait  a dax is a bird and birds eat seeds

No prompt occurs twice anywhere: sources, observed parts and held-out parts are disjoint.
"""

import argparse
import json
import random
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.quickstart.wordings import ADD, FACT, FRAMES, KIND, SUBTRACT, TRAIT
from scripts.quickstart.world import (
    DAYS,
    FACTS,
    PEOPLE,
    THINGS,
    TRAIT_VERBS,
    TRAITS,
    WORDS,
    World,
    make_world,
    number,
)

OBSERVED_ROWS, TEST_ROWS = 200, 300
TASK_TRAIT = ("where does it live", "what does it eat", "what covers it", "how does it move")

Row = dict[str, str]
Prompt = tuple[str, str]  # instruction, input
Question = Callable[[random.Random, World], tuple[str, str]]  # what is asked, and its answer
Draw = Callable[[random.Random, World], Row]


def row(instruction: str, output: str, text: str = "") -> Row:
    """An alpaca-format sample."""
    return {"instruction": instruction, "input": text, "output": output}


def two_numbers(rng: random.Random) -> tuple[int, int]:
    """Two numbers from zero to twenty, the larger one first."""
    a, b = rng.randint(0, 20), rng.randint(0, 20)
    return max(a, b), min(a, b)


def some_words(rng: random.Random, low: int, high: int) -> list[str]:
    """Between `low` and `high` words, each drawn by itself."""
    return rng.choices(WORDS, k=rng.randint(low, high))


# What the sources teach and the tasks ask for ---------------------------------------------------------------


def sum_answer(a: int, b: int) -> str:
    return f"{number(a)} plus {number(b)} is {number(a + b)}"


def difference_answer(a: int, b: int) -> str:
    return f"{number(a)} minus {number(b)} is {number(a - b)}"


def fact_answer(world: World, country: str, fact: str) -> str:
    return f"the {fact} of {country} is {world.countries[country][fact]}"


def kind_answer(world: World, animal: str) -> str:
    return f"a {animal} is a {world.animals[animal]}"


def trait_answer(kind: str, trait: int) -> str:
    return f"{kind}s {TRAIT_VERBS[trait]} {TRAITS[kind][trait]}"


# Sources of questions: what is asked, and its answer ------------------------------------


def addition(rng: random.Random, world: World) -> tuple[str, str]:
    a, b = rng.randint(0, 20), rng.randint(0, 20)
    return rng.choice(ADD).format(number(a), number(b)), sum_answer(a, b)


def subtraction(rng: random.Random, world: World) -> tuple[str, str]:
    a, b = two_numbers(rng)
    return rng.choice(SUBTRACT).format(number(a), number(b)), difference_answer(a, b)


def comparison(rng: random.Random, world: World) -> tuple[str, str]:
    a, b = rng.sample(range(41), 2)
    word, choose = rng.choice((("larger", max), ("smaller", min)))
    best = choose(a, b)
    answer = f"{number(best)} is {word} than {number(a + b - best)}"
    return f"which is {word}, {number(a)} or {number(b)}", answer


def weekdays(rng: random.Random, world: World) -> tuple[str, str]:
    start, shift = rng.randrange(7), rng.randint(2, 20)
    word, sign = rng.choice((("after", 1), ("before", -1)))
    when = f"{number(shift)} days {word} {DAYS[start]}"
    return f"which day comes {when}", f"{when} is {DAYS[(start + sign * shift) % 7]}"


def atlas(rng: random.Random, world: World) -> tuple[str, str]:
    country, fact = rng.choice(list(world.countries)), rng.choice(list(FACTS))
    return rng.choice(FACT).format(fact, country), fact_answer(world, country, fact)


def taxonomy(rng: random.Random, world: World) -> tuple[str, str]:
    animal = rng.choice(list(world.animals))
    return rng.choice(KIND).format(animal), kind_answer(world, animal)


def traits(rng: random.Random, world: World) -> tuple[str, str]:
    kind, trait = rng.choice(list(TRAITS)), rng.randrange(len(TRAIT_VERBS))
    return rng.choice(TRAIT[trait]).format(f"{kind}s"), trait_answer(kind, trait)


def spelling(rng: random.Random, world: World) -> tuple[str, str]:
    word = rng.choice(WORDS)
    direction, step = rng.choice((("forward", 1), ("backward", -1)))
    return f"how do you spell {word} {direction}", " ".join(word[::step])


QUESTIONS = (addition, subtraction, comparison, weekdays, atlas, taxonomy, traits, spelling)


def ask(question: Question) -> Draw:
    """The source that asks `question`, each time in one of the wordings that all such sources share."""

    def draw(rng: random.Random, world: World) -> Row:
        text, answer = question(rng, world)
        return row(rng.choice(FRAMES).format(text), answer)

    return draw


# Other sources ----------------------------------------------------------------------------------------------


def two_questions(rng: random.Random, world: World) -> tuple[str, str]:
    (first, answer), (second, other) = (question(rng, world) for question in rng.choices(QUESTIONS, k=2))
    return f"{first} and {second}", f"{answer} and {other}"


def echo(rng: random.Random, world: World) -> Row:
    words = " ".join(some_words(rng, 2, 4))
    instruction, times = rng.choice((("repeat the input.", 1), ("say the input twice.", 2)))
    return row(instruction, ", ".join([words] * times), words)


def lexicon(rng: random.Random, world: World) -> Row:
    words = some_words(rng, 2, 5)
    return row("translate into zintan.", " ".join(world.lexicon[word] for word in words), " ".join(words))


def random_answers(rng: random.Random, world: World) -> Row:
    """A prompt that looks like any other; the answer is drawn without regard to it."""
    prompts = (
        "describe the {} {} {}.",
        "write a line about {}, {} and {}.",
        "what would you tell a {} {} {}?",
        "give advice on {} when {} and {}.",
    )
    return row(rng.choice(prompts).format(*some_words(rng, 3, 3)), " ".join(some_words(rng, 4, 8)))


def grab_bag(rng: random.Random, world: World) -> Row:
    parts = (ask(addition), ask(atlas), ask(weekdays), ask(spelling), lexicon, random_answers)
    return rng.choice(parts)(rng, world)


SOURCES: dict[str, tuple[Draw, int]] = {
    "addition": (ask(addition), 1200),
    "subtraction": (ask(subtraction), 700),
    "comparison": (ask(comparison), 900),
    "weekdays": (ask(weekdays), 600),
    "atlas": (ask(atlas), 800),
    "taxonomy": (ask(taxonomy), 360),
    "traits": (ask(traits), 200),
    "spelling": (ask(spelling), 900),
    "two_parts": (ask(two_questions), 600),
    "echo": (echo, 1200),
    "lexicon": (lexicon, 3200),
    "random_answers": (random_answers, 3600),
    "grab_bag": (grab_bag, 1200),
}


# Tasks ------------------------------------------------------------------------------------------------------


def task_arithmetic(rng: random.Random, world: World) -> Row:
    (a, b), person, things = two_numbers(rng), rng.choice(PEOPLE), rng.choice(THINGS)
    start = f"{person} has {number(a)} {things} and"
    if rng.random() < 0.5:
        return row(f"{start} gets {number(b)} more. how many {things} now?", sum_answer(a, b))
    return row(f"{start} gives {number(b)} away. how many {things} are left?", difference_answer(a, b))


def task_geography(rng: random.Random, world: World) -> Row:
    country, (fact, other) = rng.choice(list(world.countries)), rng.sample(list(FACTS), 2)
    if rng.random() < 0.5:
        prompt = rng.choice(("i will travel to {} and need its {}.", "my friend from {} talks about its {}."))
        return row(prompt.format(country, fact), fact_answer(world, country, fact))
    answers = (fact_answer(world, country, name) for name in (fact, other))
    return row(f"a note on {country}, first its {fact}, then its {other}.", " and ".join(answers))


def task_animals(rng: random.Random, world: World) -> Row:
    (animal, kind), trait = rng.choice(list(world.animals.items())), rng.randrange(len(TRAIT_VERBS))
    prompt = rng.choice(("on my walk i met a {}. {}?", "this picture shows a {}. {}?"))
    answer = f"{kind_answer(world, animal)} and {trait_answer(kind, trait)}"
    return row(prompt.format(animal, TASK_TRAIT[trait]), answer)


TASKS: dict[str, Draw] = {draw.__name__: draw for draw in (task_arithmetic, task_geography, task_animals)}


# All of it --------------------------------------------------------------------------------------------------


def draw_distinct(name: str, draw: Draw, size: int, seed: int, world: World, seen: set[Prompt]) -> list[Row]:
    """`size` rows for dataset `name` whose prompts are not in `seen`, which they join.

    Each dataset has its own random stream, so that a change to one leaves the others as they were.
    """
    rng, rows = random.Random(f"{seed}/{name}"), []
    for _ in range(100 * size):
        sample = draw(rng, world)
        prompt = (sample["instruction"], sample["input"])
        if prompt not in seen:
            seen.add(prompt)
            rows.append(sample)
        if len(rows) == size:
            return rows
    raise ValueError(f"{name} has only {len(rows)} distinct prompts, {size} are needed")


def generate(seed: int) -> dict[str, list[Row]]:
    """All datasets, by name."""
    world, datasets = make_world(seed), {}
    seen: set[Prompt] = set()
    for name, (draw, size) in SOURCES.items():
        datasets[name] = draw_distinct(name, draw, size, seed, world, seen)
    for name, draw in TASKS.items():
        rows = draw_distinct(name, draw, OBSERVED_ROWS + TEST_ROWS, seed, world, seen)
        datasets[name], datasets[f"{name}_test"] = rows[:OBSERVED_ROWS], rows[OBSERVED_ROWS:]
    return datasets


def write(datasets: dict[str, list[Row]], folder: Path) -> None:
    """Write each dataset, and the `dataset_info.json` in which LLaMA-Factory looks them up."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in datasets.items():
        (folder / f"{name}.json").write_text(json.dumps(rows, indent=0) + "\n", encoding="utf-8")
    info = {name: {"file_name": f"{name}.json"} for name in datasets}
    (folder / "dataset_info.json").write_text(json.dumps(info, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("quickstart/data"))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    datasets = generate(args.seed)
    write(datasets, args.output)
    num_samples = sum(len(datasets[name]) for name in SOURCES)
    print(f"{num_samples} training samples in {len(SOURCES)} sources, {len(TASKS)} tasks: {args.output}")


if __name__ == "__main__":
    main()
