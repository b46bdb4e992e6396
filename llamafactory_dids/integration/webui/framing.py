"""A page of ours in a sandboxed frame."""

import html
from pathlib import Path

from .texts import say

OPEN = (
    "const page = this.closest('.dids-report').querySelector('iframe').srcdoc;"
    "window.open(window.URL.createObjectURL(new Blob([page], {type: 'text/html'})), '_blank', 'noopener'); return false"
)
# The report is dark where the page is, now and after: browsers do not tell a frame.
TELL_THEME = (
    "const tell = () => this.contentWindow?.postMessage("
    "{theme: document.body.classList.contains('dark') ? 'dark' : 'light'}, '*');"
    "tell(); new MutationObserver(tell).observe(document.body, {attributeFilter: ['class']})"
)


def framed(path: Path, lang: str) -> str:
    """The page at `path` in a frame, with a link that opens it in a tab, and with its path."""
    page = html.escape(path.read_text(encoding="utf-8"))
    link = f'<a href="#" onclick="{html.escape(OPEN)}">{html.escape(say("open_report", lang))}</a>'
    tell = html.escape(TELL_THEME)
    frame = f'<iframe sandbox="allow-scripts allow-downloads" srcdoc="{page}" onload="{tell}"></iframe>'
    where = f"<code>{html.escape(str(path))}</code>"
    return f'<div class="dids-report"><p>{link} · {where}</p>{frame}</div>'
