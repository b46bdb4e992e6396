"""Every public function of the core, on numbers that nobody wants: what is broken stays where it is."""

import importlib
import inspect
import math
import pkgutil
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llamafactory_dids import core
from llamafactory_dids.core import computing, fisher, fused, moments, projection, selection, simplex, trajectory

SINGLES = st.sampled_from([0.0, 1.0, -1.0, 1e38, -1e38, 1e-45, math.nan, math.inf, -math.inf]) | st.floats(
    -2, 2, width=32
)
FINITE = st.sampled_from([0.0, 1.0, -1.0, 1e60, -1e60, 5e-324]) | st.floats(-1e60, 1e60)
SIZES = st.integers(1, 4)


@st.composite
def tables(draw: st.DrawFn, rows: int, columns: int, values: Any = SINGLES) -> torch.Tensor:
    flat = draw(st.lists(values, min_size=rows * columns, max_size=rows * columns))
    return torch.tensor(flat, dtype=torch.float32).reshape(rows, columns)


@st.composite
def measured(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of domains and of tasks, and the Fisher diagonals; of no task too."""
    num_domains, num_tasks, size = draw(SIZES), draw(st.integers(0, 3)), draw(SIZES)
    fisher_TP = draw(tables(num_tasks, size)).abs()
    return draw(tables(num_domains, size)), draw(tables(num_tasks, size)), fisher_TP


def vectors(values: Any = FINITE) -> st.SearchStrategy[np.ndarray]:
    return st.lists(values, min_size=1, max_size=6).map(np.array)


MIXTURES = vectors(st.sampled_from([1e-320, 1e-30, 1.0, 1e130]) | st.floats(0, 1)).filter(np.any).map(simplex.normalize)


def assert_mixture(p_D: np.ndarray) -> None:
    assert np.isfinite(p_D).all() and (p_D >= 0).all() and abs(math.fsum(p_D) - 1) < 1e-12, p_D


# --- the properties, a test each ------------------------------------------------------------------------------------


@given(vectors())
def softmax(scores_D: np.ndarray) -> None:
    assert_mixture(simplex.softmax(scores_D))


@given(vectors(st.sampled_from([0.0, 5e-324, 1e-300, 1e308])).filter(np.any))
def normalize(weights_D: np.ndarray) -> None:
    assert_mixture(simplex.normalize(weights_D))


@given(st.data())
def exponentiated(data: st.DataObject) -> None:
    p_D = data.draw(MIXTURES)
    assert_mixture(
        simplex.exponentiated(p_D, data.draw(st.lists(FINITE, min_size=len(p_D), max_size=len(p_D)).map(np.array)))
    )


@given(vectors())
def standardize(values_D: np.ndarray) -> None:
    assert np.isfinite(simplex.standardize(values_D)).all()


@given(MIXTURES, st.floats(0, 1, exclude_max=True))
def mixtures(p_D: np.ndarray, share: float) -> None:
    for made_D in (
        simplex.blend(p_D, p_D[::-1], share),
        simplex.mix_floor(p_D, share),
        simplex.raise_to_floor(p_D, share),
        simplex.mean_over(np.array([0, 1, 5]), np.stack([p_D, p_D[::-1], p_D])),
    ):
        assert_mixture(made_D)


@given(vectors(SINGLES))
def validate_probabilities(values_D: np.ndarray) -> None:
    try:
        assert_mixture(simplex.validate_probabilities(values_D, 3))
    except ValueError as error:
        assert str(error).startswith("dids_probs: got ") and "\n" not in str(error)


@given(measured())
def impact(given_: tuple[torch.Tensor, ...]) -> None:
    domain_DP, task_TP, fisher_TP = given_
    broken_D, broken_T = ~domain_DP.isfinite().all(dim=1), ~task_TP.isfinite().all(dim=1)
    for kind in fisher.KINDS:
        for how in fisher.NORMALIZATIONS:
            found_DT = fisher.impact(domain_DP, task_TP, fisher_TP, kind, how)
            assert np.isfinite(found_DT).all()
            assert not found_DT[broken_D.numpy()].any() and not found_DT[:, broken_T.numpy()].any()


@given(measured())
def directions(given_: tuple[torch.Tensor, ...]) -> None:
    _, task_TP, fisher_TP = given_
    usable_T = fisher.usable_tasks(task_TP, fisher_TP)
    assert (usable_T <= (task_TP.isfinite().all(dim=1) & task_TP.any(dim=1)).numpy()).all()
    for kind in fisher.METRICS:
        found_TP = fisher.directions(task_TP, fisher_TP, kind)
        assert found_TP.isfinite().all() and not found_TP[torch.tensor(~usable_T)].any()


@given(st.data())
def moments_of(data: st.DataObject) -> None:
    count, num_tasks = data.draw(SIZES), data.draw(SIZES)
    sums = moments.Moments(3, num_tasks)
    scores_NT, weights_N = data.draw(tables(count, num_tasks)), data.draw(tables(count, 1))[:, 0]
    sums.add(torch.arange(count) % 2, weights_N, scores_NT)
    found = sums.estimates()
    assert np.isfinite(found.mean_DT).all() and np.isfinite(found.weight_D).all() and (found.weight_D >= 0).all()
    assert not np.isnan(found.covariance_DTT).any() and np.isposinf(found.covariance_DTT[2]).all()


@given(st.data())
def gram_of(data: st.DataObject) -> None:
    gradients_DP = data.draw(tables(3, data.draw(SIZES)))
    whole_D = gradients_DP.isfinite().all(dim=1).numpy()
    assert np.isfinite(fisher.gram(gradients_DP)[np.ix_(whole_D, whole_D)]).all()


@given(st.data())
def projected(data: st.DataObject) -> None:
    gradients_NP = data.draw(tables(3, data.draw(SIZES)))
    ratio = data.draw(st.sampled_from([1e-9, 0.5, 1.0]))
    whole_N = gradients_NP.isfinite().all(dim=1)
    indices_NM, values_NM = selection.keep_largest(gradients_NP, ratio)
    assert indices_NM.shape[1] == selection.num_kept(gradients_NP.shape[1], ratio)
    assert values_NM[whole_N].isfinite().all() and not values_NM[~whole_N].isfinite().all(dim=1).any()
    together_NK = fused.project_largest(gradients_NP, ratio, projection.Projection(gradients_NP.shape[1], 8))
    for row in range(3):
        alone_K = fused.project_largest(
            gradients_NP[row : row + 1], ratio, projection.Projection(gradients_NP.shape[1], 8)
        )
        assert torch.equal(together_NK[row].nan_to_num(7.0), alone_K[0].nan_to_num(7.0))


@given(st.lists(SINGLES | FINITE, max_size=30))
def decays(losses_U: list[float]) -> None:
    decay = trajectory.fit_decay(losses_U)
    assert all(map(math.isfinite, decay)) and min(decay) >= 0
    assert trajectory.B_RANGE[0] <= decay.b <= trajectory.B_RANGE[1]
    assert 0 <= trajectory.potential(losses_U) < math.inf
    seen = [loss for loss in losses_U if math.isfinite(loss)]
    if seen:
        assert trajectory.heading(seen[-1], min(seen), trajectory.potential(losses_U)) in trajectory.Heading.__args__


PROPERTIES = {
    softmax: [simplex.softmax],
    normalize: [simplex.normalize],
    exponentiated: [simplex.exponentiated],
    standardize: [simplex.standardize],
    mixtures: [simplex.blend, simplex.mix_floor, simplex.raise_to_floor, simplex.mean_over],
    validate_probabilities: [simplex.validate_probabilities],
    impact: [fisher.impact, fisher.inner_products],
    directions: [fisher.directions, fisher.usable_tasks, fisher.metric],
    moments_of: [moments.Moments, moments.Estimates],
    gram_of: [fisher.gram],
    projected: [selection.keep_largest, selection.num_kept, projection.Projection, fused.project_largest],
    decays: [trajectory.fit_decay, trajectory.potential, trajectory.heading, trajectory.Decay],
}
OF_NO_SIGNALS = {computing.training_passes, computing.gradient_passes, fisher.InnerProducts}
OF_DEVICES = {"devices", "gpu", "kernels"}


@pytest.mark.parametrize("prove", PROPERTIES, ids=lambda prove: prove.__name__)
def test_hostile_numbers_do_no_harm(prove):
    prove()


def test_every_public_function_of_the_core_has_a_property():
    modules = [importlib.import_module(f"{core.__name__}.{info.name}") for info in pkgutil.iter_modules(core.__path__)]
    public = {
        member
        for module in modules
        for name, member in vars(module).items()
        if not name.startswith("_")
        and (inspect.isfunction(member) or inspect.isclass(member))
        and member.__module__ == module.__name__
        and module.__name__.rpartition(".")[2] not in OF_DEVICES
    }
    assert public == OF_NO_SIGNALS.union(*PROPERTIES.values())
