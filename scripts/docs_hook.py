"""For mkdocs: the site's home is the README, and links to files outside docs/ become their names.

tests/docs/test_links.py checks that the files are there.
"""

import re
from pathlib import Path
from typing import Any

README = Path(__file__).resolve().parent.parent / "README.md"


def on_page_markdown(markdown: str, page: Any = None, **_: Any) -> str:
    """Called by mkdocs for each page."""
    if page is not None and page.file.src_uri == "index.md":
        markdown = home(README.read_text(encoding="utf-8"))
    return re.sub(r"\[([^\]\n]+)\]\(\.\./[^)\s]+\)", r"\1", markdown)


def home(readme: str) -> str:
    """The README as a page of docs/: what is there is beside it, and all else is above."""
    return re.sub(r"\]\((?!https?:|#)([^)\s]+)\)", lambda match: f"]({_from_docs(match[1])})", readme)


def _from_docs(target: str) -> str:
    return target.removeprefix("docs/") if target.startswith("docs/") else f"../{target}"
