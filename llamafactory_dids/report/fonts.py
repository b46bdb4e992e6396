"""Fonts for letters that matplotlib's own font lacks: Chinese, Japanese and Korean names use an installed font.

matplotlib draws a letter from the first of a text's families that has it. Each of our texts therefore gets the families
that its figure's letters need. The host's settings (`rcParams`) are read and never changed, not even for a moment,
because the web page draws in several threads.
"""

import functools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .words import in_language, language, t

logger = logging.getLogger(__name__)

BOX = "□"  # replaces a letter that no font has
# Fonts that come with systems or are commonly added. Fonts for all three languages come first.
FAMILIES = (
    *(f"Noto Sans CJK {place}" for place in ("SC", "TC", "HK", "JP", "KR")),
    *(f"Source Han Sans{place}" for place in ("", " SC", " CN", " TC", " K", " HW SC")),
    *("Noto Sans SC", "Noto Sans TC", "Noto Sans JP", "Noto Sans KR", "Arial Unicode MS", "Droid Sans Fallback"),
    *("WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Unifont"),
    *("Microsoft YaHei", "SimHei", "SimSun", "PingFang SC", "Hiragino Sans GB", "Heiti SC", "STHeiti", "Heiti TC"),
    *("Yu Gothic", "Meiryo", "MS Gothic", "Hiragino Sans", "IPAexGothic", "IPAGothic", "TakaoGothic"),
    *("Malgun Gothic", "Apple SD Gothic Neo", "AppleGothic", "NanumGothic", "UnDotum"),
)


def with_boxes(text: str) -> str:
    """The text with a box for each letter that no font here has. Such letters are logged once."""
    if text.isascii():
        return text
    drawn = "".join(letter if letter.isascii() or _family_of(letter) is not None else BOX for letter in text)
    if drawn != text:
        _tell_once(f"some names have letters that no font has which matplotlib knows: the pictures show {BOX} for them")
    return drawn


@contextmanager
def drawable_language() -> Iterator[None]:
    """Use English inside this context, and log it once, if no font here has the current language's letters."""
    wanted = language()
    letters = (letter for letter in t("training samples seen") if not letter.isascii())
    without = next((letter for letter in letters if _family_of(letter) is None), None)
    if without is not None:
        _tell_once(
            f"--lang {wanted}: no font that matplotlib knows has the letter {without}: the pictures are in English"
        )
    with in_language(wanted if without is None else "en"):
        yield


def use_fonts_for_letters(figure: Any) -> None:
    """Give all texts of a figure the additional font families that some of its letters need."""
    from matplotlib.text import Text

    texts = figure.findobj(Text)
    letters = sorted({letter for text in texts for letter in text.get_text() if not letter.isascii()})
    further = {family for letter in letters if (family := _family_of(letter))}
    if further:
        families = [*_own_families(), *(family for family in FAMILIES if family in further)]
        for text in texts:
            text.set_fontfamily(families)


def _family_of(letter: str) -> str | None:
    """'' if the host's own families have the letter, else the first of FAMILIES that has it, else None."""
    from matplotlib.font_manager import get_font_names

    if any(_has(family, letter) for family in _own_families()):
        return ""
    installed = set(get_font_names())
    return next((family for family in FAMILIES if family in installed and _has(family, letter)), None)


def _own_families() -> list[str]:
    from matplotlib.font_manager import FontProperties

    return list(FontProperties().get_family())


def _has(family: str, letter: str) -> bool:
    from matplotlib.font_manager import FontProperties, findfont, get_font

    return bool(get_font(findfont(FontProperties(family=[family]))).get_char_index(ord(letter)))


@functools.cache
def _tell_once(what: str) -> None:
    import matplotlib

    known = f"{matplotlib.get_cachedir()}/fontlist-*.json"
    remedy = (
        f"install a font such as Noto Sans CJK (Debian: fonts-noto-cjk), and delete {known}, matplotlib's list of them"
    )
    logger.warning("%s; %s", what, remedy)
