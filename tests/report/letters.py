"""A font of a few letters that matplotlib's own font has not, made for the tests: no machine has to have one."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.font_manager import fontManager

from llamafactory_dids.report import fonts

FAMILY = "Letters of the tests"


@contextmanager
def only_font(folder: Path, letters: str, monkeypatch) -> Iterator[None]:
    """Within, a font with these letters is the only one that there is besides matplotlib's own."""
    path = folder / "letters.ttf"
    _make(path, letters)
    known = list(fontManager.ttflist)
    fontManager.addfont(path)
    monkeypatch.setattr(fonts, "FAMILIES", ("No such font", FAMILY))
    fonts._tell_once.cache_clear()
    try:
        yield
    finally:
        fontManager.ttflist = known


def _make(path: Path, letters: str) -> None:
    names = [".notdef", *(f"letter{i}" for i in range(len(letters)))]
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 900), (900, 900), (900, 0)):
        pen.lineTo(corner)
    pen.closePath()
    builder = FontBuilder(1000)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord(letter): name for letter, name in zip(letters, names[1:], strict=True)})
    builder.setupGlyf(dict.fromkeys(names, pen.glyph()))
    builder.setupHorizontalMetrics(dict.fromkeys(names, (1000, 0)))
    builder.setupHorizontalHeader(ascent=900, descent=-100)
    builder.setupNameTable({"familyName": FAMILY, "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)
