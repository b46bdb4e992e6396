"""The made-up world that the quickstart's data set is about.

Countries with their facts, animals with their kinds, and a language. All names are drawn from syllables, so
that nothing about them can be known beforehand: a model answers a question only if some source taught it.
"""

import random
from dataclasses import dataclass


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


ONES = _words("""
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
    seventeen eighteen nineteen""")
TENS = {2: "twenty", 3: "thirty", 4: "forty"}
DAYS = _words("monday tuesday wednesday thursday friday saturday sunday")
PEOPLE = _words("mia noah lena omar ida hugo rosa ivan nina paul zoe karl")
THINGS = _words("pears nails books cups coins shells stamps beads pens keys boxes hats")
WORDS = _words("""
    lamp river stone cloud bread chair window garden bottle bridge candle carpet castle corner desert
    engine field flower forest glass hammer harbor island jacket kitchen ladder letter market mirror
    mountain needle ocean orange paper pencil pepper pillow planet pocket rabbit ribbon road rope saddle
    school shadow silver spoon summer table temple ticket tower train valley village wagon water whistle
    winter amber ancient bitter blue bright broken calm clever cold crooked dark deep dusty eager early
    empty fair famous fierce gentle golden green happy heavy hollow honest hungry kind late little lonely
    loud narrow nervous old pale patient plain proud quick quiet rare red rough rusty sad sharp shiny
    silent simple slow small smooth soft sour steep strange strong sweet tall tender thick thin tiny warm
    weak wide wild wise young carry climb dance follow gather listen paint plant shout travel wander
    whisper""")

FACTS = {"capital": 48, "language": 12, "currency": 12, "river": 24}  # how many different answers there are
NUM_COUNTRIES, NUM_ANIMALS = 48, 80
TRAITS = {  # in the order of TRAIT_VERBS
    "bird": ("nests", "seeds", "feathers", "flying"),
    "lizard": ("deserts", "ants", "scales", "running"),
    "beetle": ("logs", "leaves", "shells", "crawling"),
    "snake": ("holes", "eggs", "skin", "sliding"),
    "frog": ("ponds", "flies", "slime", "jumping"),
    "monkey": ("trees", "fruit", "fur", "climbing"),
    "crab": ("tides", "worms", "armor", "digging"),
    "seal": ("rivers", "fish", "hair", "swimming"),
    "spider": ("webs", "moths", "bristles", "hanging"),
    "bear": ("caves", "honey", "wool", "walking"),
}
TRAIT_VERBS = ("live in", "eat", "are covered in", "move by")


@dataclass(frozen=True)
class World:
    """What is true. Sources and tasks ask about the same world."""

    countries: dict[str, dict[str, str]]  # country: {fact: answer}
    animals: dict[str, str]  # animal: kind
    lexicon: dict[str, str]  # word: its translation


def number(value: int) -> str:
    """`value`, from 0 to 49, in words."""
    if value < len(ONES):
        return ONES[value]
    ten, one = divmod(value, 10)
    return f"{TENS[ten]} {ONES[one]}" if one else TENS[ten]


def coin_names(rng: random.Random, count: int, endings: tuple[str, ...], taken: set[str]) -> list[str]:
    """`count` pronounceable names that are not in `taken`, which they join."""
    names: list[str] = []
    while len(names) < count:
        syllables = (rng.choice("bdfgklmnprstvz") + rng.choice("aeiou") for _ in range(2))
        name = "".join(syllables) + rng.choice(endings)
        if name not in taken:
            taken.add(name)
            names.append(name)
    return names


def make_world(seed: int) -> World:
    """Draw the names, and what is true of them."""
    rng, taken = random.Random(f"{seed}/world"), set(WORDS)
    countries: dict[str, dict[str, str]] = {
        country: {} for country in coin_names(rng, NUM_COUNTRIES, ("land", "nia", "stan"), taken)
    }
    for fact, count in FACTS.items():
        answers = coin_names(rng, count, ("r", "sh", "n", "l"), taken) * (NUM_COUNTRIES // count)
        rng.shuffle(answers)
        for country, answer in zip(countries, answers, strict=True):
            countries[country][fact] = answer
    kinds = list(TRAITS)
    animals = {animal: rng.choice(kinds) for animal in coin_names(rng, NUM_ANIMALS, ("x", "g", "b"), taken)}
    lexicon = dict(zip(WORDS, coin_names(rng, len(WORDS), ("", "k", "m"), taken), strict=True))
    return World(countries, animals, lexicon)
