"""The gradient engine against autograd on the weights themselves, one sample at a time."""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from llamafactory_dids.errors import DidsError
from llamafactory_dids.stages import per_sample
from llamafactory_dids.stages.layers import track_layers
from llamafactory_dids.stages.per_sample import GradientEngine, by_sample, evaluating, sample_gradients
from tests.helpers import (
    FAMILIES,
    LORA,
    NEXT_TOKENS,
    VOCAB,
    collate,
    cosine,
    samples,
    tiny_model,
    unlabelled,
    with_lora,
)
from tests.reference.gradients import mean_loss, sample_gradient

ALL_FAMILIES = ["gpt2", *FAMILIES]


def engine_gradients(model, tracked, rows) -> torch.Tensor:
    _, _, pairs, scale_N = GradientEngine(model, tracked, NEXT_TOKENS).run(collate(rows))
    return torch.cat([sample_gradients(x, y).flatten(1) for x, y in pairs], dim=1) / scale_N[:, None]


def reference_gradients(model, tracked, rows) -> torch.Tensor:
    return torch.stack([sample_gradient(model, tracked.layers, row) for row in rows])


def assert_same(found_NP, expected_NP):
    scale = expected_NP.abs().amax(dim=1, keepdim=True)
    error = ((found_NP - expected_NP) / scale).abs().max()
    assert error < 5e-4, f"largest error, relative to the sample's largest entry: {error}"


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.mark.parametrize("family", ALL_FAMILIES)
@pytest.mark.parametrize("share", [0.25, 1.0])
def test_gradients_of_a_padded_batch_are_autograds_of_each_sample_alone(family, share):
    model, rows = tiny_model(family), samples(5)
    tracked = track_layers(model, share)
    assert_same(engine_gradients(model, tracked, rows), reference_gradients(model, tracked, rows))


class Routed(nn.Module):
    """A model whose one block has layers of all uses: `always` twice, `flat` on flattened tokens, `idle` never."""

    def __init__(self, rare: bool = False) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.rare, self.embed, self.head = rare, nn.Embedding(VOCAB, 6), nn.Linear(6, VOCAB)
        layers = {name: nn.Linear(6, 6) for name in ("always", "flat", "part", "idle")}
        layers["experts"] = nn.ModuleList([nn.Linear(6, 6) for _ in range(3)])
        self.blocks = nn.ModuleList([Block(layers)])

    def forward(self, input_ids, attention_mask=None, use_cache=None):
        return SimpleNamespace(logits=self.head(self.blocks[0](self.embed(input_ids), self.rare)))


class Block(nn.ModuleDict):
    def forward(self, hidden, rare):
        hidden = torch.tanh(self["always"](hidden)) + self["always"](hidden)
        tokens = hidden.flatten(0, 1)
        tokens = tokens + torch.tanh(self["flat"](tokens))
        chosen = (tokens[:, 0] > 0).nonzero().squeeze(1)  # the others go to no expert
        tokens = tokens.index_add(0, chosen, torch.tanh(self["experts"][1](tokens[chosen])))
        if rare:
            tokens = tokens.index_add(0, chosen, self["part"](tokens[chosen]))
        return tokens.view_as(hidden)


def test_layers_are_right_that_run_twice_or_on_flattened_tokens_and_idle_ones_have_gradients_of_zero():
    model, rows = Routed(), samples(4)
    tracked = track_layers(model, 1.0)
    assert tracked.names == ("0.always", "0.flat", "0.part", "0.idle")
    used = SimpleNamespace(layers=tracked.layers[:2])
    found_NP, expected_NP = engine_gradients(model, tracked, rows), reference_gradients(model, used, rows)
    assert_same(found_NP[:, :72], expected_NP)
    assert found_NP.shape == (4, 144) and not found_NP[:, 72:].any()


def test_a_layer_that_gets_some_of_the_tokens_is_refused_by_name():
    model = Routed(rare=True)
    with pytest.raises(DidsError, match="tracked layer 0.part got .* tokens.*allowed: "):
        engine_gradients(model, track_layers(model, 1.0), samples(4))


@pytest.mark.parametrize("kind", LORA)
def test_gradients_of_lora_adapters_are_autograds(kind):
    model, rows = with_lora(tiny_model(), **LORA[kind]), samples(4)
    tracked = track_layers(model, 0.5, trainable_only=True)
    assert_same(engine_gradients(model, tracked, rows), reference_gradients(model, tracked, rows))


def test_the_batch_that_a_sample_came_in_does_not_change_its_gradient(model):
    rows, tracked = samples(7), track_layers(model, 0.5)
    alone_NP = torch.cat([engine_gradients(model, tracked, [row]) for row in rows])
    batches = [[0, 1, 2, 3, 4, 5, 6], [6, 2, 4, 0, 5, 3, 1], [3, 1]]
    for batch in batches:
        together_NP = engine_gradients(model, tracked, [rows[i] for i in batch])
        for position, i in enumerate(batch):
            assert cosine(together_NP[position], alone_NP[i]) > 0.9999, (batch, i)
        assert_same(together_NP, alone_NP[batch])


@pytest.mark.parametrize("kind", LORA)
def test_a_frozen_model_with_adapters_has_the_gradients_of_all_its_layers(kind):
    model, rows = with_lora(tiny_model(), **LORA[kind]), samples(3)
    expected_NP = reference_gradients(model, used := track_layers(model, 0.25, trainable_only=True), rows)
    model.requires_grad_(False)
    tracked = track_layers(model, 0.25)
    _, _, pairs, scale_N = GradientEngine(model, tracked, NEXT_TOKENS).run(collate(rows))
    mine = [sample_gradients(*pairs[tracked.names.index(name)]).flatten(1) for name in used.names]
    assert_same(torch.cat(mine, dim=1) / scale_N[:, None], expected_NP)


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_losses_are_the_models_own_of_each_sample(family):
    model, rows = tiny_model(family), samples(5)
    losses_N, tokens_N, _, _ = GradientEngine(model, track_layers(model, 0.25), NEXT_TOKENS).run(collate(rows))
    for row, loss, tokens in zip(rows, losses_N, tokens_N, strict=True):
        own = model(input_ids=torch.tensor([row["input_ids"]]), labels=torch.tensor([row["labels"]])).loss
        assert loss.item() == pytest.approx(own.item(), rel=1e-5)
        assert loss.item() == pytest.approx(mean_loss(model, row).item(), rel=1e-5)
        assert tokens.item() == sum(label != -100 for label in row["labels"])


def test_a_sample_without_labels_has_no_loss_and_no_gradient_and_leaves_its_neighbours_alone(model):
    rows, tracked = samples(2), track_layers(model, 0.5)
    mixed = [rows[0], unlabelled(), rows[1]]
    losses_N, tokens_N, _, _ = GradientEngine(model, tracked, NEXT_TOKENS).run(collate(mixed))
    gradients_NP = engine_gradients(model, tracked, mixed)
    assert losses_N[1] == 0 and tokens_N[1] == 0 and not gradients_NP[1].any()
    assert_same(gradients_NP[[0, 2]], reference_gradients(model, tracked, rows))


def test_a_batch_without_any_label_has_gradients_of_zero(model):
    tracked = track_layers(model, 0.5)
    losses_N, tokens_N, _, _ = GradientEngine(model, tracked, NEXT_TOKENS).run(collate([unlabelled(4), unlabelled(6)]))
    assert losses_N.tolist() == [0, 0] and tokens_N.tolist() == [0, 0]
    assert not engine_gradients(model, tracked, [unlabelled(4), unlabelled(6)]).any()


def test_frozen_weights_have_the_same_gradients(model):
    rows, frozen = samples(3), copy.deepcopy(model).requires_grad_(False)
    tracked = track_layers(model, 0.25)
    found_NP = engine_gradients(frozen, track_layers(frozen, 0.25), rows)
    assert torch.equal(found_NP, engine_gradients(model, tracked, rows))


def test_no_parameter_gets_a_gradient_and_one_that_has_keeps_it(model):
    model = copy.deepcopy(model)
    kept = model.model.layers[-1].mlp.down_proj.weight
    kept.grad = torch.full_like(kept, 3.0)
    GradientEngine(model, track_layers(model, 1.0), NEXT_TOKENS).run(collate(samples(2)))
    assert [weight is kept for weight in model.parameters() if weight.grad is not None] == [True]
    assert (kept.grad == 3.0).all()


def test_each_module_is_in_the_mode_that_it_was_in_even_after_an_error(model):
    model = copy.deepcopy(model).train()
    model.model.layers[0].eval()
    before = [module.training for module in model.modules()]
    engine = GradientEngine(model, track_layers(model, 0.5), NEXT_TOKENS)
    engine.run(collate(samples(2)))
    assert [module.training for module in model.modules()] == before
    with pytest.raises((IndexError, RuntimeError)):
        engine.run(collate([{"input_ids": [10**6] * 3, "labels": [1] * 3}]))
    assert [module.training for module in model.modules()] == before
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_it_measures_without_dropout(model):
    model = copy.deepcopy(model).train()
    model.config.attention_dropout = 0.5
    for block in model.model.layers:
        block.self_attn.attention_dropout = 0.5
    rows, tracked = samples(3), track_layers(model, 0.5)
    found_NP = engine_gradients(model, tracked, rows)
    assert_same(found_NP, reference_gradients(model.eval(), tracked, rows))


def test_gradients_stay_on_or_off_as_they_were(model):
    engine = GradientEngine(model, track_layers(model, 0.5), NEXT_TOKENS)
    for enabled in (True, False):
        with torch.set_grad_enabled(enabled):
            engine.run(collate(samples(1)))
            assert torch.is_grad_enabled() == enabled


def test_gradient_checkpointing_changes_nothing(model):
    rows, tracked = samples(3), track_layers(model, 0.5)
    expected_NP = engine_gradients(model, tracked, rows)
    checkpointed = copy.deepcopy(model).train()
    checkpointed.gradient_checkpointing_enable({"use_reentrant": False})
    assert torch.equal(engine_gradients(checkpointed, track_layers(checkpointed, 0.5), rows), expected_NP)


def test_half_precision_activations_give_gradients_in_fp32():
    x_NSI, y_NSO = torch.randn(2, 3, 4).bfloat16(), torch.randn(2, 3, 5).bfloat16()
    found_NOI = sample_gradients(x_NSI, y_NSO)
    assert found_NOI.dtype == torch.float32
    for n in range(2):
        expected_OI = sum(torch.outer(y_NSO[n, s].float(), x_NSI[n, s].float()) for s in range(3))
        assert torch.allclose(found_NOI[n], expected_OI, atol=1e-6)


def test_rows_of_a_sample_and_flattened_tokens_come_together_by_sample():
    values = torch.randn(6, 3, 4)  # of two samples, three views each
    found = by_sample(values, num_rows=6, num_samples=2)
    for n in range(2):
        assert torch.equal(found[n], torch.cat([values[n], values[n + 2], values[n + 4]]))
    assert torch.equal(by_sample(values.flatten(0, 1), 6, 2), found)
    assert by_sample(values, 6, 6) is values


@pytest.mark.parametrize("shape", [(5, 4), (2, 3, 4, 5), (3, 4, 5)])
def test_a_shape_that_does_not_tell_samples_apart_is_refused(shape):
    with pytest.raises(ValueError, match=str(shape).replace("(", r"\(").replace(")", r"\)")):
        by_sample(torch.ones(shape), num_rows=2, num_samples=2)


def test_a_measurement_quiets_dropout_and_leaves_linear_layers_in_their_mode():
    parts = {"linear": torch.nn.Linear(2, 2), "dropout": torch.nn.Dropout(), "idle": torch.nn.ReLU()}
    layers = torch.nn.ModuleDict(parts)
    layers["idle"].eval()
    modes = {name: module.training for name, module in layers.named_modules()}
    with evaluating(layers):
        assert layers["linear"].training and not layers["dropout"].training and not layers["idle"].training
    assert {name: module.training for name, module in layers.named_modules()} == modes


def long_model():
    """A random model for long samples, whose gradients are as small as those of a large and trained one."""
    sizes = {"hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4, "num_key_value_heads": 4}
    config = LlamaConfig(vocab_size=VOCAB, num_hidden_layers=2, max_position_embeddings=2048, pad_token_id=0, **sizes)
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).eval()
    model.lm_head.weight.data /= 50
    return model


@pytest.mark.parametrize("way", ["autocast", "half weights"])
@pytest.mark.parametrize("length", [32, 2048])
def test_in_fp16_the_gradient_of_a_long_sample_points_where_that_in_fp32_does(way, length):
    model = long_model()
    ids = torch.randint(1, VOCAB, (length,), generator=torch.Generator().manual_seed(length)).tolist()
    rows = [{"input_ids": ids, "labels": ids}, *samples(1, seed=5)]
    expected_NP = engine_gradients(model, track_layers(model, 0.5), rows)
    half = model if way == "autocast" else copy.deepcopy(model).half()
    with torch.autocast("cpu", dtype=torch.float16, enabled=way == "autocast"):
        found_NP = engine_gradients(half, track_layers(half, 0.5), rows)
    for found_P, expected_P in zip(found_NP, expected_NP, strict=True):
        assert cosine(found_P, expected_P) > 0.99
        assert float(found_P.norm()) == pytest.approx(float(expected_P.norm()), rel=0.02)


def test_the_scale_of_the_losses_changes_no_digit_in_fp32(model, monkeypatch):
    rows, tracked = samples(5), track_layers(model, 0.5)
    scaled_NP = engine_gradients(model, tracked, rows)
    monkeypatch.setattr(per_sample, "_scale", lambda counts_N: torch.ones(len(counts_N)))
    assert torch.equal(engine_gradients(model, tracked, rows), scaled_NP)
