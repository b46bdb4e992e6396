"""From a run's settings and data to what the trainer is given: domains, tasks, mixer, and the files that say so."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .. import mixers
from ..artifacts.domain_map import DomainMap
from ..errors import DidsError
from ..stages import ranks
from ..stages.swapping import swapped_map
from ..training.collator import DOMAIN_COLUMN, KEY_COLUMN, SOURCE_COLUMN
from ..training.plan import MixingPlan
from . import objectives, tokenized
from .checks import mixer_options, trial_mixer
from .domains import clustered_map, domains_by_source, given_map
from .keys import content_order
from .lookup import UNKNOWN, MapLookup, SourceLookup
from .nearest import nearest_task_samples
from .probabilities import probabilities_by_domain
from .provenance import write_config
from .proxy_runs import run_proxies
from .randomness import undisturbed
from .resume import check_set_up
from .samples import TokenisedSamples, has_other_tokens, proxy_samples
from .settings import ProxyHistory, Settings
from .streaming import streamed

if TYPE_CHECKING:
    from .data_source import DataSource

logger = logging.getLogger(__name__)


def make_plan(settings: Settings, source: "DataSource") -> dict[str, Any]:
    """The host's dataset module, its training set with a domain for each row, and the plan under `mixing`."""
    tasks = _tasks(settings, source)
    if source.streams:
        module, domain_map = streamed(settings, source)
        domains_N, sizes_D = np.zeros(0, dtype=np.int64), domain_map.sizes() if domain_map.keys_N else None
    else:
        module, domain_map, domains_N = _rows_with_domains(settings, source)
        sizes_D = np.bincount(domains_N, minlength=len(domain_map.names))

    def mixer_after(history: ProxyHistory) -> mixers.Mixer:
        return _mixer(settings, domain_map, sizes_D, source, history)

    if settings.history is None:
        history, mixer = run_proxies(settings, source, domain_map, tasks, mixer_after)
    else:  # this is a proxy run itself
        history, mixer = settings.history, mixer_after(settings.history)
    plan = MixingPlan(
        strategy=settings.strategy,
        config=settings.config,
        mixer=mixer,
        domain_map=domain_map,
        domains_N=domains_N,
        tasks=tasks if mixer.needs.tasks else {},
        folder=Path(source.training_args.output_dir) / "dids",
        seed=settings.seed,
        streamed=source.streams,
        shuffled=not settings.finetuning_args.disable_shuffling,
        make_objective=objectives.of_trainer,
        clock=source.clock,
        reference=history.reference,
    )
    check_set_up(plan, source.training_args)
    if ranks.world()[0] == 0:
        write_config(plan, settings)
    return {**module, "mixing": plan}


def _rows_with_domains(
    settings: Settings, source: "DataSource"
) -> tuple[dict[str, Any], DomainMap, NDArray[np.int64]]:
    """The host's dataset module, its training set with a column for the domain; the map; the domain of each row."""
    if source.packs:
        domain_map = _domain_map(settings, source, proxy_samples(settings, source))
        module = source.module(_lookup(settings, source, domain_map))
        domains_N = np.asarray(module["train_dataset"][DOMAIN_COLUMN], dtype=np.int64)
    else:
        module = source.module()
        samples = (
            None if _other_tokens(settings, source) else TokenisedSamples(module["train_dataset"], source.tokenizer)
        )
        domain_map = _domain_map(settings, source, samples or proxy_samples(settings, source))
        domains_N = _domains_of(module["train_dataset"], domain_map)
    tokenized.settle(source.data_args, source.stage, source.tokenizer, domain_map)
    domain_map, domains_N = _drop_empty(domain_map, domains_N)
    train = module["train_dataset"]
    if DOMAIN_COLUMN in train.column_names:
        train = train.remove_columns(DOMAIN_COLUMN)
    module["train_dataset"] = train.add_column(DOMAIN_COLUMN, domains_N)
    return module, domain_map, domains_N


def _domain_map(settings: Settings, source: "DataSource", samples: TokenisedSamples) -> DomainMap:
    """The domains that this run trains with: those found, with as many samples swapped as `dids_swap_domains` says."""
    domain_map, share = find_domains(settings, source, samples), settings.config.dids_swap_domains
    if not share:
        return domain_map
    trained = set(zip(samples.sources, samples.keys, strict=True))
    found = domain_map.only(trained)  # a given map may have more, and it is the training data that is swapped
    swapped = swapped_map(found, share, settings.seed)
    moved = int((swapped.domains_N != found.domains_N).sum())
    logger.info("dids_swap_domains: %d of %d samples changed places (%g asked for)", moved, len(found.keys_N), share)
    return swapped


def find_domains(settings: Settings, source: "DataSource", samples: TokenisedSamples) -> DomainMap:
    """The domain map that `dids_domains` asks for."""
    wanted = settings.config.dids_domains
    if wanted == "source":
        return domains_by_source(samples, source.data_args.dataset, settings.seed)
    if wanted == "cluster":
        return _clustered(settings, source, samples)
    return given_map(settings)


@undisturbed
def _clustered(settings: Settings, source: "DataSource", samples: TokenisedSamples) -> DomainMap:
    return clustered_map(settings, source, samples)


def _other_tokens(settings: Settings, source: "DataSource") -> bool:
    """Whether the domains are made from what a proxy with a tokenizer of its own reads."""
    return settings.config.dids_domains == "cluster" and has_other_tokens(settings, source)


def _lookup(settings: Settings, source: "DataSource", domain_map: DomainMap) -> Any:
    if settings.config.dids_domains == "source" and not settings.config.dids_swap_domains:
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
    return domain_map.of_domains(present.tolist()), np.searchsorted(present, domains_N)


def _tasks(settings: Settings, source: "DataSource") -> dict[str, Any]:
    """The observed samples of each task, if the mixer, or one of a proxy run, may look at tasks."""
    needs = trial_mixer(settings).needs
    if not needs.tasks and (needs.proxy_run is None or not settings.tasks):
        return {}
    if not settings.tasks:
        raise DidsError("dids_tasks: got none, allowed: at least one dataset name (or eval_dataset)")
    return {name: source.task(name, _chooser(settings)) for name in settings.tasks}


def _chooser(settings: Settings) -> Callable[[Any], Any]:
    """Picks `dids_task_samples` examples by a seeded hash of their content, whatever their order."""

    def choose(dataset: Any) -> Any:
        order = content_order(list(dataset[KEY_COLUMN]), settings.seed)
        return dataset.select(order[: settings.config.dids_task_samples])

    return choose


def _mixer(
    settings: Settings,
    domain_map: DomainMap,
    sizes_D: NDArray[np.int64] | None,
    source: "DataSource",
    history: ProxyHistory,
) -> mixers.Mixer:
    options = mixer_options(settings)
    if "proxy_runs" in mixers.options(settings.strategy):
        options["proxy_runs"] = history.records
    if trial_mixer(settings).needs.task_samples:
        with source.clock.on("importance_seconds"):
            options["task_samples_TD"] = nearest_task_samples(settings, source, domain_map, _chooser(settings))
    if "probabilities_D" in mixers.options(settings.strategy):
        given = str(settings.config.dids_probs)  # there, as checked
        options["probabilities_D"] = probabilities_by_domain(given, domain_map, source.data_args.dataset)
    try:
        return mixers.create(settings.strategy, len(domain_map.names), len(settings.tasks), **options, sizes_D=sizes_D)
    except ValueError as error:
        raise DidsError(str(error)) from None
