"""docs/errors.md explains messages that there are, and none that there is not."""

import ast
import re
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
PAGE = (CHECKOUT / "docs" / "errors.md").read_text(encoding="utf-8")
MESSAGE = r"^- `([^`]+)`$"  # an item of a list with nothing but a message, … for each part that is filled in


def template(node: ast.expr) -> str:
    """A message with … for each part that is filled in."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return re.sub("…+", "…", "".join(template(part) for part in node.values))
    return "…"


def raised(source: str) -> set[str]:
    """Templates of the errors that a module makes."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and node.args:
            name, parts = getattr(node.func, "id", ""), [template(part) for part in node.args]
            if name in ("DidsError", "ValueError"):
                found.add(parts[0])
            elif name == "refuse":
                found.add(f"{parts[0]}: got …, allowed: {parts[2]}")
    return found


def of_the_hosts_options() -> set[str]:
    """Templates of what the tables of the host's options refuse."""
    from llamafactory_dids.integration.arguments.host_options import TABLES, refused

    return {
        f"{entry.name}: got …, allowed with {entry.where.format(strategy='…', stage='…')}: {entry.allowed}"
        for table in TABLES.values()
        for entry in refused(table)
    }


def test_each_message_on_the_page_is_one_of_the_code():
    modules = (CHECKOUT / "llamafactory_dids").rglob("*.py")
    there_are = set().union(*(raised(path.read_text(encoding="utf-8")) for path in modules)) | of_the_hosts_options()
    explained = re.findall(MESSAGE, PAGE, flags=re.MULTILINE)
    assert len(explained) > 10
    assert [message for message in explained if message not in there_are] == []


def test_each_group_of_messages_has_words_after_it():
    blocks = [*re.split(r"\n\n+", PAGE), "# end"]
    for block, following in zip(blocks, blocks[1:], strict=False):
        if re.search(MESSAGE, block, flags=re.MULTILINE):
            assert not following.startswith(("#", "- `")), block
