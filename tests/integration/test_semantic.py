"""Domains of sentence embeddings: the texts alone are read, by an encoder made on the spot."""

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, BertConfig, BertModel

from llamafactory_dids.artifacts.gradient_store import open_store
from llamafactory_dids.stages.cluster import StoredFeatures
from tests.integration import pictures
from tests.integration.support import arguments, module_of, our_log, refusal, tuner

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        importlib.util.find_spec("sentence_transformers") is None, reason="sentence-transformers is not installed"
    ),
]

DIM = 16


@pytest.fixture(scope="module")
def encoder(world, tmp_path_factory):
    """The folder of a sentence encoder: a tiny BERT with random weights, its tokens averaged."""
    from sentence_transformers import SentenceTransformer

    folder = tmp_path_factory.mktemp("encoder")
    tokenizer = AutoTokenizer.from_pretrained(world.model)
    tokenizer.save_pretrained(folder / "bert")
    torch.manual_seed(0)
    sizes = {"hidden_size": DIM, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, pad_token_id=0, **sizes)
    BertModel(config).save_pretrained(folder / "bert")
    whole = SentenceTransformer(str(folder / "bert"), device="cpu")  # of what is no sentence encoder it averages tokens
    whole.max_seq_length = 48
    whole.save(str(folder / "whole"))
    return folder / "whole"


def semantic(world, folder, encoder, **changes):
    """Arguments with a proxy that nothing may load."""
    proxy = {"dids_proxy_model": "/no/such/proxy", "dids_projection_dim": None, "dids_init": "uniform"}
    values = {"dids_cluster_features": "semantic", "dids_semantic_model": str(encoder), **proxy}
    return arguments(world, folder, **values | changes)


@pytest.fixture(scope="module")
def made(world, encoder, tmp_path_factory):
    """The arguments and the plan of a run whose domains were made without any language model."""
    values = semantic(world, tmp_path_factory.mktemp("made"), encoder)
    tuner()
    from llamafactory_dids.integration.domains import proxy

    with pytest.MonkeyPatch.context() as patched:
        patched.delattr(proxy, "load_model")
        patched.delattr(proxy, "load_tokenizer")
        return values, module_of(values)[0]["mixing"]


def store_of(values):
    (path,) = (_cache(values) / "embeddings").iterdir()
    manifest = json.loads((path / "manifest.json").read_text())
    return open_store(path, manifest["inputs"], manifest["num_rows"], manifest["dim"])


def _cache(values):
    return Path(values["dids_cache_dir"])


def test_domains_are_made_without_a_proxy_or_its_tokenizer(made):
    plan = made[1]
    assert len(plan.domain_names) == 6 and plan.domain_map.inputs["dids_cluster_features"] == "semantic"
    assert not (_cache(made[0]) / "gradients").exists()


def test_each_row_is_the_encoders_embedding_of_prompt_and_response(made, world, encoder):
    from sentence_transformers import SentenceTransformer

    values, plan = made
    features = StoredFeatures(store_of(values), normalize=False)
    features_NK = features(np.arange(270))
    assert features_NK.shape == (270, DIM) and features.written_N.all()
    texts = []
    for source in ("sums", "pairs", "noise"):
        for row in json.loads((world.data / f"{source}.json").read_text()):
            prompt = f"{row['instruction']}\n{row['input']}" if row["input"] else row["instruction"]
            texts.append(f"{prompt}\n{row['output']}")
    assert plan.domain_map.sources_N.to_pylist() == ["sums"] * 120 + ["pairs"] * 90 + ["noise"] * 60
    expected_NK = SentenceTransformer(str(encoder), device="cpu").encode(texts, show_progress_bar=False)
    np.testing.assert_allclose(features_NK, expected_NK, atol=2e-3)


def test_other_clusters_are_made_of_the_same_embeddings(made, tmp_path):
    tuner()
    from llamafactory_dids.integration.domains import features

    values, _ = made
    with pytest.MonkeyPatch.context() as patched:
        patched.delattr(features, "fill_store")
        plan = module_of(values | {"dids_num_domains": 3, "dids_cluster_scope": "global"})[0]["mixing"]
    largest = [max(domain["sources"].values()) for domain in plan.domain_map.describe()]
    assert len(largest) == 3 and sum(largest) > 0.9 * 270, "texts of a kind come together"


def test_cached_map_is_used_without_the_encoder(made):
    tuner()
    from llamafactory_dids.integration.domains import encoder

    values, plan = made
    with pytest.MonkeyPatch.context() as patched:
        patched.delattr(encoder, "load")
        again = module_of(values)[0]["mixing"]
    assert again.domain_map.lookup() == plan.domain_map.lookup()


def test_packed_rows_get_the_same_domains(made):
    with our_log() as messages:
        packed = module_of(made[0] | {"packing": True})[0]["mixing"]
    assert any(message.startswith("domains: using ") for message in messages)
    assert packed.domain_map.lookup() == made[1].domain_map.lookup()


def test_another_encoder_makes_other_embeddings(made, encoder, tmp_path):
    tuner()
    from llamafactory_dids.integration.domains import encoder as ours

    shutil.copytree(encoder, tmp_path / "whole")
    values = made[0] | {"dids_semantic_model": str(tmp_path / "whole")}
    assert _identity(ours, values) == made[1].domain_map.inputs["embeddings"]["encoder"]
    (pooling,) = (path for path in (tmp_path / "whole").glob("*Pooling/config.json"))
    pooling.write_text(pooling.read_text() + " ")
    assert _identity(ours, values) != made[1].domain_map.inputs["embeddings"]["encoder"]


def _identity(ours, values):
    model_args, data_args, *_ = tuner().get_train_args(values)
    return ours.identity(data_args.mixing, model_args)


def test_missing_library_is_told_before_a_model_is_loaded(world, encoder, no_model, tmp_path):
    find_spec = importlib.util.find_spec
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            importlib.util, "find_spec", lambda name: None if name == "sentence_transformers" else find_spec(name)
        )
        message = refusal(semantic(world, tmp_path, encoder))
    assert message.startswith("dids_cluster_features: got 'semantic'") and "pip install sentence-trans" in message


@pytest.mark.parametrize("kind", ["not_a_model", "hub_name"])
def test_encoder_that_is_none_is_told_before_a_model_is_loaded(kind, world, no_model, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    name = {"not_a_model": str(world.data), "hub_name": "nobody/nothing"}[kind]
    message = refusal(semantic(world, tmp_path, name))
    assert message.startswith(f"dids_semantic_model: got {name!r}, allowed: a model's folder")


def test_broken_encoder_is_told_by_its_key(world, encoder, no_model, tmp_path):
    shutil.copytree(encoder, tmp_path / "broken")
    (tmp_path / "broken" / "modules.json").write_text("[")
    message = refusal(semantic(world, tmp_path, tmp_path / "broken"))
    assert message.startswith("dids_semantic_model: got ") and "a sentence-transformers model (" in message


def test_pictures_do_not_enter_and_the_log_says_so(world, encoder, tmp_path):
    pictures.build_model(tmp_path / "model")
    pictures.write_paths(tmp_path / "data", "pics", pictures.rows(12))
    names = {"dataset": "pics", "dids_tasks": "pics", "template": "qwen2_vl", "dids_num_domains": 2}
    where = {"model_name_or_path": str(tmp_path / "model"), "dataset_dir": str(tmp_path / "data")}
    with our_log() as messages:
        module_of(semantic(world, tmp_path, encoder, dids_min_domain_size=1, **names, **where))
    assert "dids_cluster_features: semantic reads texts alone, no pictures, videos or sounds" in messages
