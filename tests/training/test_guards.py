"""What would make a mixture wrong without a word ends the run, with its cause."""

import numpy as np
import pytest
import torch
from torch import nn

from llamafactory_dids.errors import DidsError
from llamafactory_dids.stages.layers import track_layers
from llamafactory_dids.training.guards import check_aligned, check_impact, check_modules, no_gradient_came
from tests.helpers import samples, tiny_model


def test_a_layer_that_was_replaced_is_named():
    model = tiny_model(num_blocks=3)
    tracked = track_layers(model, 0.3)
    check_modules(nn.Sequential(model), tracked)  # wrapped, as by DDP
    attention = model.model.layers[2].self_attn
    attention.q_proj = nn.Linear(attention.q_proj.in_features, attention.q_proj.out_features)
    with pytest.raises(DidsError, match=r"1 of 7 layers .* the first: block 2.self_attn.q_proj;"):
        check_modules(model, tracked)


def test_of_a_compiled_model_it_is_said_that_it_is():
    model = tiny_model(num_blocks=3)
    assert "torch_compile" not in str(no_gradient_came("dids", model))
    assert "torch_compile" in str(no_gradient_came("dids", torch.compile(model, backend="eager")))
    model.compile(backend="eager")
    assert "torch_compile" in str(no_gradient_came("dids", model))


def test_rows_of_training_are_aligned():
    pair = samples(1, seed=3)[0]
    preference = {f"{view}_{key}": pair[key] for view in ("chosen", "rejected") for key in ("input_ids", "labels")}
    check_aligned({"exam": samples(4, seed=1), "pairs": [preference], "plain": [{"input_ids": [1, 2, 3]}]})


@pytest.mark.parametrize(
    "row",
    [
        {"input_ids": [5, 6, 7, 8], "labels": [9, 2]},  # a prompt, and apart from it the answer
        {"input_ids": [5, 6, 7, 8], "labels": [-100, -100, 9, 2]},
        {"chosen_input_ids": [5], "chosen_labels": [5], "rejected_input_ids": [5, 7], "rejected_labels": [7, 8]},
    ],
    ids=["another length", "other tokens", "one of a pair"],
)
def test_rows_whose_labels_are_not_their_inputs_are_refused(row):
    with pytest.raises(DidsError, match="dids_tasks: the labels of row 2 of 'exam' are not those of its inputs"):
        check_aligned({"exam": [*samples(2, seed=1), row]})


def test_a_usable_task_on_which_no_domain_has_an_impact_ends_the_run():
    impact_DT = np.array([[0.1, 0.0, 0.0], [0.0, 0.0, 0.0]])
    check_impact(impact_DT, np.array([True, False, False]), ["a", "b", "c"])
    with pytest.raises(DidsError, match="impact of all 2 domains on the task 'c' is zero"):
        check_impact(impact_DT, np.array([True, False, True]), ["a", "b", "c"])
