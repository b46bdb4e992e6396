"""docs/guide-mixer.md lists what a mixer can ask for: all of it, and nothing else."""

import dataclasses
import re
from pathlib import Path

from llamafactory_dids.mixers import Needs

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "guide-mixer.md").read_text(encoding="utf-8")


def test_the_table_of_needs_has_each_of_them():
    head, *rows = re.findall(r"^\| `(\w+)(?:=[^`]*)?` \|", PAGE, flags=re.MULTILINE)
    assert head == "needs" and sorted(rows) == sorted(field.name for field in dataclasses.fields(Needs))
