"""Running domain gradients against fresh ones of the same samples, for each kind of parameters that is trained."""

import importlib.util
import shutil

import pytest
from transformers import AutoConfig, AutoModelForCausalLM

from tests.helpers import cosine
from tests.integration.still import still_run
from tests.integration.support import arguments

pytestmark = pytest.mark.integration

LORA = {"finetuning_type": "lora", "lora_rank": 4}
KINDS = {
    "freeze": {"finetuning_type": "freeze", "freeze_trainable_layers": 1},
    "dora": {**LORA, "use_dora": True},
    "additional_target": {**LORA, "additional_target": "o_proj,lm_head"},
}


def compare(world, folder, least_cosine, **changes):
    one_step = {"max_steps": 1, "per_device_train_batch_size": 24, "dids_task_samples": 4}  # each token weighs the same
    ran, rows = still_run(arguments(world, folder, **one_step | changes))
    observer = ran.trainer.mixture.observer
    means_DP, known_D = observer.running.close_window()
    for domain, drawn in rows.items():
        fresh_P = observer.meter.domain(drawn)
        assert known_D[domain] and fresh_P.norm() > 0
        assert cosine(means_DP[domain], fresh_P) > least_cosine
        assert float(means_DP[domain].norm() / fresh_P.norm()) == pytest.approx(1, abs=(1 - least_cosine) * 20)
    return ran


@pytest.mark.parametrize("kind", KINDS)
def test_running_gradients_are_fresh_ones(kind, world, tmp_path):
    compare(world, tmp_path, 1 - 1e-5, per_device_train_batch_size=6, gradient_accumulation_steps=4, **KINDS[kind])


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="QLoRA needs bitsandbytes")
def test_running_gradients_are_fresh_ones_on_quantised_layers(world, tmp_path):
    wide = {"hidden_size": 128, "head_dim": 64, "intermediate_size": 128}  # quantised in blocks of 64
    shutil.copytree(world.model, tmp_path / "model")
    config = AutoConfig.from_pretrained(world.model, **wide)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "model")
    more = {**LORA, "quantization_bit": 4, "model_name_or_path": str(tmp_path / "model")}
    ran = compare(world, tmp_path, 0.999, **more)
    layers = ran.trainer.mixture.observer.meter.engine.tracked.names
    assert layers and all("lora" in name for name in layers)
    assert any(type(module).__name__ == "Linear4bit" for module in ran.trainer.model.modules())
