"""What the page says in each of its languages. The texts stand in `texts.yaml`.

A component's id ends in the key that it sets.
"""

from importlib.resources import files
from typing import Any

import yaml

from ... import mixers
from ..arguments.keys import HOST_STRATEGIES

LANGUAGES = ("en", "ru", "zh", "ko", "ja")

_TEXTS = yaml.safe_load(files(__package__).joinpath("texts.yaml").read_text(encoding="utf-8"))
FIELDS: dict[str, dict[str, tuple[str, str]]] = _TEXTS["fields"]
STRATEGIES: dict[str, dict[str, str]] = _TEXTS["strategies"]
PHRASES: dict[str, dict[str, str]] = _TEXTS["phrases"]


def locales() -> dict[str, dict[str, dict[str, Any]]]:
    """Each component's texts in each language, in the form of the host's `LOCALES`."""
    fields = {
        name: {lang: {"label": label, "info": text} for lang, (label, text) in texts.items()}
        for name, texts in FIELDS.items()
    }
    for lang, shown in fields["mix_strategy"].items():
        shown["choices"] = choices(lang)
    labels = {name: {lang: {"label": text} for lang, text in texts.items()} for name, texts in _TEXTS["labels"].items()}
    buttons = {
        name: {lang: {"value": text} for lang, text in texts.items()} for name, texts in _TEXTS["buttons"].items()
    }
    return fields | labels | buttons


def choices(lang: str) -> tuple[tuple[str, str], ...]:
    """(text, strategy) of each strategy: the host's, then ours in the order of `texts.yaml`, then other packages'."""
    listed = list(STRATEGIES)
    ours = sorted(mixers.names(), key=lambda name: listed.index(name) if name in listed else len(listed))
    names = (*HOST_STRATEGIES, *ours)
    return tuple((f"{name} — {STRATEGIES[name][lang]}" if name in STRATEGIES else name, name) for name in names)


def say(phrase: str, lang: str) -> str:
    """A phrase in one of LANGUAGES; English until a language is chosen."""
    return PHRASES[phrase][lang if lang in LANGUAGES else "en"]
