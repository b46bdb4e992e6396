"""Where the domains come from: the data sets, a map given by its path, or one made (or found) by clustering."""

import gc
import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import torch

from ..artifacts.domain_map import DomainMap, load_map, save_map
from ..artifacts.files import check_same, fingerprint
from ..artifacts.gradient_store import GradientStore, open_store
from ..config import MixingConfig
from ..errors import DidsError
from ..stages import ranks
from ..stages.batching import pad_collate
from ..stages.cluster import central_samples, cluster_domains, domain_shares, read_features
from ..stages.gradients import SampleProjector, Samples, fill_store
from ..stages.layers import track_layers
from ..training.collator import KEY_COLUMN, SOURCE_COLUMN
from . import proxy
from .settings import Settings

logger = logging.getLogger(__name__)

TYPICAL_TEXTS = 3
MAX_TEXT = 400  # characters of a typical sample's text


class TokenisedSamples:
    """The training samples one by one, in the order that the host gives them, with their tags."""

    def __init__(self, dataset: Any, tokenizer: Any) -> None:
        self.dataset = dataset
        self.tokenizer = tokenizer
        self.keys: list[str] = list(dataset[KEY_COLUMN])
        self.sources: list[str] = list(dataset[SOURCE_COLUMN])

    def text(self, index: int) -> str:
        """A sample's text, cut to a readable length."""
        text = " ".join(self.tokenizer.decode(self.dataset[index]["input_ids"], skip_special_tokens=True).split())
        return text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + " …"

    def lengths(self) -> list[int]:
        """Tokens of each sample, without making Python lists of the tokens."""
        batches = self.dataset.with_format("arrow").iter(batch_size=10_000)
        return [n for batch in batches for n in pc.list_value_length(batch["input_ids"]).to_pylist()]

    def digest(self) -> str:
        """Changes with any sample, or their order."""
        digest = hashlib.blake2b(digest_size=8)
        for source, key in zip(self.sources, self.keys, strict=True):
            digest.update(f"{source}\0{key}\n".encode())
        return digest.hexdigest()


def domains_by_source(samples: TokenisedSamples, sources: Sequence[str]) -> DomainMap:
    """Each data set is a domain."""
    index = {source: i for i, source in enumerate(sources)}
    domains_N = np.array([index[source] for source in samples.sources], dtype=np.int64)
    return DomainMap(tuple(sources), samples.keys, samples.sources, domains_N, inputs={"domains": "source"})


def given_map(settings: Settings) -> DomainMap:
    """The map at `dids_domains`. Raises DidsError where clustering keys that were set say otherwise.

    `dids_seed` may differ: with a given map it is the seed of sampling alone.
    """
    path = Path(settings.config.dids_domains).expanduser()
    domain_map = load_map(path)
    for key, value in domain_map.inputs.items():
        if key != "dids_seed" and key in settings.arguments and getattr(settings.config, key) != value:
            raise DidsError(
                f"{key}: got {settings.arguments[key]!r}, but {path} was made with {value!r}; "
                "allowed: the map's value, or dids_domains: cluster"
            )
    return domain_map


def clustered_map(
    settings: Settings, model_args: Any, data_args: Any, stage: str, samples: TokenisedSamples
) -> DomainMap:
    """The map that these inputs make: read if it is in the cache, else made by gradients and k-means, on all ranks.

    Raises DidsError, with both values, where what the cache holds was made from other inputs.
    """
    config = settings.config
    inputs = _map_inputs(config, settings.seed, _gradient_inputs(settings, model_args, data_args, stage, samples))
    folder = cache_folder(config) / "domains" / fingerprint(inputs)
    if (folder / "domains.json").exists():
        domain_map = load_map(folder)
        check_same(folder, domain_map.inputs, inputs)
        logger.info("domains: using %s (%d domains)", folder, len(domain_map.names))
        return domain_map
    shares = _shares(config, samples)
    store = _gradient_store(settings, model_args, samples, inputs["gradients"])
    failure: DidsError | None = None
    if ranks.world()[0] == 0:
        try:
            save_map(_cluster(config, settings.seed, samples, store, shares, inputs), folder)
            logger.info("domains: made %s", folder)
        except DidsError as error:
            failure = error
    if messages := ranks.all_failures(failure):
        raise failure or DidsError(messages[0])
    return load_map(folder)


def cache_folder(config: MixingConfig) -> Path:
    """`dids_cache_dir`, absolute."""
    return Path(config.dids_cache_dir).expanduser().absolute()


def _gradient_inputs(
    settings: Settings, model_args: Any, data_args: Any, stage: str, samples: TokenisedSamples
) -> dict[str, Any]:
    config = settings.config
    return {
        "proxy": proxy.identity(settings, model_args),
        "vocabulary": len(samples.tokenizer),
        "template": data_args.template,
        "stage": stage,
        "cutoff_len": data_args.cutoff_len,
        "train_on_prompt": data_args.train_on_prompt,
        "mask_history": data_args.mask_history,
        "samples": samples.digest(),
        "dids_gradient_layers": config.dids_gradient_layers,
        "dids_topk_ratio": config.dids_topk_ratio,
        "dids_projection_dim": config.dids_projection_dim,
        "dids_seed": settings.seed,
    }


def _map_inputs(config: MixingConfig, seed: int, gradients: dict[str, Any]) -> dict[str, Any]:
    keys = ("num_domains", "cluster_scope", "cluster_shares", "cluster_features", "min_domain_size", "normalize")
    values = {f"dids_{key}": getattr(config, f"dids_{key}") for key in keys}
    return {**values, "dids_seed": seed, "gradients": gradients}


def _groups(config: MixingConfig, samples: TokenisedSamples) -> tuple[list[str], list[str]]:
    """(name of the k-means group of each sample, the groups in order): a source each, or one for all."""
    if config.dids_cluster_scope == "global":
        return ["global"] * len(samples.sources), ["global"]
    return samples.sources, list(dict.fromkeys(samples.sources))


def _shares(config: MixingConfig, samples: TokenisedSamples) -> list[int]:
    group_N, groups = _groups(config, samples)
    return domain_shares([group_N.count(g) for g in groups], config.dids_num_domains, config.dids_cluster_shares)


def _gradient_store(
    settings: Settings, model_args: Any, samples: TokenisedSamples, inputs: dict[str, Any]
) -> GradientStore:
    config = settings.config
    folder = cache_folder(config) / "gradients" / fingerprint(inputs)
    if ranks.world()[0] == 0:
        open_store(folder, inputs, len(samples.keys), config.dids_projection_dim)
    ranks.wait_for_all()
    store = open_store(folder, inputs, len(samples.keys), config.dids_projection_dim)
    if not store.missing_parts():
        logger.info("gradients: using %s", folder)
        return store
    pad_id = samples.tokenizer.pad_token_id
    device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    model = proxy.load_proxy(settings, model_args, samples.tokenizer, device)
    tracked = track_layers(model, config.dids_gradient_layers)
    projector = SampleProjector(model, tracked, config.dids_topk_ratio, config.dids_projection_dim, settings.seed)
    fill_store(store, Samples(samples.dataset, samples.lengths(), pad_collate(pad_id)), projector)
    del model, tracked, projector
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # the trained model comes next
    return store


def _cluster(
    config: MixingConfig,
    seed: int,
    samples: TokenisedSamples,
    store: GradientStore,
    shares: list[int],
    inputs: dict[str, Any],
) -> DomainMap:
    group_N, groups = _groups(config, samples)
    index = {group: i for i, group in enumerate(groups)}
    groups_N = np.array([index[group] for group in group_N], dtype=np.int64)
    features_NK, written_N = read_features(store, config.dids_normalize)
    if lost := int((~written_N).sum()):
        logger.warning(
            "%d of %d samples have no gradient and join their dataset's largest domain", lost, len(written_N)
        )
    domains_N = cluster_domains(
        features_NK, written_N, groups_N, shares, min_size=config.dids_min_domain_size, seed=seed
    )
    names = _names(domains_N, groups_N, groups)
    if len(names) < config.dids_num_domains:
        logger.warning(
            "%d domains instead of %d: clusters under dids_min_domain_size (%d) joined their nearest",
            len(names),
            config.dids_num_domains,
            config.dids_min_domain_size,
        )
    central = central_samples(features_NK, written_N, domains_N, TYPICAL_TEXTS)
    texts = {name: [samples.text(i) for i in rows] for name, rows in zip(names, central, strict=True)}
    return DomainMap(names, samples.keys, samples.sources, domains_N, texts, inputs)


def _names(domains_N: Any, groups_N: Any, groups: list[str]) -> tuple[str, ...]:
    """`group/0`, `group/1`, … from a group's largest domain to its smallest."""
    names: list[str] = []
    for group, name in enumerate(groups):
        names += [f"{name}/{i}" for i in range(len(np.unique(domains_N[groups_N == group])))]
    return tuple(names)
