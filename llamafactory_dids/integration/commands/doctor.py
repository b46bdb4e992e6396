"""Checks of an installation, and the commands that mend it."""

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple

from ...errors import DidsError
from ..errors import one_line
from ..plan.provenance import versions

INSTALL_HOST = "pip install llamafactory==0.9.5"


class Finding(NamedTuple):
    """The result of one check. `mend` is the remedy if it failed, or a hint if it passed."""

    what: str
    ok: bool
    found: str
    mend: str = ""


def examine() -> list[Finding]:
    """Check Python, torch and its companions, LLaMA-Factory, its seams and options, activation, faiss and the GPU."""
    findings = [
        Finding("python", sys.version_info >= (3, 11), platform.python_version(), ""),
        Finding("versions", True, ", ".join(f"{name} {number}" for name, number in versions().items())),
        _torch(),
    ]
    if findings[-1].ok:
        findings += [_host(), _options(), _activation(), _faiss(), _gpu()]
    return findings


def _torch() -> Finding:
    try:
        import torch
        import torchaudio  # noqa: F401
        import torchvision  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:
        mend = "pip install 'torch>=2.8,<2.12' 'torchvision<0.27' 'torchaudio<2.11.1'"
        return Finding("torch, torchvision, torchaudio", False, f"{type(error).__name__}: {error}", mend)
    return Finding("torch, torchvision, torchaudio", True, f"{torch.__version__} works with its companions")


def _host() -> Finding:
    try:
        from llamafactory.extras.env import VERSION

        from .. import registration
    except (ImportError, DidsError) as error:
        return Finding("llamafactory", False, one_line(error), INSTALL_HOST)
    if missing := registration.missing_seams():
        return Finding("llamafactory seams", False, f"missing: {', '.join(missing)}", INSTALL_HOST)
    return Finding("llamafactory seams", True, f"{VERSION} has all {len(registration.SEAMS + registration.PAGE_SEAMS)}")


def _options() -> Finding:
    try:
        from ..arguments.host_options import TABLES, unknown_options
    except (ImportError, DidsError) as error:
        return Finding("llamafactory options", False, one_line(error), INSTALL_HOST)
    if unknown := unknown_options(TABLES):
        mend = "leave them at their defaults: no mixture was tried with them"
        return Finding("llamafactory options", True, f"not known here: {', '.join(unknown)}", mend)
    return Finding("llamafactory options", True, "all are known")


def _activation() -> Finding:
    if os.environ.get("LLAMAFACTORY_DIDS") == "0":
        return Finding("activation", False, "LLAMAFACTORY_DIDS=0", "unset LLAMAFACTORY_DIDS")
    try:
        version("llamafactory-dids")
    except PackageNotFoundError:
        return Finding("activation", False, "not installed", "pip install llamafactory-dids")
    if "llamafactory_dids_activate" not in sys.modules:
        mend = "pip install --force-reinstall --no-deps llamafactory-dids"
        return Finding("activation", False, "the .pth file did not run, so llamafactory-cli does not know us", mend)
    return Finding("activation", True, "llamafactory-cli knows the plugin")


def _faiss() -> Finding:
    try:
        import faiss
    except ImportError as error:
        linux = sys.platform == "linux" and platform.machine() == "x86_64"
        return Finding("faiss", False, str(error), f"pip install {'faiss-gpu' if linux else 'faiss-cpu'}")
    gpus = getattr(faiss, "get_num_gpus", lambda: 0)()
    return Finding("faiss", True, f"{faiss.__version__}, {gpus} GPUs")


def _gpu() -> Finding:
    import torch

    if (kind := torch.accelerator.current_accelerator(check_available=True)) is None:
        return Finding("GPU", True, "none", "training and clustering run on the CPU")
    name = getattr(torch.get_device_module(kind), "get_device_name", lambda _number: kind.type)
    return Finding("GPU", True, ", ".join(name(number) for number in range(torch.accelerator.device_count())))
