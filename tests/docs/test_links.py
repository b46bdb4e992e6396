"""Links between the pages lead somewhere, in the repository and on the site that mkdocs makes of docs/."""

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from scripts import docs_hook

CHECKOUT = Path(__file__).resolve().parents[2]
DOCS = CHECKOUT / "docs"
PAGES = [*sorted(CHECKOUT.glob("*.md")), *sorted(DOCS.rglob("*.md")), *sorted((CHECKOUT / "examples").rglob("*.md"))]


def links(text: str) -> list[str]:
    """Targets of the links of a page, code left out."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"``[^\n]+?``|`[^`\n]*`", "code", text)
    return re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", text)


def anchors(text: str) -> set[str]:
    """What a heading is called in an address: as GitHub and mkdocs both make it for plain headings."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    heads = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def broken(page: Path, text: str) -> list[str]:
    found = []
    for link in links(text):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        lost = not target.exists() or not target.is_relative_to(CHECKOUT)
        if lost or anchor and anchor not in anchors(target.read_text(encoding="utf-8")):
            found.append(link)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_each_link_leads_to_a_file_and_heading_that_there_is(page):
    assert broken(page, page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("link", ["nowhere.md", "method.md#no-such-heading", "../../outside.md", "#nothing"])
def test_a_link_that_leads_nowhere_is_found(link):
    assert broken(DOCS / "index.md", f"see [this]({link})") == [link]


@pytest.mark.parametrize("text", ["`[a](b.md)`", "```\n[a](b.md)\n```", "[a](method.md#3-impact)", "[a](https://b.c)"])
def test_links_that_are_good_or_none_are_not(text):
    assert broken(DOCS / "index.md", text) == []


def pages_of(nav) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    return [page for item in (nav.values() if isinstance(nav, dict) else nav) for page in pages_of(item)]


def test_the_sites_contents_list_each_page_of_docs_once():
    nav = yaml.safe_load((CHECKOUT / "mkdocs.yml").read_text())["nav"]
    assert sorted(pages_of(nav)) == sorted(path.name for path in DOCS.glob("*.md"))


def test_a_link_out_of_docs_is_a_name_on_the_site():
    text = "[`x.yaml`](../examples/x.yaml) and [log](log.md)"
    assert docs_hook.on_page_markdown(text, page=None) == "`x.yaml` and [log](log.md)"


def test_the_sites_home_is_the_readme_with_links_as_from_docs():
    home = docs_hook.home((CHECKOUT / "README.md").read_text(encoding="utf-8"))
    assert broken(DOCS / "index.md", home) == [] and "](images/results.svg)" in home
    page = SimpleNamespace(file=SimpleNamespace(src_uri="index.md"))
    shown = docs_hook.on_page_markdown("", page=page)
    assert "# llamafactory-dids" in shown and "](../" not in shown


def test_mkdocs_builds_the_site_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs", reason="mkdocs is not installed: pip install '.[docs]'")
    pytest.importorskip("material", reason="mkdocs-material is not installed: pip install '.[docs]'")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    process = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stderr[-3000:]
    assert (tmp_path / "site" / "errors" / "index.html").exists()
