"""Texts cut to a length: a leaf that the rest of the package reads. A `…` stands for what is left out."""

from collections.abc import Callable


def one_line(text: str) -> str:
    """The text with one space for each run of white space."""
    return " ".join(text.split())


def beginning(text: str, limit: int, *, size: Callable[[str], int] = len, whole_words: bool = False) -> str:
    """The text, or as much of its beginning as takes `limit`, and " …".

    `size` says what a letter takes: 1, unless a caller counts bytes. With `whole_words` the last word is left out too,
    since it may be only a part.
    """
    taken = 0
    for end, letter in enumerate(text):
        taken += size(letter)
        if taken > limit:
            start = text[:end]
            return (start.rsplit(" ", 1)[0] if whole_words else start) + " …"
    return text


def without_middle(name: str, limit: int) -> str:
    """The name in at most `limit` letters, two or more. Names of a family differ at their ends, so the middle goes."""
    if len(name) <= limit:
        return name
    end = limit // 2
    return name[: limit - end - 1] + "…" + name[-end:]
