"""Texts cut to a length, where a `…` stands for the part that is left out; and numbers of bytes in words."""

from collections.abc import Callable


def one_line(text: str) -> str:
    """The text with each run of white space replaced by one space."""
    return " ".join(text.split())


def beginning(text: str, limit: int, *, size: Callable[[str], int] = len, whole_words: bool = False) -> str:
    """The text if its size is at most `limit`; else the beginning that fits, and " …".

    `size` gives the size of a letter: 1, unless a caller counts bytes. `whole_words` also drops the last word, which
    may be cut in two.
    """
    taken = 0
    for end, letter in enumerate(text):
        taken += size(letter)
        if taken > limit:
            start = text[:end]
            return (start.rsplit(" ", 1)[0] if whole_words else start) + " …"
    return text


def without_middle(name: str, limit: int) -> str:
    """The name in at most `limit` letters (two or more). The middle is cut: names of a family differ at their ends."""
    if len(name) <= limit:
        return name
    end = limit // 2
    return name[: limit - end - 1] + "…" + name[-end:]


def byte_size(count: float) -> str:
    """A number of bytes in three digits, in the unit that fits: 15.7 MB."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 999.5:  # more would be rounded to 1e+03
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
