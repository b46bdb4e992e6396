"""The distribution's metadata, and the `.pth` file that makes LLaMA-Factory know the plugin.

LLaMA-Factory has no plugin entry point and starts itself anew (torchrun, LlamaBoard, Ray), so
`llamafactory_dids.pth` has to be in the root of site-packages, where every Python process reads it: see
`llamafactory_dids_activate.py`. Setuptools knows no such kind of file. Two commands are extended for it,
one for each way to build:

* `build_py` puts it beside the packages, whence it gets into every ordinary wheel;
* `editable_wheel` makes a wheel that only points to the checkout; the file is added to that wheel.

Either way it is listed in the wheel's RECORD, so pip removes it on uninstall.
"""

import base64
import hashlib
import re
import zipfile
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py
from setuptools.command.editable_wheel import editable_wheel

ROOT = Path(__file__).resolve().parent
PTH_FILE = "llamafactory_dids.pth"

LINUX_X86 = "sys_platform == 'linux' and platform_machine == 'x86_64'"
OTHER_PLATFORM = "sys_platform != 'linux' or platform_machine != 'x86_64'"

INSTALL_REQUIRES = [
    # The registry has 0.9.5, the main branch is 0.9.6.dev0. What the plugin rebinds is private to
    # LLaMA-Factory, so a later version has to be tried before it is let in.
    "llamafactory>=0.9.5,<0.9.7",
    # Before 2.8 `torch.bmm` cannot give fp32 from half precision (and before 2.6 there is no `torch.accelerator`).
    # LLaMA-Factory puts no upper bound on these three, nor torchaudio one on torch, and the newest of each do not fit
    # together: torch 2.15 is built for another CUDA than torchaudio 2.11, and torchaudio 2.11.1 asks for symbols that
    # torch 2.11 lacks. Either pair fails when LLaMA-Factory is imported.
    "torch>=2.8,<2.12",
    "torchvision<0.27",
    "torchaudio<2.11.1",
    # faiss-gpu also runs where there is no GPU, so it is the one dependency where it has wheels.
    f"faiss-gpu>=1.15,<1.16; {LINUX_X86}",
    f"faiss-cpu; {OTHER_PLATFORM}",
    # The versions of these are LLaMA-Factory's to choose.
    "jinja2",
    "matplotlib",
    "numpy",
    "pyarrow",
    "pyyaml",
    "safetensors",
    "scipy",
    "tqdm",
    "transformers",
    "xxhash",
]

# For `dids_cluster_features: semantic`.
SEMANTIC_REQUIRES = ["sentence-transformers"]

# For scripts/paper/score.py. Not among TEST_REQUIRES: it takes python-dateutil back below 3, which nothing else
# here asks for.
PAPER_REQUIRES = ["lm-eval[ifeval,math]>=0.4.13,<0.5"]

# For the site that mkdocs.yml describes.
DOCS_REQUIRES = ["mkdocs-material>=9.5,<10"]

TEST_REQUIRES = [
    *SEMANTIC_REQUIRES,
    *DOCS_REQUIRES,
    "hypothesis",
    # tests/stages/test_liger.py, by Triton's interpreter where there is no GPU.
    "liger-kernel>=0.8; sys_platform == 'linux'",
    "mypy",
    # tests/webui, in a Chromium that is there: it is skipped without.
    "playwright",
    "pytest",
    "pytest-xdist",
    "ruff",
    "scipy-stubs",
    "types-PyYAML",
    # tests/test_packaging.py builds wheels without fetching these anew.
    "setuptools>=77",
    "wheel",
]


class BuildPyWithPth(build_py):
    """`build_py` that also puts the `.pth` file into the root of what will be site-packages."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            self.copy_file(str(ROOT / PTH_FILE), self.build_lib)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        outputs = super().get_outputs(include_bytecode)
        return outputs if self.editable_mode else [*outputs, str(Path(self.build_lib) / PTH_FILE)]


class EditableWheelWithPth(editable_wheel):
    """`editable_wheel` that adds the `.pth` file to the wheel that it made."""

    def run(self) -> None:
        super().run()
        (wheel,) = Path(self.dist_dir).glob("*.whl")
        add_to_wheel(wheel, ROOT / PTH_FILE)


def add_to_wheel(wheel: Path, file: Path) -> None:
    """Write `file` into the root of `wheel`, and into its RECORD: all anew, as a zip replaces no member."""
    with zipfile.ZipFile(wheel) as archive:
        members = [(info, archive.read(info)) for info in archive.infolist()]
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(file.name, file.read_bytes())
        for info, content in members:
            if info.filename.endswith(".dist-info/RECORD"):
                content = record_line(file).encode() + content
            archive.writestr(info, content)


def record_line(file: Path) -> str:
    """A line of RECORD: name, hash in URL-safe base64 without its padding, size."""
    content = file.read_bytes()
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    return f"{file.name},sha256={digest},{len(content)}\n"


def read_version() -> str:
    """The version, read as text: importing the package would need what is only now to be installed."""
    source = (ROOT / "llamafactory_dids" / "__init__.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "(.+)"$', source, re.MULTILINE)
    if match is None:
        raise ValueError('llamafactory_dids/__init__.py has no line __version__ = "..."')
    return match.group(1)


setup(
    name="llamafactory-dids",
    version=read_version(),
    description="Domain Impact-aware Data Sampling (DIDS) for LLaMA-Factory",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    # With "." spelled out, an editable install is one path in a .pth; without it, setuptools writes an
    # import hook, for which every Python process of the environment would pay with several imports.
    package_dir={"": "."},
    packages=find_packages(include=["llamafactory_dids*"]),
    py_modules=["llamafactory_dids_activate"],
    package_data={"llamafactory_dids": ["py.typed", "report/templates/*", "integration/webui/texts.yaml"]},
    entry_points={
        "console_scripts": ["llamafactory-dids = llamafactory_dids.integration.commands.cli:main"],
        "llamafactory_dids.mixers": ["odm = llamafactory_dids.mixers.odm:odm"],
    },
    install_requires=INSTALL_REQUIRES,
    extras_require={
        "semantic": SEMANTIC_REQUIRES,
        "paper": PAPER_REQUIRES,
        "docs": DOCS_REQUIRES,
        "test": TEST_REQUIRES,
    },
    cmdclass={"build_py": BuildPyWithPth, "editable_wheel": EditableWheelWithPth},
)
