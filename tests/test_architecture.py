"""The arrows between the packages, the sizes of the modules, and the layout in the README."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from llamafactory_dids import mixers

CHECKOUT = Path(__file__).resolve().parent.parent
PACKAGE = "llamafactory_dids"
MODULES = sorted((CHECKOUT / PACKAGE).rglob("*.py"))

# What each part may import besides itself; `config`, `errors`, `text` and the version anyone may.
BELOW = {
    "core": set(),
    "mixers": {"core"},
    "artifacts": {"core"},
    "stages": {"mixers", "artifacts", "core"},
    "training": {"stages", "mixers", "artifacts", "core"},
    "report": {"artifacts", "core"},  # the fitted decay of a loss is drawn
    "integration": {"training", "stages", "mixers", "artifacts", "core", "report"},
    "__main__": {"integration"},
    "__init__": set(),
    "config": set(),
    "errors": set(),
    "text": set(),
}
LEAVES = {"config", "errors", "text", "__version__"}
KNOW = {"llamafactory": {"integration"}, "transformers": {"training", "integration"}}


# The rooms of `integration/`, each with those that it may import besides itself; `errors` any may.
ROOMS = {
    "errors": set(),
    "strategy": set(),
    "settings": {"strategy"},
    "host": {"settings", "strategy"},
    "data": {"host", "settings", "strategy"},
    "domains": {"data", "host", "settings", "strategy"},
    "plan": {"domains", "data", "host", "settings", "strategy"},
    "arguments": {"plan", "domains", "data", "host", "settings", "strategy"},
    "webui": {"arguments", "settings", "strategy"},
    "registration": {"webui", "arguments", "plan", "data", "host"},
    "commands": {"registration", "arguments", "plan", "domains", "data", "host", "settings", "strategy"},
}


def part_of(path: Path) -> str:
    """The sub-package that a module is in, or its own name at the top."""
    return path.relative_to(CHECKOUT / PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path, source: str | None = None) -> list[str]:
    """Dotted names of all that a module imports, wherever in it; `from a import b` gives a.b."""
    found = []
    for node in ast.walk(ast.parse(path.read_text() if source is None else source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            here = path.relative_to(CHECKOUT).with_suffix("").parts
            base = [*here[: -node.level]] if node.level else []
            base += (node.module or "").split(".") if node.module else []
            found += [".".join([*base, alias.name]) for alias in node.names]
    return found


def wrong_arrows(path: Path, source: str | None = None) -> list[str]:
    part, wrong = part_of(path), []
    allowed = BELOW[part] | LEAVES | {part}
    for name in imported(path, source):
        top, _, rest = name.partition(".")
        if top == PACKAGE and rest.split(".")[0] not in allowed:
            wrong.append(name)
        if part not in KNOW.get(top, {part}):
            wrong.append(name)
    return wrong


def test_the_walk_finds_the_package():
    assert {part_of(path) for path in MODULES} == BELOW.keys()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_every_arrow_points_down(path):
    assert wrong_arrows(path) == []


@pytest.mark.parametrize(
    ("place", "source"),
    [
        ("core/a.py", "from .. import artifacts"),
        ("artifacts/a.py", "def f():\n    from ..mixers.base import Mixer"),
        ("stages/a.py", "import transformers"),
        ("training/a.py", "from llamafactory.train import tuner"),
        ("training/a.py", "import llamafactory_dids.integration.data.tags"),
        ("config.py", "from .core import fisher"),
    ],
)
def test_an_arrow_that_points_up_is_seen(place, source):
    assert wrong_arrows(CHECKOUT / PACKAGE / place, source)


INTEGRATION = [path for path in MODULES if part_of(path) == "integration"]


def room_of(path: Path) -> str:
    """The folder or module of `integration/` that a module is in."""
    return path.relative_to(CHECKOUT / PACKAGE / "integration").parts[0].removesuffix(".py")


def wrong_doors(path: Path, source: str | None = None) -> list[str]:
    """Imports of a room of `integration/` from one that lies below it; those for type checkers count too."""
    room = room_of(path)
    inside = [name.split(".")[2] for name in imported(path, source) if name.startswith(f"{PACKAGE}.integration.")]
    return [name for name in inside if name not in ROOMS[room] | {room, "errors"}]


def test_integration_has_its_rooms_and_nothing_else_at_its_top():
    assert {room_of(path) for path in INTEGRATION} - {"__init__"} == ROOMS.keys()
    files = {path.name for path in INTEGRATION if path.parent.name == "integration"}
    assert files == {"__init__.py", "registration.py", "settings.py", "strategy.py", "errors.py"}


@pytest.mark.parametrize(
    "path", [p for p in INTEGRATION if p.name != "__init__.py"], ids=lambda path: str(path.relative_to(CHECKOUT))
)
def test_every_arrow_between_the_rooms_points_down(path):
    assert wrong_doors(path) == []


@pytest.mark.parametrize(
    ("place", "source"),
    [
        ("domains/a.py", "if TYPE_CHECKING:\n    from ..plan.rows import rows_with_domains"),
        ("settings.py", "from .host import sharding"),
    ],
)
def test_an_arrow_up_between_the_rooms_is_seen(place, source):
    assert wrong_doors(CHECKOUT / PACKAGE / "integration" / place, source)


def in_circles(arrows: dict[str, set[str]]) -> set[str]:
    """The nodes that lead back to themselves, and those between them: what is left when each dead end is taken away."""
    while ends := {name for name, targets in arrows.items() if not targets & arrows.keys()}:
        arrows = {name: targets for name, targets in arrows.items() if name not in ends}
    return set(arrows)


def test_no_modules_import_each_other_in_a_circle():
    """Wherever in a module the import stands, those for type checkers too."""
    modules = {".".join(path.relative_to(CHECKOUT).with_suffix("").parts): path for path in MODULES}
    arrows = {}
    for name, path in modules.items():
        targets = {target for found in imported(path) for target in (found, found.rpartition(".")[0])}
        arrows[name] = targets & modules.keys() - {name}
    assert in_circles(arrows) == set()


def test_a_circle_is_seen():
    assert in_circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) >= {"b", "c"}


def branches_on_a_name(source: str) -> list[int]:
    """Lines that compare with, look up by, or match a strategy's name."""
    found = []
    for node in ast.walk(ast.parse(source)):
        tested: list[ast.AST] = []
        if isinstance(node, ast.Compare):
            tested = [node.left, *node.comparators]
        elif isinstance(node, ast.Dict):
            tested = [key for key in node.keys if key is not None]
        elif isinstance(node, ast.match_case):
            tested = [node.pattern]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "startswith":
            tested = list(node.args)
        constants = [part for child in tested for part in ast.walk(child) if isinstance(part, ast.Constant)]
        found += [node.lineno if hasattr(node, "lineno") else 0 for c in constants if c.value in mixers.names()]
    return found


@pytest.mark.parametrize(
    "path", [p for p in MODULES if part_of(p) != "mixers"], ids=lambda path: str(path.relative_to(CHECKOUT))
)
def test_no_module_outside_the_mixers_branches_on_a_strategys_name(path):
    assert branches_on_a_name(path.read_text()) == []


@pytest.mark.parametrize(
    "source",
    [
        'if strategy == "doge": pass',
        'if strategy in ("dga", "doge"): pass',
        'make = {"doremi": 1}[strategy]',
        'if strategy.startswith("dids"): pass',
        'match strategy:\n    case "static": pass',
    ],
)
def test_a_branch_on_a_strategys_name_is_seen(source):
    assert branches_on_a_name(source)


BELOW_US = {"llamafactory", "transformers", "trl", "peft", "accelerate", "datasets", "torch"}


def rebound_names(source: str) -> list[str]:
    """Attributes of what was imported from the host, or of a library below it, that are assigned to or set."""
    tree = ast.parse(source)
    foreign = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            foreign |= {(a.asname or a.name).split(".")[0] for a in node.names if a.name.split(".")[0] in BELOW_US}
        elif isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").split(".")[0] in BELOW_US:
            foreign |= {alias.asname or alias.name for alias in node.names}
    found = []
    for node in ast.walk(tree):
        targets: list[ast.AST] = []
        if isinstance(node, ast.Assign):
            targets = [part for target in node.targets for part in ast.walk(target) if isinstance(part, ast.Attribute)]
        elif isinstance(node, ast.AugAssign | ast.AnnAssign | ast.Delete):
            targets = [part for part in ast.walk(node) if isinstance(getattr(part, "ctx", None), ast.Store | ast.Del)]
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("setattr", "delattr"):
            targets = [ast.Attribute(node.args[0], "set")]
        for target in targets:
            while isinstance(target, ast.Attribute):
                target = target.value
                if isinstance(target, ast.Name) and target.id in foreign:
                    found.append(target.id)
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_nothing_of_the_host_is_rebound_but_by_the_list_of_seams(path):
    """`registration.py` sets what its list names, on what `importlib` gave it."""
    assert rebound_names(path.read_text()) == []
    assert ("setattr(owner, name, seam.wrap(" in path.read_text()) == (path.name == "registration.py")


@pytest.mark.parametrize(
    "source",
    [
        "from transformers import Trainer\nTrainer.train = None",
        "import llamafactory.train.tuner\nllamafactory.train.tuner.run_exp = None",
        "def f():\n    from llamafactory.train import tuner\n    setattr(tuner, 'run_exp', None)",
        "from trl import DPOTrainer as D\na, D.loss = 1, 2",
        "import torch\ndel torch.load",
    ],
)
def test_a_rebinding_is_seen(source):
    assert rebound_names(source)


def test_half_of_the_modules_have_at_most_120_lines():
    sizes = sorted(len(path.read_text().splitlines()) for path in MODULES if path.name != "__init__.py")
    assert sizes[len(sizes) // 2] <= 120


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_no_module_is_over_250_lines(path):
    assert len(path.read_text().splitlines()) <= 250


IMPORT_ALL = """
import importlib, pkgutil, sys
blocked, parts = sys.argv[1].split(","), sys.argv[2].split(",")
for name in [n for n in sys.modules if n.split(".")[0] in blocked]:
    del sys.modules[name]
sys.modules.update(dict.fromkeys(blocked))  # None: the import fails
for part in parts:
    package = importlib.import_module("llamafactory_dids." + part)
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
        print(module.name)
"""
HEAVY = "transformers,datasets,faiss,matplotlib,llamafactory,peft,accelerate,gradio"


@pytest.mark.parametrize(
    ("blocked", "parts"),
    [(HEAVY, "core,mixers,artifacts,stages"), (f"{HEAVY},torch,pyarrow", "mixers"), (f"{HEAVY},torch", "report")],
    ids=["core, mixers, artifacts and stages", "mixers without torch", "report"],
)
def test_it_can_be_imported_where_heavy_libraries_cannot(blocked, parts):
    process = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, blocked, parts], cwd=CHECKOUT, capture_output=True, text=True, timeout=120
    )
    assert process.returncode == 0, process.stderr[-2000:]
    here = [path for path in MODULES if part_of(path) in parts.split(",") and path.name != "__init__.py"]
    assert len(process.stdout.split()) == len(here)


def test_the_readmes_layout_names_what_exists():
    blocks = re.findall(r"^```[^\n]*\n(.*?)^```", (CHECKOUT / "README.md").read_text(), flags=re.DOTALL | re.MULTILINE)
    (layout,) = [block for block in blocks if block.startswith(f"{PACKAGE}/")]
    paths = re.findall(r"^(\S+/)\s", layout, flags=re.MULTILINE)
    assert len(paths) > 5 and [path for path in paths if not (CHECKOUT / path).is_dir()] == []
