"""The report of a run in the page's language.

A run writes `report.html` in English, unless `llamafactory-dids report --lang` wrote it again. For another language of
the page with report texts, `report_LANG.html` is written beside it, and its pictures in `report_LANG_files/`.
"""

import os
import re
import threading
from pathlib import Path

from ...report.html import write_report
from ...report.page import files_beside
from ...report.words import LANGUAGES

REPORT = "report.html"
_LANGUAGE = re.compile(rb'<html lang="(\w+)"')
_writing = threading.Lock()  # the page serves several people at once


def report_in(folder: Path, lang: str) -> Path:
    """The path of the run's report in a language, or in English without texts in it. It is written if it is missing.

    An existing file is used if it has the time of its `report.html`. Raises DidsError if the run cannot be read, and
    OSError if its folder cannot be written to.
    """
    report, lang = folder / REPORT, lang if lang in LANGUAGES else "en"
    if _language_of(report) == lang:
        return report
    path, time = folder / f"report_{lang}.html", report.stat().st_mtime_ns
    with _writing:
        if not path.exists() or path.stat().st_mtime_ns != time:
            write_report(folder, path, lang)
            os.utime(path, ns=(time, time))
    return path


def pictures_of(report: Path) -> list[Path]:
    """The picture files of a report."""
    return sorted((report.parent if report.name == REPORT else files_beside(report)).glob("*.png"))


def _language_of(report: Path) -> str:
    with open(report, "rb") as stream:
        found = _LANGUAGE.search(stream.read(200))
    return found[1].decode() if found else "en"
