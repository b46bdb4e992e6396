"""Every `dids_*` key, with its type, default and help.

The host's argument parser (`--help` included), the checks and `config.yaml` are made from this one dataclass. An option
of a mixer that is None takes the value of `dids_preset`; the mixers know the presets.
"""

import dataclasses
import math
import types
import typing
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin

from .errors import refuse

FEW_UPDATES = 6  # a run with fewer updates of the mixture loses most of the gain (Figure 2a)
WINDOWS = 25  # updates of a run that does not set dids_update_samples, as in the paper


def _key(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class MixingConfig:
    """The keys of a YAML file that are about data mixing. Counts are samples unless a name says otherwise."""

    dids_tasks: str | None = _key(
        None, "Downstream tasks to observe: dataset names, comma-separated. Defaults to `eval_dataset`."
    )
    dids_task_samples: int = _key(200, "Samples observed of each task.")
    dids_domains: str = _key(
        "cluster", "`cluster` (make domains by k-means), `source` (a domain a dataset), or a domain map's path."
    )
    dids_proxy_model: str | None = _key(
        None, "Model whose gradients are clustered, e.g. Qwen/Qwen2.5-0.5B. Defaults to the trained model."
    )
    dids_num_domains: int | None = _key(
        None, "Domains in all. Defaults to 72, or as few as leave each twice dids_min_domain_size samples."
    )
    dids_cluster_scope: Literal["source", "global"] = _key(
        "source", "k-means inside each dataset (`source`), or over all of them (`global`)."
    )
    dids_cluster_shares: Literal["sqrt", "equal"] = _key(
        "sqrt", "How the domains are shared out over the datasets: by the root of their size, or equally."
    )
    dids_cluster_features: Literal["gradient", "semantic"] = _key(
        "gradient", "What is clustered: gradients of the proxy, or (`semantic`) sentence embeddings."
    )
    dids_semantic_model: str = _key(
        "sentence-transformers/all-MiniLM-L6-v2", "sentence-transformers model of the semantic features."
    )
    dids_min_domain_size: int = _key(32, "A smaller cluster joins its nearest neighbour in the same dataset.")
    dids_normalize: bool = _key(True, "Cluster features of unit length, so that length and loss do not decide.")
    dids_gradient_layers: float = _key(
        0.1, "Share of the decoder blocks, counted from the last, whose linear layers are tracked."
    )
    dids_topk_ratio: float = _key(0.1, "Share of a sample's gradient entries kept, by magnitude.")
    dids_projection_dim: int = _key(1024, "Dimension after the random projection.")
    dids_update_samples: int | None = _key(
        None,
        "Training samples between two updates of the mixture (the paper's tau). Defaults to a 25th of the run's, which "
        "are the paper's 4,000 at its own 100,000.",
    )
    dids_preset: Literal["default", "paper", "literal", "authors"] = _key(
        "default", "Which reading of the method the options left unset take."
    )
    dids_impact: Literal["preconditioned", "fisher", "gradient", "kl"] | None = _key(
        None, "Metric of the domain impact: F^(-1/2), the Fisher matrix, none, or the distance itself."
    )
    dids_impact_normalize: Literal["cosine", "dot", "sum", "none", "authors"] | None = _key(
        None, "What is taken of the impact."
    )
    dids_task_weights: Literal["alike", "raw", "printed", "authors"] | None = _key(
        None, "Weights of the tasks: alike, or by their loss improvement and potential."
    )
    dids_trajectory: bool | None = _key(None, "false: ignore the loss trajectory, weigh all tasks alike (DIDS-LT).")
    dids_update: Literal["evidence", "exponentiated", "standardized", "softmax", "linear"] | None = _key(
        None, "How a utility becomes a probability."
    )
    dids_eta: float | None = _key(None, "Step size of the updates that start from the old p.")
    dids_divide_by_p: bool | None = _key(None, "Divide the utility by the old probability, as equation 16 does.")
    dids_ema_beta: float | None = _key(None, "Weight of the old probabilities in the moving average.")
    dids_floor: float | None = _key(None, "Least probability of a domain, as a share of an even mixture's.")
    dids_init: Literal["uniform", "proportional", "importance"] | None = _key(
        None, "The mixture at the start; `importance`: the share of the tasks' samples nearest to each domain."
    )
    dids_similarity: Literal["cosine", "dot"] | None = _key(None, "Gradient alignment of `dga` and `doge`.")
    dids_doremi_target: Literal["tasks", "domains"] | None = _key(
        None, "What `doremi` compares the proxy with the reference on: the observed tasks, or the domains themselves."
    )
    dids_proxy_share: float | None = _key(
        None, "Share of the main run's training samples that a proxy run of `doge`, `doremi` or `velocitune` trains on."
    )
    dids_probs: str | None = _key(
        None,
        "`static`: shares of datasets or domains by name (math=0.6, code=0.4; the rest by size), a number for each in "
        "their order, or the path of a run's mixture.jsonl.",
    )
    dids_schedule: str | None = _key(
        None,
        "`schedule`: mixtures at points of the run from 0 to 1, on straight lines between them "
        "(0: web=0.8, math=0.2; 1: math=1).",
    )
    dids_share_of: Literal["samples", "tokens"] = _key(
        "samples", "What a probability is a share of: the training samples, or all of their tokens."
    )
    dids_max_repeats: int | None = _key(
        None, "How often a sample may be seen; then its domain leaves its share to the others. Defaults to no limit."
    )
    dids_domain_gradients: Literal["running", "fresh"] = _key(
        "running", "Domain gradients from the training batches, or measured anew at each update."
    )
    dids_fresh_samples: int = _key(64, "Samples for a fresh domain gradient.")
    dids_tracked_entries: int = _key(
        1_000_000, "Gradient entries compared at an update: a fixed random block of each tracked matrix."
    )
    dids_cache_dir: str = _key("~/.cache/llamafactory-dids", "Gradient stores and domain maps.")
    dids_seed: int | None = _key(None, "Seed of projection, k-means and sampling. Defaults to `seed`.")

    def tasks(self) -> tuple[str, ...]:
        """The dataset names of the observed tasks, in the order given."""
        return split_list(self.dids_tasks)


FIELDS = {item.name: item for item in dataclasses.fields(MixingConfig)}

_RANGES: dict[str, tuple[float, float, str]] = {
    "dids_task_samples": (1, float("inf"), "an integer >= 1"),
    "dids_num_domains": (1, float("inf"), "an integer >= 1"),
    "dids_min_domain_size": (1, float("inf"), "an integer >= 1"),
    "dids_projection_dim": (2, 1 << 30, "an integer from 2 to 1073741824"),
    "dids_update_samples": (1, float("inf"), "an integer >= 1"),
    "dids_max_repeats": (1, float("inf"), "an integer >= 1"),
    "dids_fresh_samples": (1, float("inf"), "an integer >= 1"),
    "dids_tracked_entries": (1, float("inf"), "an integer >= 1"),
    "dids_seed": (0, 2**31 - 1, "an integer from 0 to 2147483647"),
    "dids_gradient_layers": (1e-9, 1.0, "a share in (0, 1]"),
    "dids_topk_ratio": (1e-9, 1.0, "a share in (0, 1]"),
}


def split_list(value: Any) -> tuple[str, ...]:
    """Names from `a, b` or from [a, b], as a tuple; empty for None."""
    if value is None:
        return ()
    items = value if isinstance(value, list | tuple) else str(value).split(",")
    return tuple(str(item).strip() for item in items if str(item).strip())


def make_config(values: dict[str, Any]) -> MixingConfig:
    """A checked configuration from the raw values of a YAML file.

    Raises DidsError on a wrong type, or a value that is not allowed.
    """
    checked = {name: _checked(name, value) for name, value in values.items() if name in FIELDS}
    return MixingConfig(**checked)


def _checked(name: str, value: Any) -> Any:
    kinds = _kinds(FIELDS[name].type)
    value = _converted(name, as_text(name, value), kinds)
    low, high, allowed = _RANGES.get(name, (float("-inf"), float("inf"), ""))
    if value is not None and allowed and not low <= value <= high:
        raise refuse(name, value, allowed)
    return value


def as_text(name: str, value: Any) -> Any:
    """A YAML list or mapping as the text that the key expects.

    A list becomes `a,b`, a mixture `a=0.6,b=0.4`, a schedule `0: a=1; 1: b=1`. Any other value is returned as it is.
    """
    if isinstance(value, dict) and name in ("dids_probs", "dids_schedule"):
        if name == "dids_schedule":
            return "; ".join(f"{at}: {as_text('dids_probs', mixture)}" for at, mixture in value.items())
        return ",".join(f"{key}={number}" for key, number in value.items())
    if isinstance(value, list | tuple) and str in _kinds(FIELDS[name].type):
        return ",".join(map(str, value))
    return value


def _kinds(annotation: Any) -> tuple[Any, ...]:
    """The alternatives of a field's type: `int | None` gives (int, NoneType), Literals stay whole."""
    return get_args(annotation) if get_origin(annotation) in (types.UnionType, typing.Union) else (annotation,)


def _converted(name: str, value: Any, kinds: tuple[Any, ...]) -> Any:
    for kind in kinds:
        if get_origin(kind) is Literal:
            if value in get_args(kind):
                return value
        elif kind in (bool, types.NoneType):
            if isinstance(value, kind):
                return value
        elif not isinstance(value, bool) and value is not None:
            converted = _number_or_text(kind, value)
            if converted is not None:
                return converted
    raise refuse(name, value, _describe(kinds))


def _number_or_text(kind: Any, value: Any) -> Any:
    if kind is str:
        return str(value) if isinstance(value, str | int | float) else None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    if not math.isfinite(number):
        return None
    if kind is int:
        return int(number) if number == int(number) else None
    return number


def _describe(kinds: tuple[Any, ...]) -> str:
    names = {int: "an integer", float: "a number", bool: "true or false", str: "text"}
    (kind,) = (kind for kind in kinds if kind is not types.NoneType)
    return names.get(kind) or ", ".join(get_args(kind))
