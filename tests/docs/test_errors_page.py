"""docs/errors.md explains each message that a user can meet, and none that there is not."""

import ast
import re
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
PACKAGE = CHECKOUT / "llamafactory_dids"
PAGE = CHECKOUT / "docs" / "errors.md"
# A ValueError of these is turned into a DidsError or shown as it is; elsewhere it is an error of ours, not of the user.
SHOWN_VALUE_ERRORS = {"mixers"}
OF_A_TABLE = "…: got …, allowed with …: …"  # its refusals stand on the page one by one
OF_OUR_OWN = ("sizes_D", "task_samples_TD", "got … domains")


def template(node: ast.expr) -> str:
    """A message with … for each part that is filled in."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return re.sub("…+", "…", "".join(template(part) for part in node.values))
    return "…"


def messages(path: Path, source: str) -> set[str]:
    """Templates of all messages for users that a module can raise."""
    found, tree = set(), ast.parse(source)
    helpers = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "need"]
    calls = [node for helper in helpers for node in ast.walk(helper) if isinstance(node, ast.Call) and node.args]
    # what a module's own `need(key, value, ok, allowed)` raises
    need = next((template(c.args[0]) for c in calls if getattr(c.func, "id", "") == "DidsError"), "…: got …, …")
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        name, parts = getattr(node.func, "id", ""), [template(part) for part in node.args]
        if name == "DidsError" or name == "ValueError" and path.parts[0] in SHOWN_VALUE_ERRORS:
            found.add(parts[0])
        elif name == "refuse" and len(parts) == 3:
            found.add(f"{parts[0]}: got …, allowed: {parts[2]}")
        elif name == "need":
            found.add(re.sub("…+", "…", parts[0] + need[1:-1] + parts[3]))
    return {text for text in found if text.strip("… :") and not text.startswith(OF_OUR_OWN)}


def refusals() -> set[str]:
    """Templates of what the tables of the host's options refuse."""
    from llamafactory_dids.integration.arguments.host_options import TABLES, refused

    return {
        f"{entry.name}: got …, allowed with {entry.where.format(strategy='…', stage='…')}: {entry.allowed}"
        for table in TABLES.values()
        for entry in refused(table)
    }


def all_messages() -> set[str]:
    paths = sorted(PACKAGE.rglob("*.py"))
    found = set().union(*(messages(path.relative_to(PACKAGE), path.read_text()) for path in paths))
    return found - {OF_A_TABLE} | refusals()


def explained(page: str) -> list[str]:
    """The messages on the page: a list item each, in code. ``…`` for those that have backticks of their own."""
    found = re.findall(r"^- (?:`` (.+) ``|`([^`]+)`)$", page, flags=re.MULTILINE)
    return [double or single for double, single in found]


def test_every_message_that_a_user_can_meet_is_explained():
    assert sorted(all_messages() - set(explained(PAGE.read_text(encoding="utf-8")))) == []


def test_no_message_is_explained_that_there_is_not():
    assert sorted(set(explained(PAGE.read_text(encoding="utf-8"))) - all_messages()) == []


def test_each_group_of_messages_has_words_after_it():
    blocks = re.split(r"\n\n+", PAGE.read_text(encoding="utf-8"))
    for block, following in zip(blocks, [*blocks[1:], "# end"], strict=True):
        if explained(block):
            assert not following.startswith(("#", "- `")), block


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ('raise DidsError(f"{a}: got {b}, allowed: c")', "…: got …, allowed: c"),
        ('raise refuse("key", value, f"at most {n}")', "key: got …, allowed: at most …"),
        ('need("fsdp", x, not x, "none")', "fsdp: got …, none"),
    ],
)
def test_messages_are_found_in_the_source(source, message):
    assert messages(Path("integration/a.py"), source) == {message}
    assert messages(Path("core/a.py"), 'raise ValueError("x")') == set()
