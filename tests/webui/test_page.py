"""The whole page as the host makes it, in processes of its own: with the plugin off, never there, and on."""

import json
import re
import sys

import pytest

from llamafactory_dids.integration.webui import fields
from tests.integration.support import finish_well, start

pytestmark = pytest.mark.integration

# Prints the page's components from top to bottom, with all that was said of each but its number.
PRINT = """
import json
from llamafactory.webui.interface import create_ui
page = create_ui().get_config_file()
known = {part["id"]: part for part in page["components"]}
def walk(node, depth):
    part = known.get(node["id"], {})
    props = {key: value for key, value in part.get("props", {}).items() if key not in ("_selectable", "server_fns")}
    yield depth, part.get("type"), json.dumps(props, sort_keys=True, default=str)
    for child in node.get("children", []):
        yield from walk(child, depth + 1)
print(json.dumps({"parts": list(walk(page["layout"], 0)), "events": len(page["dependencies"])}))
"""
# As if the plugin were not installed: its finder is gone before the host is imported.
WITHOUT = """
import sys
sys.meta_path[:] = [finder for finder in sys.meta_path if "llamafactory_dids" not in type(finder).__module__]
"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """What each process printed."""
    folder = tmp_path_factory.mktemp("page")  # the host writes a cache where it is started
    run = [sys.executable, "-c"]
    processes = {
        "never": start([*run, WITHOUT + PRINT], folder),
        "off": start([*run, PRINT], folder, LLAMAFACTORY_DIDS="0"),
        "on": start([*run, PRINT], folder),
    }
    outputs = {name: finish_well(process) for name, process in processes.items()}
    # the time, in the names of what the host would write, and where a function lies
    differs = re.compile(r"\d{4}-\d\d-\d\d-\d\d-\d\d-\d\d|0x[0-9a-f]+")
    return {name: json.loads(differs.sub("…", output.splitlines()[-1])) for name, output in outputs.items()}


def test_page_with_the_plugin_off_is_the_hosts_own(pages):
    assert pages["off"] == pages["never"]
    assert len(pages["never"]["parts"]) > 100


def test_page_with_the_plugin_on_has_the_hosts_components_in_their_places_as_they_were(pages):
    assert len(pages["on"]["parts"]) > len(pages["never"]["parts"]) + len(fields.FIRST)
    rest = iter(pages["on"]["parts"])  # `in` reads on to what it finds, so this asks for the same order too
    assert [part for part in pages["never"]["parts"] if part not in rest] == []
