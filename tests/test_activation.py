"""The finder of `llamafactory_dids_activate`, in processes of their own.

Each process sees the real module and two artificial packages: a `llamafactory` with a `train.tuner` and a
`webui.interface`, and a `llamafactory_dids` whose registration reports what it meets.
"""

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent

TUNER = """
LOADER_INSIDE = type(__loader__).__name__
def run_exp(): return "the host's"
"""

# It imports the tuner while that is being imported, which has to work: this is how it gets at what it
# rebinds.
REGISTRATION = """
calls = []
def register():
    from llamafactory.train import tuner
    calls.append(tuner.run_exp())
def register_page():
    from llamafactory.webui import interface
    calls.append(interface.create_ui())
"""

PAGE = """
def create_ui(): return "the page"
"""


@pytest.fixture
def sandbox(tmp_path):
    """A folder to be put on PYTHONPATH."""
    shutil.copy(CHECKOUT / "llamafactory_dids_activate.py", tmp_path)
    write_module(tmp_path, "llamafactory/train/tuner.py", TUNER)
    write_module(tmp_path, "llamafactory/webui/interface.py", PAGE)
    write_module(tmp_path, "llamafactory_dids/integration/registration.py", REGISTRATION)
    return tmp_path


def write_module(root, path, source):
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    for folder in list(file.relative_to(root).parents)[:-1]:
        (root / folder / "__init__.py").touch()
    file.write_text(source)


def run(sandbox, code, **environment):
    """Run `code` in a new process that sees `sandbox`; the words that it printed."""
    base = {k: v for k, v in os.environ.items() if k not in ("LLAMAFACTORY_DIDS", "PYTHONPATH")}
    process = subprocess.run(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(code)],
        env={**base, "PYTHONPATH": str(sandbox), **environment},
        cwd=sandbox,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout.split()


# An environment with the plugin installed has its `.pth` file, which ran before: undo that first.
PRELUDE = """
import sys
sys.meta_path[:] = [f for f in sys.meta_path if type(f).__name__ != "HostFinder"]
for name in [n for n in sys.modules if n.startswith("llamafactory")]:
    del sys.modules[name]
def num_finders(): return sum(type(f).__name__ == "HostFinder" for f in sys.meta_path)
"""


def test_importing_inserts_one_finder_however_often(sandbox):
    code = """
    import importlib
    import llamafactory_dids_activate as ours
    print(num_finders())
    importlib.reload(ours)
    del sys.modules["llamafactory_dids_activate"]
    import llamafactory_dids_activate as again
    again.activate()
    print(num_finders())
    """
    assert run(sandbox, code) == ["1", "1"]


def test_importing_loads_no_other_module(sandbox):
    code = """
    before = set(sys.modules)
    import llamafactory_dids_activate
    print(*(set(sys.modules) - before))
    """
    assert run(sandbox, code) == ["llamafactory_dids_activate"]


def test_plugin_is_registered_after_the_tuner_has_been_executed(sandbox):
    code = """
    import llamafactory_dids_activate
    import llamafactory.train
    assert not any(n.startswith("llamafactory_dids.") for n in sys.modules)
    import llamafactory.train.tuner
    from llamafactory_dids.integration import registration
    print(*registration.calls, num_finders())
    """
    assert run(sandbox, code) == ["the", "host's", "1"]


def test_page_is_registered_without_the_tuner_and_the_finder_goes_after_both(sandbox):
    code = """
    import llamafactory_dids_activate
    import llamafactory.webui.interface
    from llamafactory_dids.integration import registration
    print(*registration.calls, "llamafactory.train.tuner" in sys.modules, num_finders())
    import llamafactory.train.tuner
    print(len(registration.calls), num_finders())
    """
    assert run(sandbox, code) == ["the", "page", "False", "1", "2", "0"]


def test_switched_off_leaves_the_import_system_untouched(sandbox):
    code = """
    before = list(sys.meta_path)
    import llamafactory_dids_activate
    import llamafactory.train.tuner, llamafactory.webui.interface
    print(sys.meta_path == before, any(n.startswith("llamafactory_dids.") for n in sys.modules))
    """
    assert run(sandbox, code, LLAMAFACTORY_DIDS="0") == ["True", "False"]


@pytest.mark.parametrize("tuner_first", [True, False])
def test_explicit_activation_ignores_the_switch_and_the_order(sandbox, tuner_first):
    lines = ["import llamafactory_dids_activate as ours; ours.activate()", "import llamafactory.train.tuner"]
    code = "\n".join(reversed(lines) if tuner_first else lines)
    code += "\nfrom llamafactory_dids.integration.registration import calls\nprint(len(calls), num_finders())"
    assert run(sandbox, code, LLAMAFACTORY_DIDS="0") == ["1", "1"]


def test_failed_registration_surfaces_each_time_and_leaves_no_tuner_behind(sandbox):
    failing = "def register(): raise ValueError('no seam')"
    write_module(sandbox, "llamafactory_dids/integration/registration.py", failing)
    code = """
    import llamafactory_dids_activate
    for _ in range(2):
        try:
            import llamafactory.train.tuner
        except ValueError as error:
            print(str(error).replace(" ", "_"), "llamafactory.train.tuner" in sys.modules)
    """
    assert run(sandbox, code) == ["no_seam", "False"] * 2


def test_tuner_that_cannot_be_imported_says_why_itself(sandbox):
    write_module(sandbox, "llamafactory/train/tuner.py", "raise OSError('the-host')")
    code = """
    import llamafactory_dids_activate
    try:
        import llamafactory.train.tuner
    except OSError as error:
        print(error, "llamafactory_dids.integration.registration" in sys.modules)
    """
    assert run(sandbox, code) == ["the-host", "False"]


def test_missing_tuner_is_reported_as_python_would(sandbox):
    shutil.rmtree(sandbox / "llamafactory" / "train")
    write_module(sandbox, "llamafactory/train/other.py", "")
    code = """
    import llamafactory_dids_activate
    try:
        import llamafactory.train.tuner
    except ModuleNotFoundError as error:
        print(error.name)
    """
    assert run(sandbox, code) == ["llamafactory.train.tuner"]


def test_spec_and_loader_answer_as_the_originals(sandbox):
    code = """
    import importlib.util, os
    import llamafactory_dids_activate
    spec = importlib.util.find_spec("llamafactory.train.tuner")
    print(os.path.basename(spec.origin), os.path.basename(spec.loader.get_filename()))
    print("def run_exp" in spec.loader.get_source(spec.name), spec.loader.is_package(spec.name))
    """
    assert run(sandbox, code) == ["tuner.py", "tuner.py", "True", "False"]


def test_loaded_tuner_keeps_its_own_loader_and_can_be_reloaded(sandbox):
    code = """
    import importlib, inspect
    import llamafactory_dids_activate
    import llamafactory.train.tuner as tuner
    print(tuner.LOADER_INSIDE, type(tuner.__loader__).__name__, type(tuner.__spec__.loader).__name__)
    importlib.reload(tuner)
    print("def run_exp" in inspect.getsource(tuner), num_finders())
    """
    assert run(sandbox, code) == ["SourceFileLoader"] * 3 + ["True", "1"]


@pytest.mark.parametrize(
    ("raised", "switch", "said"),
    [
        ("keys are not used: ['dids_tasks']", "0", "error: LLAMAFACTORY_DIDS=0 turns the plugin off"),
        ("Unknown mixing strategy: dids.", "0", "error: LLAMAFACTORY_DIDS=0 turns the plugin off"),
        ("keys are not used: ['other']", "0", "Traceback"),
        ("keys are not used: ['dids_tasks']", "1", "Traceback"),
    ],
)
def test_switched_off_a_refusal_of_our_keys_is_one_line_that_names_the_switch(sandbox, raised, switch, said):
    write_module(sandbox, "llamafactory/hparams/__init__.py", "")
    code = PRELUDE + f"import llamafactory_dids_activate, llamafactory.hparams\nraise ValueError({raised!r})"
    variables = {**os.environ, "PYTHONPATH": str(sandbox), "LLAMAFACTORY_DIDS": switch}
    process = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, timeout=60)
    assert process.returncode == 1 and process.stderr.startswith(said)
    assert (len(process.stderr.splitlines()) == 1) == said.startswith("error")


def test_pth_file_is_the_import_of_the_module():
    assert (CHECKOUT / "llamafactory_dids.pth").read_text() == "import llamafactory_dids_activate\n"
