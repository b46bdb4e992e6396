from types import SimpleNamespace

import pytest
from torch import nn

from llamafactory_dids.errors import DidsError
from llamafactory_dids.stages.layers import decoder_blocks, track_layers
from tests.helpers import MIXTURES, tiny_model, with_lora


@pytest.mark.parametrize(
    ("num_blocks", "share", "tracked"),
    [(4, 0.1, 1), (4, 0.25, 1), (4, 0.26, 2), (4, 0.5, 2), (4, 1.0, 4), (10, 0.1, 1), (3, 0.01, 1), (25, 0.28, 7)],
)
def test_the_last_share_of_the_blocks_is_tracked_rounded_up_and_at_least_one(num_blocks, share, tracked):
    model = tiny_model(num_blocks=num_blocks)
    layers = track_layers(model, share)
    blocks = {int(name.split(".")[0]) for name in layers.names}
    assert blocks == set(range(num_blocks - tracked, num_blocks))
    assert layers.first_block is model.model.layers[num_blocks - tracked]


LAYERS_A_BLOCK = {"gpt2": 4, "phi3": 4} | dict.fromkeys(["llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3"], 7)


@pytest.mark.parametrize(("family", "layers_a_block"), LAYERS_A_BLOCK.items())
def test_all_linear_layers_of_a_block_are_tracked_and_nothing_else(family, layers_a_block):
    model = tiny_model(family)
    tracked = track_layers(model, 0.5)
    assert len(tracked.layers) == 2 * layers_a_block
    assert model.lm_head not in tracked.layers
    assert all(type(layer).__name__ in ("Linear", "Conv1D") for layer in tracked.layers)
    assert tracked.num_entries() == sum(layer.weight.numel() for layer in tracked.layers)


@pytest.mark.parametrize("family", MIXTURES)
def test_of_a_mixture_of_experts_all_but_the_routed_weights_are_tracked_and_the_log_counts_those(family, caplog):
    model = tiny_model(family)
    with caplog.at_level("INFO", logger="llamafactory_dids"):
        tracked = track_layers(model, 0.5)
    blocks = model.model.layers[2:]
    assert {name.split(".", 1)[1] for name in tracked.names} >= {f"self_attn.{part}_proj" for part in "qkvo"}
    assert not any("experts." in name for name in tracked.names)
    experts = [w for block in blocks for name, w in block.named_parameters() if ".experts." in name]
    routers = [w for block in blocks for name, w in block.named_parameters() if name == "mlp.gate.weight"]
    left = {id(w): w for w in (*experts, *routers)}
    for layer in tracked.layers:  # a router that is a linear layer takes all tokens
        left.pop(id(layer.weight), None)
    assert f"{sum(w.numel() for w in left.values())} other weights" in caplog.text
    assert experts and all(id(w) in left for w in experts)


def test_shapes_are_outputs_by_inputs_for_conv1d_too():
    tracked = track_layers(tiny_model("gpt2"), 0.25)
    assert dict(zip(tracked.names, tracked.shapes(), strict=True)) == {
        "3.attn.c_attn": (96, 32),
        "3.attn.c_proj": (32, 32),
        "3.mlp.c_fc": (128, 32),
        "3.mlp.c_proj": (32, 128),
    }


def test_of_a_lora_model_the_trained_layers_are_its_adapters():
    model = with_lora(tiny_model())
    tracked = track_layers(model, 0.25, trainable_only=True)
    assert sorted(tracked.names) == [
        f"3.{layer}.{adapter}.default"
        for layer in ("mlp.down_proj", "self_attn.q_proj")
        for adapter in ("lora_A", "lora_B")
    ]
    assert tracked.shapes()[:2] == [(4, 32), (32, 4)]


def test_frozen_layers_are_tracked_unless_only_trained_ones_are_asked_for():
    model = tiny_model().requires_grad_(False)
    model.model.layers[3].mlp.requires_grad_(True)
    assert len(track_layers(model, 0.5).layers) == 14
    names = track_layers(model, 0.5, trainable_only=True).names
    assert sorted(names) == ["3.mlp.down_proj", "3.mlp.gate_proj", "3.mlp.up_proj"]


def test_a_share_in_which_nothing_is_trained_is_refused_with_its_value():
    model = tiny_model().requires_grad_(False)
    model.model.layers[0].requires_grad_(True)
    with pytest.raises(DidsError, match="dids_gradient_layers: got 0.5, .*blocks 2 to 3"):
        track_layers(model, 0.5, trainable_only=True)


def test_blocks_are_found_by_structure_whatever_their_name():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.heads = nn.ModuleList([nn.Linear(2, 2)])
            self.norms = nn.ModuleList([nn.LayerNorm(2) for _ in range(9)])
            self.inner = nn.ModuleDict({"tower": nn.ModuleList([nn.Sequential(nn.Linear(2, 2)) for _ in range(3)])})

    model = Odd()
    assert decoder_blocks(model) == list(model.inner["tower"])


def test_a_list_inside_a_block_is_part_of_the_block():
    blocks = [nn.ModuleDict({"experts": nn.ModuleList([nn.Linear(2, 2) for _ in range(8)])}) for _ in range(2)]
    model = nn.ModuleDict({"blocks": nn.ModuleList(blocks)})
    assert decoder_blocks(model) == blocks


class TwoTowers(nn.Module):
    """A model as remote code has them: a tower for pictures before the language model, as deep or deeper."""

    def __init__(self, tower_depth=3):
        super().__init__()
        self.tower = nn.ModuleList([nn.Sequential(nn.Linear(2, 2)) for _ in range(tower_depth)])
        self.llm = nn.ModuleDict(
            {"words": nn.Embedding(5, 2), "blocks": nn.ModuleList([nn.Sequential(nn.Linear(2, 2)) for _ in range(3)])}
        )


@pytest.mark.parametrize("tower_depth", [3, 7])
@pytest.mark.parametrize("method", ["get_decoder", "get_input_embeddings"])
def test_blocks_are_those_of_the_part_that_reads_tokens_whatever_else_is_as_deep(method, tower_depth):
    model = TwoTowers(tower_depth)
    answer = model.llm if method == "get_decoder" else model.llm["words"]
    model.get_decoder = lambda: model  # as transformers answers for a model that it does not know
    setattr(model, method, lambda: answer)
    assert decoder_blocks(model) == list(model.llm["blocks"])


def test_a_part_that_can_be_asked_answers_for_a_model_that_cannot():
    model = TwoTowers(tower_depth=7)
    model.tower[0].get_input_embeddings = lambda: model.tower[0][0]  # of patches
    model.llm.get_input_embeddings = lambda: model.llm["words"]

    def no_answer():
        raise NotImplementedError

    model.get_input_embeddings = no_answer
    assert decoder_blocks(model) == list(model.llm["blocks"])
    assert decoder_blocks(nn.ModuleDict({"wrapped": model})) == list(model.llm["blocks"])


def test_a_model_whose_configuration_says_how_deep_it_is_is_believed():
    model = TwoTowers(tower_depth=7)
    model.config = SimpleNamespace(num_hidden_layers=3)
    assert decoder_blocks(model) == list(model.llm["blocks"])


def test_a_model_with_several_lists_that_may_be_its_decoder_is_refused():
    with pytest.raises(DidsError, match=r"dids_proxy_model: got 'TwoTowers', .* which of its 2 lists of 3 blocks"):
        decoder_blocks(TwoTowers())


def test_a_model_without_blocks_is_refused_by_name():
    with pytest.raises(DidsError, match="dids_proxy_model: got 'Embedding', allowed: a model with decoder blocks"):
        decoder_blocks(nn.Embedding(3, 3))
