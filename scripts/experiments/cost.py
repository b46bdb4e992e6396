"""The cost of each stage in floating point operations, at the paper's sizes and at any others.

    python scripts/experiments/reproduce.py --table 3/12 --render    # the paper's, this model's, and what was measured

A forward pass costs 2 operations a parameter and token, and attention 2 L W S more, for L layers of width W over S
earlier positions, causal. A backward pass is two forward ones; through the last tenth of the blocks alone, a tenth of
that. So with N parameters and T tokens

    training            3 T f          f = 2 N + 2 L W S
    gradient clusters   T f (1 + 2 s)  by the proxy, s the share of the blocks that are tracked
    semantic clusters   T f            by the encoder
    an update           O f (1 + 2 s)  O tokens of the observed samples of all tasks
    proxy runs          3 T f          each, by the proxy

Not counted, since they are smaller by orders: projection, running sums, k-means (the nearest of 72 centres of 1,024
numbers for each of 939,344 samples is 0.00014 PFLOP).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from llamafactory_dids.core.computing import gradient_passes, training_passes

PETA = 1e15


@dataclass(frozen=True)
class Model:
    """What a pass depends on; `parameters` without the input embeddings, which are looked up."""

    parameters: float
    layers: int
    width: int

    def forward(self, tokens: float, length: int) -> float:
        """Operations of a forward pass over so many tokens, in sequences of `length`."""
        return tokens * (2 * self.parameters + 2 * self.layers * self.width * length)

    def training(self, tokens: float, length: int) -> float:
        """Forward and backward."""
        return training_passes(self.forward(tokens, length))

    def gradients(self, tokens: float, length: int, share: float) -> float:
        """Forward, and backward through the last `share` of the blocks."""
        return gradient_passes(self.forward(tokens, length), share)


@dataclass(frozen=True)
class Sizes:
    """A run: how much it trains on, clusters and observes."""

    model: Model
    proxy: Model  # whose gradients are clustered
    encoder: Model  # of semantic clusters
    small: Model  # what doremi and doge train first
    train_tokens: float
    pool_tokens: float  # what is clustered
    observed_tokens: float  # of all tasks' observed samples, once
    updates: int
    length: int
    observed_length: int
    share: float = 0.1  # of the blocks
    pilot_share: float = 0.51  # of the samples, by velocitune's full-size pilot
    tasks: int = 9


LLAMA_8B = Model(8.03e9 - 128_256 * 4096, 32, 4096)  # embeddings and head are apart
QWEN_05B = Model(494e6, 24, 896)  # the head is the embeddings, and multiplies
MODEL_280M = Model(280e6, 12, 1024)  # Appendix I says no more than its size; DoReMi's 280M is of this shape
PAPER = Sizes(
    model=LLAMA_8B,
    proxy=QWEN_05B,
    encoder=QWEN_05B,  # "two approaches using 500M models"
    small=MODEL_280M,
    train_tokens=1e9,
    pool_tokens=1e9,
    observed_tokens=9 * 200 * 128,  # section 5.4 has the samples, not their length
    updates=25,
    length=8192,
    observed_length=128,
)


def _of_mini(parameters: float, layers: int, width: int) -> Sizes:
    """A mini preset's: one small model, which is its own proxy; `parameters` without the input embeddings."""
    model = Model(parameters, layers, width)
    tokens = 100  # of a sample, on average
    return Sizes(
        model=model,
        proxy=model,
        encoder=model,
        small=model,
        train_tokens=6400 * tokens,
        pool_tokens=22320 * tokens,
        observed_tokens=9 * 40 * tokens,
        updates=16,
        length=tokens,
        observed_length=tokens,
        share=1 / layers,  # one block at least is tracked
        pilot_share=0.5,
    )


MINI_SIZES = {"cpu": _of_mini(917504, 4, 128), "cpu_3m": _of_mini(3145728, 4, 256)}  # by runner.py's --size


def stages(sizes: Sizes, strategy: str, *, shared_clusters: bool = False) -> dict[str, float]:
    """Operations of each stage of a run of `strategy`: dids, dids_gc, dga, doremi, doge, velocitune, or a fixed one.

    `shared_clusters` counts gradient clusters for all, as here, and as Appendix B.3 says of the baselines; Tables 3
    and 12 count semantic ones for DGA, and none for the others.
    """
    model, length = sizes.model, sizes.length
    found = {"base": model.training(sizes.train_tokens, length)}
    update = model.gradients(sizes.observed_tokens, sizes.observed_length, sizes.share)
    small = sizes.small.training(sizes.train_tokens, length)
    small_update = sizes.small.gradients(sizes.observed_tokens, sizes.observed_length, sizes.share)
    if strategy in ("dids", "dids_gc", "dga"):
        found |= {"cluster": clusters(sizes, semantic=strategy != "dids"), "impact": sizes.updates * update}
    if shared_clusters:
        found["cluster"] = clusters(sizes)
    if strategy == "dids":
        found["trajectory"] = trajectory(sizes)
    if strategy == "doge":
        found["proxy_runs"] = small + sizes.updates * small_update
    if strategy == "doremi":
        excess = 2 * sizes.small.forward(sizes.observed_tokens, sizes.observed_length)
        found["proxy_runs"] = 2 * small + sizes.updates * (small_update + excess)
    if strategy == "velocitune":
        found["proxy_runs"] = sizes.pilot_share * found["base"]
        found["impact"] = sizes.updates * update
    return found


def clusters(sizes: Sizes, *, semantic: bool = False) -> float:
    """Features of the pool: of the encoder, or gradients of the proxy."""
    if semantic:
        return sizes.encoder.forward(sizes.pool_tokens, sizes.length)
    return sizes.proxy.gradients(sizes.pool_tokens, sizes.length, sizes.share)


def trajectory(sizes: Sizes, grid: int = 200) -> float:
    """The decay fits: at each update and for each task, a search over `grid` rates with some ten operations a point."""
    return float(sum(10 * grid * points for points in range(1, sizes.updates + 1)) * sizes.tasks)


def total(found: Mapping[str, float]) -> float:
    """Of all stages."""
    return sum(found.values())


# --- measured ------------------------------------------------------------------------------------------------


def measured(cost: Mapping[str, float]) -> dict[str, float]:
    """Seconds of each stage of a run that was made, from the `cost` of its line of results.

    `seconds` and `update_seconds` are what a run's cost.json has: the training, measuring included, and the measuring.
    """
    measuring = cost["update_seconds"]
    found = {"base": cost["seconds"] - measuring, "impact": measuring}
    return found | ({"cluster": cost["clustering_seconds"]} if "clustering_seconds" in cost else {})


def shares(found: Mapping[str, float]) -> dict[str, float]:
    """Each stage as a share of the training, measured or predicted, so that the two stand side by side."""
    return {stage: value / found["base"] for stage, value in found.items() if stage != "base"}
