"""For mkdocs: files of the repository outside docs/ are not on the site, so a link to one becomes its name alone.

tests/docs/test_links.py checks that they are there.
"""

import re
from typing import Any


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by mkdocs for each page."""
    return re.sub(r"\[([^\]\n]+)\]\(\.\./[^)\s]+\)", r"\1", markdown)
