"""The mixin before a real transformers Trainer: what the host does to the loss is divided out again."""

import numpy as np
import pytest
import torch
from transformers import Trainer, TrainingArguments

from llamafactory_dids import mixers
from llamafactory_dids.artifacts.domain_map import DomainMap
from llamafactory_dids.config import make_config
from llamafactory_dids.training.collator import DOMAIN_COLUMN
from llamafactory_dids.training.plan import MixingPlan
from llamafactory_dids.training.trainer import MixingTrainerMixin
from tests.helpers import collate, samples, tiny_model
from tests.reference.gradients import token_losses, weight_gradients

DOMAINS_N = np.array([0, 1, 0, 1, 1, 0, 0, 1])
COSINES = {"update": "exponentiated", "impact_normalize": "cosine"}  # of mean gradients
ROWS = [{**row, DOMAIN_COLUMN: int(d)} for row, d in zip(samples(8, seed=3), DOMAINS_N, strict=True)]


class MixingTrainer(MixingTrainerMixin, Trainer):
    """As the integration makes it of the host's trainer."""


def train_one_step(folder, model, options, *, batch_size, accumulation, checkpointing):
    config = make_config({"dids_update_samples": 100, "dids_gradient_layers": 0.3})
    plan = MixingPlan(
        "dids",
        config,
        mixers.create("dids", 2, 1, **options),
        DomainMap(("math", "chat"), [f"k{i}" for i in range(8)], ["books"] * 8, DOMAINS_N),
        DOMAINS_N,
        {"exam": samples(2, seed=31)},
        folder / "dids",
        seed=1,
    )
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=accumulation,
        gradient_checkpointing=checkpointing,
        max_steps=1,
        learning_rate=0.0,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        remove_unused_columns=False,
        disable_tqdm=True,
    )
    trainer = MixingTrainer(model=model, args=arguments, train_dataset=ROWS, data_collator=collate, mixing=plan)
    drawn = list(iter(trainer.mixture.sampler))[: batch_size * accumulation]
    trainer.mixture.sampler.set_epoch(0)
    trainer.train()
    return trainer, drawn


@pytest.mark.parametrize("options", [{}, COSINES], ids=["in-run", "running"])
@pytest.mark.parametrize("batch_size, accumulation, checkpointing", [(4, 1, False), (2, 2, False), (2, 2, True)])
def test_what_the_hooks_see_are_per_token_means_whatever_the_host_does_to_the_loss(
    tmp_path, batch_size, accumulation, checkpointing, options
):
    model = tiny_model(num_blocks=3)
    trainer, drawn = train_one_step(
        tmp_path, model, options, batch_size=batch_size, accumulation=accumulation, checkpointing=checkpointing
    )
    observer = trainer.mixture.observer
    found = torch.as_tensor(observer.running.close_window()[0]).float()
    layers = observer.meter.engine.tracked.layers
    model.eval()
    for domain in {int(DOMAINS_N[i]) for i in drawn}:
        losses = [loss for i in drawn if DOMAINS_N[i] == domain for loss in token_losses(model, ROWS[i])]
        expected = torch.cat([g.flatten() for g in weight_gradients(model, layers, sum(losses) / len(losses))])
        if not options:
            expected = observer.running.directions_TP @ expected
        torch.testing.assert_close(found[domain], expected, rtol=1e-3, atol=1e-6 if options else 1e-4)


@pytest.mark.parametrize("options", [{}, COSINES], ids=["in-run", "running"])
def test_evaluation_leaves_what_the_hooks_saw_alone(tmp_path, options):
    model = tiny_model(num_blocks=3)
    trainer, _ = train_one_step(tmp_path, model, options, batch_size=2, accumulation=1, checkpointing=False)
    before = {name: value.clone() for name, value in trainer.mixture.observer.running.share().items()}
    trainer.evaluate(eval_dataset=ROWS)
    after = trainer.mixture.observer.running.share()
    assert all(torch.equal(after[name], value) for name, value in before.items())
