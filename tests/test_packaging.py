"""What an install puts into an environment, what it does there, and that it goes again.

Each test has a virtual environment of its own, which sees the packages of this one through a path in a `.pth`
file. Python does not read the `.pth` files at such a path, so an install of the plugin there stays inactive.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

CHECKOUT = Path(__file__).resolve().parent.parent
NAME = "llamafactory_dids"
HAS_FINDER = "import sys; print([type(f).__name__ for f in sys.meta_path].count('HostFinder'))"
IMPORT_TUNER = """
import sys
import llamafactory.train.tuner
print("llamafactory_dids.integration.registration" in sys.modules)
"""


class Environment:
    """A virtual environment, and its Python."""

    def __init__(self, folder):
        venv.create(folder, symlinks=True)
        self.folder = folder
        (self.site_packages,) = folder.glob("lib/python*/site-packages")
        ours = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
        (self.site_packages / "zz_parent.pth").write_text("\n".join(sorted(ours)) + "\n")

    def python(self, *arguments, **environment):
        """What it prints; its stderr as well when it fails."""
        inherited = {k: v for k, v in os.environ.items() if k not in ("LLAMAFACTORY_DIDS", "PYTHONPATH")}
        process = subprocess.run(
            [self.folder / "bin" / "python", *arguments],
            env={**inherited, **environment},
            cwd=self.folder,
            capture_output=True,
            text=True,
        )
        assert process.returncode == 0, process.stdout + process.stderr
        return process

    def pip(self, *arguments):
        return self.python("-m", "pip", "--disable-pip-version-check", *arguments)

    def install(self, *what):
        # This environment's own install is visible and would otherwise count as installed.
        self.pip("install", "--ignore-installed", "--no-deps", "--no-build-isolation", *what)

    def printed(self, code, **environment):
        return self.python("-c", code, **environment).stdout.split()[-1]

    def files_of_ours(self):
        folders = (self.site_packages, self.folder / "bin")
        names = [path.name for folder in folders for path in folder.rglob("*")]
        return sorted(name for name in names if NAME in name.replace("-", "_"))


@pytest.fixture
def environment(tmp_path):
    return Environment(tmp_path / "venv")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of what a build needs: building leaves files behind, and takes old ones that it finds."""
    copy = tmp_path_factory.mktemp("checkout")
    for path in CHECKOUT.iterdir():
        if path.is_file():
            shutil.copy(path, copy)
    shutil.copytree(CHECKOUT / NAME, copy / NAME, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


@pytest.fixture(scope="module")
def wheel(checkout, tmp_path_factory):
    """The wheel of the source distribution of the checkout, so that both are known to be whole."""
    folder = tmp_path_factory.mktemp("dist")
    call(sys.executable, "setup.py", "--quiet", "sdist", "--dist-dir", folder, cwd=checkout)
    (sdist,) = folder.glob("*.tar.gz")
    options = ["--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--wheel-dir", folder]
    call(sys.executable, "-m", "pip", "wheel", "--quiet", *options, sdist, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    return wheel


def call(*command, cwd):
    process = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert process.returncode == 0, process.stdout + process.stderr


def test_wheel_holds_every_file_of_the_package_and_nothing_else(checkout, wheel):
    packaged = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    files = {path.relative_to(checkout).as_posix() for path in (checkout / NAME).rglob("*") if path.is_file()}
    assert packaged == files | {f"{NAME}.pth", f"{NAME}_activate.py"}


def test_installed_wheel_registers_the_plugin_and_uninstalls_clean(environment, wheel):
    environment.install(wheel)
    assert environment.printed(HAS_FINDER) == "1"
    assert environment.printed(HAS_FINDER, LLAMAFACTORY_DIDS="0") == "0"
    assert environment.printed(IMPORT_TUNER) == "True"
    assert environment.printed(IMPORT_TUNER, LLAMAFACTORY_DIDS="0") == "False"
    environment.pip("uninstall", "--yes", NAME)
    assert environment.files_of_ours() == []
    assert environment.python("-c", "pass").stderr == ""


@pytest.mark.parametrize("mode", ["lenient", "strict"])
def test_editable_install_activates_and_uninstalls_clean(environment, checkout, mode):
    environment.install("--config-settings", f"editable_mode={mode}", "--editable", checkout)
    assert environment.printed(HAS_FINDER) == "1"
    where = Path(environment.printed(f"import {NAME}; print({NAME}.__file__)"))
    assert where.is_relative_to(checkout)
    environment.pip("uninstall", "--yes", NAME)
    assert environment.files_of_ours() == []
    assert environment.python("-c", "pass").stderr == ""
