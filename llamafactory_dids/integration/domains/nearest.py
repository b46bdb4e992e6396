"""The number of observed task samples nearest to each domain, in the space of the clustered features.

The features of both are made as `dids_cluster_features` says, and cached. A domain's position is the mean of its
samples, no matter how the domain was made.
"""

import numpy as np
from datasets import concatenate_datasets
from numpy.typing import NDArray

from ...artifacts.domain_map import DomainMap
from ...artifacts.samples import UNKNOWN
from ...stages.cluster import StoredFeatures
from ...stages.means import nearest_domains
from ..data.source import DataSource
from ..data.tags import TAGS
from ..host.randomness import undisturbed_randomness
from .features import feature_source, feature_store
from .samples import TokenisedSamples, proxy_tokens


@undisturbed_randomness()
def nearest_task_samples(source: DataSource, samples: TokenisedSamples, domain_map: DomainMap) -> NDArray[np.int64]:
    """Number of observed task samples by task and domain, shape T x D, for the training `samples`."""
    features = _features(source, samples)
    domains_N = domain_map.domains_of(samples.sources, samples.keys)
    kept_N = features.written_N & (domains_N != UNKNOWN)  # the others are in domains without a training row
    observed = source.without_training_set()
    task_samples, tasks_M = _task_samples(observed)
    others = _features(observed, task_samples, "the tasks' samples")
    usable_M = np.flatnonzero(others.written_N)
    counts_TD = np.zeros((len(source.settings.tasks), len(domain_map.names)), dtype=np.int64)
    found_M = nearest_domains(features, kept_N, domains_N, len(domain_map.names), others(usable_M))
    np.add.at(counts_TD, (tasks_M[usable_M], found_M), 1)
    return counts_TD


def _features(source: DataSource, samples: TokenisedSamples, title: str | None = None) -> StoredFeatures:
    features = feature_source(source, samples)
    store = feature_store(features, features.inputs(), title)
    return StoredFeatures(store, source.settings.config.dids_normalize)


def _task_samples(source: DataSource) -> tuple[TokenisedSamples, NDArray[np.int64]]:
    """The observed samples of all tasks with their tags, tokenised for the proxy; and the task of each (M)."""
    template, module = proxy_tokens(source)
    parts = [source.task(name, template=template, keep_tags=True, **module) for name in source.settings.tasks]
    tasks_M = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    rows = concatenate_datasets(parts)
    tags = rows.select_columns(list(TAGS)).with_format("arrow")[:]
    return TokenisedSamples(rows.remove_columns(list(TAGS)), tags, module["tokenizer"]), tasks_M
