"""The cost model against counting by hand, against torch's own count, and against what the paper prints."""

import pytest
import torch
import yaml
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

from scripts.experiments import cost, definition, runner
from scripts.experiments.cost import PAPER, PETA, Model, Sizes

TABLES = definition.load_all()


def test_a_pass_costs_what_torch_counts():
    """Attention is counted in full by torch where a mask is given, and half of it by the model: causal."""
    config = LlamaConfig(hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4)
    config.vocab_size, length = 100, 32
    config._attn_implementation = "eager"
    model = LlamaForCausalLM(config)
    parameters = sum(weight.numel() for weight in model.parameters()) - 100 * 64  # input embeddings are looked up
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(2, length, dtype=torch.long))
    halved = 2 * length * 2 * 3 * 64 * length
    predicted = Model(parameters, 3, 64).forward(2 * length, length) + halved
    assert counter.get_total_flops() == pytest.approx(predicted, rel=0.01)


def test_training_is_three_forward_passes_and_gradients_of_a_tenth_are_one_and_a_fifth():
    model = Model(1e6, 4, 128)
    assert model.training(1000, 64) == 3 * model.forward(1000, 64)
    assert model.gradients(1000, 64, 0.1) == pytest.approx(1.2 * model.forward(1000, 64))


def test_with_its_embeddings_the_8b_model_costs_what_the_paper_prints_in_petaflop():
    whole = Model(8.03e9, 32, 4096).training(1e9, 8192) / PETA
    assert whole == pytest.approx(TABLES["table_03"].rows[0].paper[0], rel=0.005)


@pytest.mark.parametrize(
    ("strategy", "within"), [("dga", 0.06), ("dids", 0.07), ("doremi", 0.06), ("velocitune", 0.07)]
)
def test_the_totals_are_near_the_papers(strategy, within):
    row = next(row for row in TABLES["table_12"].rows if row.more["strategy"] == strategy)
    assert cost.total(cost.stages(PAPER, strategy)) / PETA == pytest.approx(row.paper[0], rel=within)


def test_fixed_mixtures_cost_the_training_alone_unless_clusters_are_shared():
    assert set(cost.stages(PAPER, "proportional")) == {"base"}
    assert set(cost.stages(PAPER, "proportional", shared_clusters=True)) == {"base", "cluster"}


def test_a_larger_pool_makes_the_clusters_dearer_in_proportion():
    larger = Sizes(**{**PAPER.__dict__, "pool_tokens": 9.4e9})
    assert cost.clusters(larger) == pytest.approx(9.4 * cost.clusters(PAPER))


def test_measured_shares_are_of_the_training_without_the_measuring():
    found = cost.measured({"seconds": 60.0, "update_seconds": 10.0, "clustering_seconds": 25.0})
    assert found == {"base": 50.0, "impact": 10.0, "cluster": 25.0}
    assert cost.shares(found) == {"impact": 0.2, "cluster": 0.5}


@pytest.mark.parametrize("size", cost.MINI_SIZES)
def test_the_sizes_of_a_mini_preset_are_those_of_its_files(size):
    base = yaml.safe_load((runner.KEYS[0] / "mini.yaml").read_text())
    given, made = cost.MINI_SIZES[size], runner.SIZES[size]
    block = 4 * made.hidden_size**2 + 3 * made.hidden_size * made.intermediate_size
    parameters = made.num_layers * block + made.vocabulary * made.hidden_size
    assert given.model == cost.Model(parameters, made.num_layers, made.hidden_size)
    samples = base["max_steps"] * base["per_device_train_batch_size"]
    assert given.train_tokens == samples * given.length
    assert given.updates == samples // base["dids_update_samples"]
    assert given.observed_tokens == len(definition.TASKS) * base["dids_task_samples"] * given.observed_length
