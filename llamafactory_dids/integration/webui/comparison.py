"""Comparison of runs in the page: the known runs, their comparison, and a baseline for the present run."""

import html
from pathlib import Path
from typing import Any

from llamafactory.webui.common import DEFAULT_SAVE_DIR

from ...errors import DidsError
from ...report.html import find_run, write_comparison
from ...report.words import LANGUAGES
from ..errors import one_line
from .framing import framed
from .messages import in_words, warn
from .texts import say

BASELINE = "proportional"  # every sample is equally likely, as in a training without a mixture
FILE = "comparison.html"


def known_runs() -> list[str]:
    """Folders of runs below the page's `saves`, the newest first."""
    logs = [path for path in Path(DEFAULT_SAVE_DIR).glob("*/*/*/dids/mixture.jsonl") if path.is_file()]
    return [str(path.parent.parent) for path in sorted(logs, key=lambda path: -path.stat().st_mtime)]


def list_runs(chosen: list[str]) -> Any:
    """Offer the known runs, and keep the chosen ones."""
    import gradio as gr

    return gr.update(choices=list(dict.fromkeys([*known_runs(), *chosen])), value=chosen)


def compared(lang: str, folders: list[str]) -> str:
    """The comparison of two or more runs, in a frame; or a line that says what is wrong with them."""
    try:
        if len(folders) < 2:
            raise DidsError(say("choose_two", lang))
        runs = [find_run(Path(folder.strip()).expanduser()) for folder in folders]
        path, _ = write_comparison(runs, runs[0] / FILE, lang if lang in LANGUAGES else "en")
    except (DidsError, OSError, RuntimeError) as error:  # RuntimeError: `~name` of nobody
        said = in_words(one_line(error), lang)
        warn(said)
        return f"<p>{html.escape(said)}</p>"
    return framed(path, lang)


def baseline_values(values: dict[Any, Any], strategy: Any, domains: Any, output_dir: Any) -> dict[Any, Any]:
    """The page's values (by component) for the same run with `proportional`, in a folder beside its own."""
    folder = f"{str(values[output_dir]).rstrip('/')}_{BASELINE}"
    return {**values, strategy: BASELINE, domains: "source", output_dir: folder}
