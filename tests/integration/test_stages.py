"""Stages whose loss is of whole answers: what is measured of a sample is the host's own loss of it."""

import json
import shutil

import pytest
import torch

from llamafactory_dids.integration.host import objectives
from llamafactory_dids.stages.entries import TrackedEntries
from llamafactory_dids.stages.meter import Meter
from llamafactory_dids.stages.per_sample import GradientEngine, sample_gradients
from llamafactory_dids.training.collator import COLUMNS
from tests.helpers import cosine
from tests.integration.preferences import make_preferences, preference_arguments
from tests.integration.still import still_run
from tests.integration.support import SOURCES, World, module_of, outlived_by_trainer, train, without_mixture
from tests.reference.gradients import weight_gradients

pytestmark = pytest.mark.integration

LORA = {"finetuning_type": "lora", "lora_rank": 4, "learning_rate": 5e-2}
WAYS = {
    "dpo": {"pref_ftx": 0.3, "dpo_label_smoothing": 0.1},
    "dpo-ipo": {"pref_loss": "ipo", "pref_beta": 0.5},
    "dpo-orpo": {"pref_loss": "orpo"},
    "dpo-simpo": {"pref_loss": "simpo", "finetuning_type": "freeze", "freeze_trainable_layers": 1},
    "dpo-lora": LORA,
    "kto": {"kto_rejected_weight": 0.7},
    "kto-lora": LORA,
    "rm": {},
    "rm-lora": LORA,
}
STAGES = ["dpo", "kto", "rm"]


@pytest.fixture(scope="module")
def preferences(world, tmp_path_factory):
    return make_preferences(world, tmp_path_factory.mktemp("preferences") / "data")


@pytest.fixture(scope="module")
def still_world(world, tmp_path_factory):
    """A world whose model's value head has no dropout, so that a batch has the same loss in training."""
    copied = World(tmp_path_factory.mktemp("still") / "world")
    shutil.copytree(world.folder, copied.folder)
    path = copied.model / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"summary_dropout_prob": 0.0}))
    return copied


@pytest.fixture(scope="module", params=WAYS)
def run(request, still_world, preferences, tmp_path_factory):
    stage, folder = request.param.split("-")[0], tmp_path_factory.mktemp(request.param)
    return train(preference_arguments(still_world, preferences, folder, stage, **WAYS[request.param]))


def batch_of(ran, count=5):
    """The first rows of each data set, as the host's collator makes a batch of them, and the same one by one."""
    rows = [ran.trainer.train_dataset[i] for i in range(0, 60, 60 // count)]
    bare = [{key: value for key, value in row.items() if key not in COLUMNS} for row in rows]
    collate = ran.trainer.data_collator.inner
    return collate([dict(row) for row in bare]), [collate([dict(row)]) for row in bare]


def test_it_trains_and_its_mixture_moves(run):
    assert [line["step"] for line in run.lines] == [0, 2, 4, 6, 8]
    assert run.probabilities[0] != run.probabilities[-1]
    assert all(loss == loss for line in run.lines for loss in line["task_loss"].values())


def own_losses(trainer, batch, alone):
    """The host's loss of each sample, with its graph."""
    model = trainer.model
    if hasattr(trainer, "kto_loss"):  # its baseline is of the whole batch
        policy = trainer.concatenated_forward(model, batch)
        reference = trainer.compute_reference_log_probs(model, batch)
        losses = iter(trainer.kto_loss(policy[0], policy[1], policy[4], *reference)[0])
        order = sorted(range(len(alone)), key=lambda n: not batch["kto_tags"][n])
        return [loss for _, loss in sorted(zip(order, losses, strict=True), key=lambda pair: pair[0])]
    if hasattr(trainer, "dpo_loss"):
        return [trainer.get_batch_loss_metrics(model, dict(one))[0] for one in alone]
    model.eval()
    return [trainer.compute_loss(model, dict(one)) for one in alone]


def test_gradients_and_losses_of_samples_are_autograds_of_the_hosts_loss_of_each(run):
    trainer, observer = run.trainer, run.trainer.mixture.observer
    trainer.model.eval()
    engine, (batch, alone) = observer.meter.engine, batch_of(run)
    losses_N, counts_N, pairs, scale_N = engine.run(batch)
    found_NP = torch.cat([sample_gradients(x, y).flatten(1) for x, y in pairs], dim=1) / scale_N[:, None]
    assert counts_N.tolist() == [1] * len(alone)
    for n, loss in enumerate(own_losses(trainer, batch, alone)):
        gradients = weight_gradients(trainer.model, engine.tracked.layers, loss)
        expected_P = torch.cat([gradient.flatten() for gradient in gradients])
        assert losses_N[n].item() == pytest.approx(loss.item(), rel=1e-4)
        assert expected_P.norm() > 0
        torch.testing.assert_close(found_NP[n], expected_P, rtol=1e-3, atol=1e-4 * float(expected_P.abs().max()))


@pytest.mark.parametrize("way", ["dpo", "dpo-lora", "kto", "kto-lora", "rm", "rm-lora"])
def test_running_domain_gradients_are_fresh_ones_of_the_same_samples_at_a_still_model(
    way, still_world, preferences, tmp_path
):
    stage, _, lora = way.partition("-")
    changes = {**(LORA if lora else {}), "gradient_accumulation_steps": 2, "max_steps": 3}
    ran, trained = still_run(preference_arguments(still_world, preferences, tmp_path, stage, **changes))
    observer = ran.trainer.mixture.observer
    means_DP, known_D = observer.running.close_window()
    for domain, rows in trained.items():
        fresh_P = observer.meter.domain(rows)
        assert known_D[domain] and fresh_P.norm() > 0
        torch.testing.assert_close(means_DP[domain], fresh_P, rtol=1e-3, atol=1e-4 * float(fresh_P.abs().max()))


@pytest.mark.parametrize("stage", STAGES)
def test_so_they_are_but_for_rounding_in_bf16_and_without_checkpointing(stage, still_world, preferences, tmp_path):
    changes = {"bf16": True, "disable_gradient_checkpointing": True, "max_steps": 4}
    ran, trained = still_run(preference_arguments(still_world, preferences, tmp_path, stage, **changes))
    observer = ran.trainer.mixture.observer
    means_DP, _ = observer.running.close_window()
    assert ran.trainer.accelerator.mixed_precision == "bf16"
    for domain, rows in trained.items():
        assert cosine(means_DP[domain], observer.meter.domain(rows)) > 0.99


@pytest.mark.parametrize("way", STAGES)
def test_losses_of_training_batches_are_those_of_their_samples(way, still_world, preferences, tmp_path):
    changes = {"mix_strategy": "odm", "dids_tasks": None, **({"pref_ftx": 0.5} if way == "dpo" else {})}
    ran, trained = still_run(preference_arguments(still_world, preferences, tmp_path, way, **changes))
    observer = ran.trainer.mixture.observer
    means_D = observer.domain_losses.close_window().losses_D
    meter = Meter(ran.trainer.model, observer.objective, observer._loss_meter.collate)
    for domain, rows in trained.items():
        assert means_D[domain] == pytest.approx(meter.token_losses(rows).mean(), rel=1e-4)


@pytest.mark.parametrize("stage", ["dpo", "kto"])
def test_domains_are_made_of_the_gradient_that_a_training_starts_with(stage, still_world, preferences, tmp_path):
    ran, _ = still_run(preference_arguments(still_world, preferences, tmp_path, stage))
    engine, (batch, _) = ran.trainer.mixture.observer.meter.engine, batch_of(ran)
    alone = objectives.objective(ran.trainer.finetuning_args, torch.device("cpu"))
    entries = TrackedEntries(engine.tracked, 10**6, 0)

    def gradients(objective):
        _, _, pairs, scale_N = GradientEngine(ran.trainer.model, engine.tracked, objective).run(batch)
        return torch.cat([entries.gradients(i, x, y) for i, (x, y) in enumerate(pairs)], dim=1) / scale_N[:, None]

    expected_NP = gradients(engine.objective)
    assert expected_NP.norm() > 0
    torch.testing.assert_close(gradients(alone), expected_NP, rtol=1e-3, atol=1e-4 * float(expected_NP.abs().max()))


@pytest.mark.parametrize("stage", STAGES)
def test_an_offline_strategys_proxy_runs_are_of_the_same_stage(stage, still_world, preferences, tmp_path):
    changes = {"mix_strategy": "doremi", "dids_domains": "source"}
    ran = train(preference_arguments(still_world, preferences, tmp_path, stage, **changes))
    assert {path.stem for path in (ran.dids / "proxy_runs").iterdir()} == {"reference", "proxy"}
    assert len(set(ran.probabilities[0].values())) > 1


def test_kto_keeps_the_answers_that_its_baseline_is_estimated_on_and_knows_rows_that_stay(
    still_world, preferences, tmp_path
):
    path = preferences / "pairs_judged.json"
    before = path.read_text()
    rows = json.loads(before)
    unjudged = [{**row, "wanted": None} if i % 7 == 2 else row for i, row in enumerate(rows)]  # the host drops these
    path.write_text(json.dumps(unjudged))
    try:
        ours = preference_arguments(still_world, preferences, tmp_path, "kto", dids_domains="source")
        found, host = (module_of(values)[0]["train_dataset"] for values in (ours, without_mixture(ours)))
    finally:
        path.write_text(before)
    columns = ["input_ids", "labels", "kl_input_ids", "kl_labels", "kto_tags"]
    assert found.select_columns(columns).to_list() == host.select_columns(columns).to_list()
    assert len(found) == sum(SOURCES.values()) - sum(row["wanted"] is None for row in unjudged)
    assert all(kl != own for kl, own in zip(found["kl_labels"][:20], found["labels"][:20], strict=True))


@pytest.mark.parametrize("stage", STAGES)
def test_the_trainer_is_gone_with_its_run_as_the_hosts_own_is(stage, still_world, preferences, tmp_path):
    assert not outlived_by_trainer(preference_arguments(still_world, preferences, tmp_path, stage, max_steps=3))
