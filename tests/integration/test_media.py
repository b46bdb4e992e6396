"""Pictures and videos: what makes the domains sees what training sees, and samples are named by what they hold."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from transformers import Qwen2VLForConditionalGeneration

from llamafactory_dids.artifacts.domain_map import load_map
from llamafactory_dids.errors import DidsError
from llamafactory_dids.integration.commands import cli
from llamafactory_dids.integration.data.tags import Tagger
from llamafactory_dids.integration.domains.proxy import marks_of
from llamafactory_dids.integration.host.collators import collate
from llamafactory_dids.stages import gradients
from llamafactory_dids.stages.layers import track_layers
from llamafactory_dids.training.collator import KEY_COLUMN, untagged
from tests.integration import pictures
from tests.integration.pictures import OLD, TEXTS, is_bright, judged, pairs, rows, text_rows, write_parquet, write_paths
from tests.integration.support import (
    BY_SOURCE,
    World,
    arguments,
    module_of,
    our_log,
    refusal,
    same_domains,
    train,
    without_mixture,
    write_yaml,
)

pytestmark = pytest.mark.integration

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "yaml" / "qwen2_vl_pictures_dids.yaml"


@pytest.fixture(scope="module")
def album(tmp_path_factory):
    """A tiny Qwen2-VL and data sets with pictures; read, never changed."""
    album = World(tmp_path_factory.mktemp("album"))
    pictures.build_model(album.model)
    write_paths(album.data, "pics", rows(80))
    write_paths(album.data, "task_pics", rows(12, first=200))
    write_paths(album.data, "text", text_rows(24))
    write_parquet(album.data, "held", rows(80))
    write_parquet(album.data, "jpeg", rows(12), kind="JPEG")
    write_paths(album.data, "pairs", pairs(rows(24)), **pictures.RANKED)
    write_paths(album.data, "task_pairs", pairs(rows(8, first=200)), **pictures.RANKED)
    write_paths(album.data, "judged", judged(rows(16)), **pictures.FEEDBACK)
    pictures.write_videos(album.data, "clips", 16)
    return album


def values(album, folder, **changes):
    """A run of 6 steps with 3 updates."""
    few = {"max_steps": 6, "dids_update_samples": 16, "dids_num_domains": 4, "freeze_vision_tower": True}
    names = {"dataset": "pics,text", "dids_tasks": "task_pics", "template": "qwen2_vl", "cutoff_len": 256}
    return arguments(album, folder, **{**few, **names, **changes})


def feature_rows(folder):
    """The unit rows of the one store below `folder`, as training samples stand in their data sets."""
    (part,) = (folder / "cache" / "gradients").glob("*/part-00000.npy")
    return np.load(part).astype(np.float32)


@pytest.fixture(scope="module")
def ran(album, tmp_path_factory):
    """The example's file with the tiny model and 80 pictures; read, never changed."""
    folder = tmp_path_factory.mktemp("example")
    of_the_example = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    here = values(album, folder, dataset="pics", dids_task_samples=12)
    # its own keys of the method and the mixture, but for what is about size
    kept = {"stage", "finetuning_type", "template", "mix_strategy", "freeze_vision_tower", "lora_target", "lora_rank"}
    mine = {key: value for key, value in of_the_example.items() if key in kept}
    return train({**here, **mine, "dids_cluster_scope": "global", "dids_init": "proportional"})


def test_a_tiny_qwen2_vl_trains_by_the_example_and_its_mixture_moves(ran):
    assert [line["step"] for line in ran.lines] == [0, 2, 4, 6]
    assert has_impact(ran)


def test_pictures_alone_make_gradients_differ(ran):
    features_NK = feature_rows(ran.folder.parent)
    same_text = [i for i in range(80) if i // 2 % 2 == 0]
    for rows_N in (list(range(80)), same_text):
        cosines_NN = features_NK[rows_N] @ features_NK[rows_N].T
        assert (cosines_NN - 2 * np.eye(len(rows_N))).max() < 0.9999
    assert len(np.unique(features_NK, axis=0)) == 80


def test_clusters_find_bright_and_dark_pictures_of_each_text(ran):
    domain_map = load_map(ran.dids)
    kinds_N = [(i // 2 % 2, is_bright(i)) for i in range(80)]
    found = {domain: {kinds_N[i] for i in np.flatnonzero(domain_map.domains_N == domain)} for domain in range(4)}
    assert sorted(map(sorted, found.values())) == [[(text, bright)] for text in range(2) for bright in (False, True)]


def test_gradients_of_pictures_are_the_same_in_batches_of_other_sizes(ran, album, tmp_path, monkeypatch):
    monkeypatch.setattr(gradients, "MAX_BATCH_OF_CPU", (3, 16_384))
    module_of(values(album, tmp_path, dataset="pics", dids_init="proportional"))
    np.testing.assert_allclose(feature_rows(tmp_path), feature_rows(ran.folder.parent), atol=2e-3)


@pytest.fixture(scope="module")
def by_source(album, tmp_path_factory):
    """A run of pictures and texts with the data sets as domains, the tower frozen; read, never changed."""
    return train(values(album, tmp_path_factory.mktemp("by_source"), max_steps=2, **BY_SOURCE))


def test_a_batch_is_the_one_that_is_trained_on(by_source):
    """Pictures and texts in one batch, and texts alone, where the host puts in a picture that nothing looks at."""
    trainer = by_source.trainer
    data, host = trainer.train_dataset, untagged(trainer.data_collator.inner)
    made_with = trainer.data_collator.inner
    ours = collate("sft", made_with.template, trainer.model, made_with.tokenizer, made_with.processor)
    for places in ([0, 3, 80, 81], [80, 82]):
        expected, found = host([dict(data[i]) for i in places]), ours([dict(data[i]) for i in places])
        assert found.keys() == expected.keys() and "pixel_values" in found and "position_ids" in found
        for key, value in found.items():
            padded = expected[key]
            if key in ("input_ids", "attention_mask", "labels", "position_ids"):  # to a multiple of 8
                padded = padded[..., : value.shape[-1]]
            if key == "rope_deltas" and OLD:  # made of the padded length before transformers 5
                padded = padded + expected["input_ids"].shape[-1] - found["input_ids"].shape[-1]
            assert torch.equal(value, padded), key


def test_pictures_that_a_data_set_holds_are_named_by_their_pixels(album, tmp_path):
    def keys(folder):
        module, _ = module_of(values(album, folder, dataset="held", overwrite_cache=True, **BY_SOURCE))
        return list(module["train_dataset"][KEY_COLUMN])

    first = keys(tmp_path / "1")
    assert len(set(first)) == 80 and keys(tmp_path / "2") == first


def test_pictures_that_a_data_set_holds_are_trained_on_as_without_a_mixture(album, tmp_path):
    def pixels(given):
        return [np.asarray(row["images"][0]) for row in module_of(given)[0]["train_dataset"]]

    mixed = values(album, tmp_path, dataset="jpeg", overwrite_cache=True, **BY_SOURCE)
    for ours, hosts in zip(pixels(mixed), pixels(without_mixture(mixed)), strict=True):
        np.testing.assert_array_equal(ours, hosts)


def test_a_run_begins_alike_with_pictures_as_paths_or_in_the_data_and_finds_its_domains_again(album, tmp_path):
    """Tasks of pictures begin with the data set that has pictures."""
    starts = []
    for name, folder in (("pics", tmp_path / "paths"), ("held", tmp_path / "held")):
        module, _ = module_of(values(album, folder, dataset=f"{name},text", overwrite_cache=True))
        plan = module["mixing"]
        shares = dict(zip(plan.domain_names, plan.mixer.init().probabilities_D, strict=True))
        starts.append([shares[f"{name}/{i}"] for i in range(2)])
        assert sum(starts[-1]) > 0.6
    np.testing.assert_allclose(*starts, rtol=1e-6)
    with our_log() as messages:
        module_of(values(album, tmp_path / "held", dataset="held,text", overwrite_cache=True))
    assert any(message.startswith("domains: using") for message in messages)
    assert not any("parts to compute" in message for message in messages)


def test_a_run_with_pictures_that_the_data_holds_goes_on_from_its_checkpoint(album, tmp_path):
    held = {"dataset": "held,text", "overwrite_cache": True, "save_strategy": "steps", "save_steps": 2}
    train(values(album, tmp_path, max_steps=2, **held))
    resumed = {"resume_from_checkpoint": str(tmp_path / "out" / "checkpoint-2"), "overwrite_output_dir": False}
    ran = train(values(album, tmp_path, max_steps=4, **held | resumed))
    assert [line["step"] for line in ran.lines] == [0, 2, 4]


def test_a_changed_file_at_a_path_or_another_size_of_pictures_makes_features_anew(album, tmp_path):
    world = World(tmp_path)
    pictures.build_model(world.model)
    write_paths(world.data, "pics", rows(12))
    few = {"dataset": "pics", "dids_tasks": "pics", "dids_num_domains": 2, "dids_init": "proportional"}

    def made(**changes):
        with our_log() as messages:
            module_of(values(world, tmp_path / "run", **few, **changes))
        return any("parts to compute" in message for message in messages)

    assert made() and not made()
    pictures.picture(99, bright=True).save(world.data / "pics" / "3.png")
    assert made() and not made()
    assert made(image_max_pixels=2_000)


def has_impact(run) -> bool:
    """Whether each update had an impact to go by; so few samples need not tell the domains apart."""
    return all(any(value for row in line["impact"].values() for value in row.values()) for line in run.lines[1:-1])


def test_a_map_of_pictures_is_trained_with_packed_and_streamed(ran, album, tmp_path):
    given = {"dataset": "pics", **same_domains(ran)}
    packed = train(values(album, tmp_path / "packed", packing=True, **given))
    assert packed.probabilities[-1].keys() == ran.probabilities[-1].keys()
    assert has_impact(packed)
    streamed = train(values(album, tmp_path / "streamed", streaming=True, dids_init="proportional", **given))
    assert has_impact(streamed)


def test_a_streamed_jpeg_is_not_the_one_that_a_map_was_made_from(album, tmp_path):
    held = {"dataset": "jpeg", "dids_num_domains": 2, "dids_min_domain_size": 1, "dids_init": "proportional"}
    ran = train(values(album, tmp_path / "whole", max_steps=1, **held))
    message = refusal(values(album, tmp_path / "streamed", streaming=True, **held | same_domains(ran)))
    assert message.startswith("dids_domains: the map lacks a picture of 'jpeg', allowed with streaming: ")


def test_videos_as_lists_of_pictures_make_gradients_of_their_own(album, tmp_path):
    ran = train(values(album, tmp_path, dataset="clips", dids_num_domains=2, dids_init="proportional"))
    assert len(np.unique(feature_rows(tmp_path), axis=0)) == 16
    assert has_impact(ran)


@pytest.mark.parametrize("stage", ["dpo", "rm"])
def test_stages_of_pairs_make_domains_of_pictures_and_track_the_language_model(stage, album, tmp_path):
    names = {"dataset": "pairs", "dids_tasks": "task_pairs", "dids_num_domains": 2}
    ran = train(values(album, tmp_path, stage=stage, **names))
    assert has_impact(ran)
    language_model = getattr(ran.trainer.model, "pretrained_model", ran.trainer.model).get_decoder()
    assert set(track_layers(ran.trainer.model, 1.0).layers) <= set(language_model.modules())


def test_pt_trains_such_a_model_on_texts_alone(album, tmp_path):
    ran = train(values(album, tmp_path, stage="pt", cutoff_len=32, dids_num_domains=2))
    impacts = [by_task["task_pics"] for by_task in ran.lines[1]["impact"].values()]
    assert np.isfinite(impacts).all() and len(set(impacts)) == 2


def test_explain_knows_the_size_of_a_model_that_reads_pictures(album, tmp_path, capsys):
    path = write_yaml(tmp_path / "run.yaml", values(album, tmp_path))
    cli.main(["explain", str(path), "--json"])
    found = json.loads(capsys.readouterr().out)
    model = Qwen2VLForConditionalGeneration.from_pretrained(album.model)
    assert found["parameters"] == sum(weight.numel() for weight in model.parameters())


@pytest.mark.parametrize("frozen", [True, False])
def test_the_tower_is_not_tracked_whether_it_is_trained_or_not(frozen, by_source, album, tmp_path):
    trained = {"max_steps": 2, "freeze_vision_tower": False}
    ran = by_source if frozen else train(values(album, tmp_path, **trained, **BY_SOURCE))
    tracked = ran.trainer.mixture.observer.meter.engine.tracked
    assert set(tracked.layers) <= set(ran.trainer.model.get_decoder().modules())
    tower = [weight for name, weight in ran.trainer.model.named_parameters() if "visual.blocks" in name]
    assert tower and all(weight.requires_grad is not frozen for weight in tower)


def test_kto_with_pictures_is_refused_where_the_host_fails(album, tmp_path, no_model):
    message = refusal(values(album, tmp_path, stage="kto", dataset="judged", dids_tasks="judged"))
    assert message.startswith("stage: got 'kto', allowed with a qwen2_vl model and pictures: sft, dpo, rm")


def test_a_proxy_that_reads_texts_alone_is_refused_before_anything_is_loaded(album, world, tmp_path, no_model):
    message = refusal(values(album, tmp_path, dids_proxy_model=str(world.proxy)))
    assert message.startswith(f"dids_proxy_model: got '{world.proxy}', allowed: a model with a processor, ")


def test_a_value_that_has_no_lasting_name_is_refused_with_its_data_set_and_type():
    batch = {"_prompt": [[{"role": "user", "content": TEXTS[0][0]}]], "_videos": [[object()]]}
    with pytest.raises(DidsError, match="dataset: 'clips' has a value of type object, allowed: texts, and pictures"):
        Tagger("clips")(batch)


def test_sounds_that_begin_and_end_alike_have_keys_of_their_own():
    """NumPy writes the first and last numbers of a long array alone."""
    sounds = np.zeros((2, 5000), dtype=np.float32)
    sounds[1, 2500] = 1
    prompt = [{"role": "user", "content": "<audio>"}]
    keys = Tagger("sounds")({"_prompt": [prompt, prompt], "_audios": [[sounds[0]], [sounds[1]]]})[KEY_COLUMN]
    assert keys[0] != keys[1]


@pytest.mark.parametrize("size", [3, 9, 15, 40])
def test_a_file_is_told_from_one_with_another_beginning_or_end(size, tmp_path):
    path, marks = tmp_path / "a.png", set()
    for changed in (None, 0, size - 1):
        content = bytearray(size)
        if changed is not None:
            content[changed] = 1
        path.write_bytes(content)
        marks.add(b"".join(marks_of(path, edge=10)))
    assert len(marks) == 3
