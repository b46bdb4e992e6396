"""From a run's settings and data to what the trainer is given: domains, tasks, mixer, and the files that say so."""

import dataclasses
import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .. import mixers
from ..artifacts.domain_map import DomainMap
from ..config import split_list
from ..errors import DidsError, refuse
from ..stages import ranks
from ..training.collator import DOMAIN_COLUMN, KEY_COLUMN, SOURCE_COLUMN
from ..training.plan import MixingPlan
from . import proxy
from .checks import mixer_options, trial_mixer
from .domains import TokenisedSamples, clustered_map, domains_by_source, given_map
from .lookup import UNKNOWN, MapLookup, SourceLookup
from .provenance import write_config
from .randomness import undisturbed
from .settings import Settings

if TYPE_CHECKING:
    from .data import DataSource

logger = logging.getLogger(__name__)


def make_plan(settings: Settings, source: "DataSource") -> dict[str, Any]:
    """The host's dataset module, its training set with a domain for each row, and the plan under `mixing`."""
    tasks = _tasks(settings, source)
    if source.packs:
        domain_map = find_domains(settings, source, proxy_samples(settings, source))
        module = source.module(_lookup(settings, source, domain_map))
        domains_N = np.asarray(module["train_dataset"][DOMAIN_COLUMN], dtype=np.int64)
    else:
        module = source.module()
        samples = (
            None if _other_tokens(settings, source) else TokenisedSamples(module["train_dataset"], source.tokenizer)
        )
        domain_map = find_domains(settings, source, samples or proxy_samples(settings, source))
        domains_N = _domains_of(module["train_dataset"], domain_map)
    domain_map, domains_N = _drop_empty(domain_map, domains_N)
    train = module["train_dataset"]
    if DOMAIN_COLUMN in train.column_names:
        train = train.remove_columns(DOMAIN_COLUMN)
    module["train_dataset"] = train.add_column(DOMAIN_COLUMN, domains_N)
    plan = MixingPlan(
        strategy=settings.strategy,
        config=settings.config,
        mixer=_mixer(settings, domain_map, domains_N, source, len(tasks)),
        domain_map=domain_map,
        domains_N=domains_N,
        tasks=tasks,
        folder=Path(source.training_args.output_dir) / "dids",
        seed=settings.seed,
    )
    if ranks.world()[0] == 0:
        write_config(plan, settings)
    return {**module, "mixing": plan}


def find_domains(settings: Settings, source: "DataSource", samples: TokenisedSamples) -> DomainMap:
    """The domain map that `dids_domains` asks for."""
    wanted = settings.config.dids_domains
    if wanted == "source":
        return domains_by_source(samples, source.data_args.dataset)
    if wanted == "cluster":
        return _clustered(settings, source, samples)
    return given_map(settings)


@undisturbed
def _clustered(settings: Settings, source: "DataSource", samples: TokenisedSamples) -> DomainMap:
    return clustered_map(settings, source.model_args, source.data_args, source.stage, samples)


def _other_tokens(settings: Settings, source: "DataSource") -> bool:
    """Whether the gradients are those of a proxy with a tokenizer of its own."""
    return settings.config.dids_domains == "cluster" and not proxy.is_trained_model(settings, source.model_args)


def proxy_samples(settings: Settings, source: "DataSource") -> TokenisedSamples:
    template, module = source.template, {"tokenizer": source.tokenizer, "processor": source.processor}
    if _other_tokens(settings, source):
        template, module = proxy.load_proxy_tokenizer(settings, source.model_args, source.data_args)
    return TokenisedSamples(source.unpacked(template, **module), module["tokenizer"])


def _lookup(settings: Settings, source: "DataSource", domain_map: DomainMap) -> Any:
    if settings.config.dids_domains == "source":
        return SourceLookup(tuple(source.data_args.dataset))
    return MapLookup(domain_map)


def _domains_of(train: Any, domain_map: DomainMap) -> NDArray[np.int64]:
    index = domain_map.lookup()
    pairs = list(zip(train[SOURCE_COLUMN], train[KEY_COLUMN], strict=True))
    domains_N = np.array([index.get(pair, UNKNOWN) for pair in pairs], dtype=np.int64)
    lacking = np.flatnonzero(domains_N == UNKNOWN)
    if len(lacking):
        source, key = pairs[lacking[0]]
        raise DidsError(
            f"dids_domains: the map lacks {len(lacking)} of {len(pairs)} training samples (the first: {key} of "
            f"{source!r}); allowed: a map made from this data"
        )
    return domains_N


def _drop_empty(domain_map: DomainMap, domains_N: NDArray[np.int64]) -> tuple[DomainMap, NDArray[np.int64]]:
    """Domains without a training row leave: nothing can be drawn from them."""
    present = np.unique(domains_N)
    if len(present) == len(domain_map.names):
        return domain_map, domains_N
    gone = [name for i, name in enumerate(domain_map.names) if i not in set(present.tolist())]
    logger.warning("%d domains have no training rows and are left out, the first: %s", len(gone), gone[0])
    new_index = np.full(len(domain_map.names), UNKNOWN)
    new_index[present] = np.arange(len(present))
    rows = np.flatnonzero(new_index[domain_map.domains_N] != UNKNOWN)
    kept = dataclasses.replace(
        domain_map,
        names=tuple(domain_map.names[i] for i in present),
        keys_N=[domain_map.keys_N[i] for i in rows],
        sources_N=[domain_map.sources_N[i] for i in rows],
        domains_N=new_index[domain_map.domains_N[rows]],
    )
    return kept, new_index[domains_N]


def _tasks(settings: Settings, source: "DataSource") -> dict[str, Any]:
    """The observed samples of each task, if the mixer looks at tasks."""
    needs = trial_mixer(settings).needs
    if not needs.task_losses and needs.impact is None:
        return {}
    if not settings.tasks:
        raise DidsError("dids_tasks: got none, allowed: at least one dataset name (or eval_dataset)")
    return {name: source.task(name, _chooser(settings)) for name in settings.tasks}


def _chooser(settings: Settings) -> Callable[[Any], Any]:
    """Picks `dids_task_samples` examples by a seeded hash of their content, whatever their order."""

    def choose(dataset: Any) -> Any:
        def rank(key: str) -> bytes:
            return hashlib.blake2b(f"{settings.seed}:{key}".encode(), digest_size=8).digest()

        keys = list(dataset[KEY_COLUMN])
        order = sorted(range(len(keys)), key=lambda i: rank(keys[i]))
        return dataset.select(order[: settings.config.dids_task_samples])

    return choose


def _mixer(
    settings: Settings, domain_map: DomainMap, domains_N: NDArray[np.int64], source: "DataSource", num_tasks: int
) -> mixers.Mixer:
    sizes_D = np.bincount(domains_N, minlength=len(domain_map.names))
    options = mixer_options(settings)
    if "probabilities_D" in mixers.options(settings.strategy):
        options["probabilities_D"] = _probabilities(settings, domain_map, sizes_D, source.data_args.dataset)
    try:
        return mixers.create(settings.strategy, len(domain_map.names), num_tasks, **options, sizes_D=sizes_D)
    except ValueError as error:
        raise DidsError(str(error)) from None


def _probabilities(
    settings: Settings, domain_map: DomainMap, sizes_D: NDArray[np.int64], sources: list[str]
) -> list[float]:
    """`dids_probs` by domain; given by dataset, a dataset's goes to its domains in proportion to their size."""
    given = [float(word) for word in split_list(settings.config.dids_probs)]
    num_domains = len(domain_map.names)
    if len(given) == num_domains:
        return given
    if len(given) != len(sources):
        raise refuse(
            "dids_probs", settings.config.dids_probs, f"{num_domains} numbers (domains) or {len(sources)} (datasets)"
        )
    counts_SD = np.zeros((len(sources), num_domains))
    index = {source: i for i, source in enumerate(sources)}
    np.add.at(counts_SD, ([index[s] for s in domain_map.sources_N], domain_map.domains_N), 1)
    return [float(p) for p in np.array(given) @ (counts_SD / counts_SD.sum(axis=1, keepdims=True))]
