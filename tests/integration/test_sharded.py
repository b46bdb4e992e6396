"""Two processes that share the model out (FSDP2, on the CPU) mix like two that each hold it all."""


import pytest

from tests.integration.support import arguments, finish_well, read_lines, start, write_yaml
from tests.integration.test_ranks import DRIVER, TORCHRUN

pytestmark = pytest.mark.integration

FSDP2 = {
    "fsdp": "full_shard auto_wrap",
    "fsdp_config": {"fsdp_version": 2, "transformer_layer_cls_to_wrap": "LlamaDecoderLayer"},
}
LAZY = {**FSDP2, "fsdp_config": FSDP2["fsdp_config"] | {"cpu_ram_efficient_loading": True}}


@pytest.fixture(scope="module")
def pairs(world, tmp_path_factory):
    """Folders of finished runs of two ranks: replicated, sharded, and sharded with weights that one rank has read."""
    folders = {}
    for name, changes in {"ddp": {}, "fsdp2": FSDP2, "fsdp2_lazy": LAZY}.items():
        folder = folders[name] = tmp_path_factory.mktemp(name)
        values = arguments(world, folder, per_device_train_batch_size=4, max_steps=12, **changes)
        path = str(write_yaml(folder / "run.yaml", values))
        finish_well(start([*TORCHRUN, DRIVER, path, str(folder)], COUNT_AS_DEVICES=str(int(name != "ddp"))))
    return folders


@pytest.mark.parametrize("name", ["fsdp2", "fsdp2_lazy"])
def test_a_sharded_model_gives_the_probabilities_of_a_replicated_one(pairs, name):
    sharded, whole = (read_lines(pairs[key] / "out" / "dids" / "mixture.jsonl") for key in (name, "ddp"))
    assert len(sharded) == 4 and whole[-1]["probabilities"] != whole[0]["probabilities"]
    for ours, theirs in zip(sharded, whole, strict=True):
        assert ours["probabilities"] == pytest.approx(theirs["probabilities"], abs=1e-4)
        assert ours["task_loss"] == pytest.approx(theirs["task_loss"], abs=1e-4)
