"""The domains: the data sets, a map given by its path, or a map made (or found in the cache) by clustering."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...artifacts.domain_map import BY_SOURCE, DomainMap, load_map, save_map
from ...artifacts.files import check_same, fingerprint
from ...artifacts.gradient_store import GradientStore
from ...artifacts.samples import codes
from ...config import MixingConfig
from ...errors import DidsError
from ...stages import ranks
from ...stages.axes import view_of
from ...stages.cluster import StoredFeatures, cluster_domains, domain_shares, number_for
from ...stages.kmeans import require_faiss
from ...stages.means import central_samples
from ..data.source import DataSource
from ..host.randomness import undisturbed_randomness
from ..settings import Settings, cache_folder
from .features import feature_source, feature_store
from .samples import TokenisedSamples

logger = logging.getLogger(__name__)

TYPICAL_TEXTS = 3


def find_domains(source: DataSource, samples: TokenisedSamples) -> DomainMap:
    """The domain map of `dids_domains`. Raises DidsError if a data set has no training row."""
    settings = source.settings
    _check_sources(samples, source.data_args.dataset)
    wanted = settings.config.dids_domains
    if wanted == "source":
        return domains_by_source(samples, source.data_args.dataset, settings.seed)
    if wanted == "cluster":
        return clustered_map(source, samples)
    return given_map(settings)


def _check_sources(samples: TokenisedSamples, names: Sequence[str]) -> None:
    """Raise DidsError for a data set without a training row."""
    present = set(samples.sources.unique().to_pylist())
    if gone := [name for name in names if name not in present]:
        raise DidsError(
            f"dataset: {gone[0]!r} has no training row, since LLaMA-Factory dropped all of its examples, or val_size "
            "holds them out; allowed: a dataset with an example in the format of the stage"
        )


def domains_by_source(samples: TokenisedSamples, sources: Sequence[str], seed: int) -> DomainMap:
    """A map with a domain for each data set. Without features, the typical texts are of random samples, by seed."""
    domains_N = codes(samples.sources, sources)
    texts = {}
    for domain, source in enumerate(sources):
        rows_M = np.flatnonzero(domains_N == domain)
        chosen = np.random.default_rng((seed, domain)).permutation(rows_M)[:TYPICAL_TEXTS]
        texts[source] = [samples.text(i) for i in chosen.tolist()]
    return DomainMap(tuple(sources), samples.keys, samples.sources, domains_N, texts, BY_SOURCE)


def given_map(settings: Settings) -> DomainMap:
    """The map at `dids_domains`. Raises DidsError if a clustering key was given with another value than the map's.

    `dids_seed` may differ: with a given map it is the seed of sampling alone.
    """
    path = Path(settings.config.dids_domains).expanduser()
    domain_map = load_map(path)
    for key, value in domain_map.inputs.items():
        if key != "dids_seed" and key in settings.arguments and getattr(settings.config, key) not in (None, value):
            raise DidsError(
                f"{key}: got {settings.arguments[key]!r}, but {path} was made with {value!r}; "
                "allowed: the map's value, or dids_domains: cluster"
            )
    return domain_map


@undisturbed_randomness()
def clustered_map(source: DataSource, samples: TokenisedSamples) -> DomainMap:
    """The map that these inputs make: read from the cache, or made by features and k-means on all ranks.

    Raises DidsError, with both values, if the cache holds a map or store of other inputs.
    """
    settings = source.settings
    groups_N, groups = _groups(settings.config, samples)
    config = _with_number(settings.config, len(groups_N), len(groups))
    features = feature_source(source, samples)
    made_from = features.inputs()
    inputs = _map_inputs(config, settings.seed) | {features.name: made_from}
    folder = cache_folder(config) / "domains" / fingerprint(inputs)
    if ranks.decided_by_first((folder / "domains.json").exists):
        domain_map = load_map(ranks.wait_to_see(folder / "domains.json").parent)
        check_same(folder, domain_map.inputs, inputs)
        logger.info("domains: using %s (%d domains)", folder, len(domain_map.names))
        return domain_map
    shares = domain_shares(np.bincount(groups_N).tolist(), config.dids_num_domains, config.dids_cluster_shares)
    require_faiss()
    with source.clock.on("domain_seconds"):
        store = feature_store(features, made_from)
        ranks.done_by_first(lambda: save_map(_cluster(config, settings.seed, samples, store, shares, inputs), folder))
        logger.info("domains: made %s", folder)
    return load_map(ranks.wait_to_see(folder / "domains.json").parent)


def _with_number(config: MixingConfig, num_samples: int, num_groups: int) -> MixingConfig:
    """The keys with a number of domains: the number given, or one by the number of samples."""
    if config.dids_num_domains is not None:
        return config
    number = number_for(num_samples, num_groups, config.dids_min_domain_size)
    logger.info("domains: %d of %d samples (dids_num_domains sets another number)", number, num_samples)
    return replace(config, dids_num_domains=number)


def _map_inputs(config: MixingConfig, seed: int) -> dict[str, Any]:
    keys = ("num_domains", "cluster_scope", "cluster_shares", "cluster_features", "min_domain_size", "normalize")
    return {f"dids_{key}": getattr(config, f"dids_{key}") for key in keys} | {"dids_seed": seed}


def _groups(config: MixingConfig, samples: TokenisedSamples) -> tuple[NDArray[np.int64], list[str]]:
    """(index of each sample's k-means group, names of the groups): a group for each source, or one for all."""
    if config.dids_cluster_scope == "global":
        return np.zeros(len(samples.sources), dtype=np.int64), ["global"]
    groups = samples.sources.unique().to_pylist()
    return codes(samples.sources, groups), groups


def _cluster(
    config: MixingConfig,
    seed: int,
    samples: TokenisedSamples,
    store: GradientStore,
    shares: list[int],
    inputs: dict[str, Any],
) -> DomainMap:
    groups_N, groups = _groups(config, samples)
    features = StoredFeatures(store, config.dids_normalize)
    written_N = features.written_N
    if not written_N.any():
        key = "model_name_or_path" if config.dids_proxy_model is None else "dids_proxy_model"
        raise DidsError(
            f"{key}: no training sample has features that are finite and not all zero; allowed: a model without NaN or "
            "infinite weights, in a precision that holds its gradients (bf16 or fp32, not fp16)"
        )
    if lost := int((~written_N).sum()):
        logger.warning(
            "%d of %d samples have no features and join their dataset's largest domain", lost, len(written_N)
        )
    domains_N = cluster_domains(features, written_N, groups_N, shares, min_size=config.dids_min_domain_size, seed=seed)
    names = _names(domains_N, groups_N, groups)
    if len(names) < config.dids_num_domains:
        logger.warning(
            "%d domains instead of %d: clusters under dids_min_domain_size (%d) joined their nearest",
            len(names),
            config.dids_num_domains,
            config.dids_min_domain_size,
        )
    central = central_samples(features, written_N, domains_N, TYPICAL_TEXTS)
    texts = {name: [samples.text(i) for i in rows] for name, rows in zip(names, central, strict=True)}
    return DomainMap(names, samples.keys, samples.sources, domains_N, texts, inputs, view_of(features, written_N))


def _names(domains_N: Any, groups_N: Any, groups: list[str]) -> tuple[str, ...]:
    """`group/0`, `group/1`, …, from a group's largest domain to its smallest."""
    names: list[str] = []
    for group, name in enumerate(groups):
        names += [f"{name}/{i}" for i in range(len(np.unique(domains_N[groups_N == group])))]
    return tuple(names)
