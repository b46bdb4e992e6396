"""The features that are clustered (`dids_cluster_features`): gradients of a proxy model, or sentence embeddings.

A source of features tells its inputs, by which the cache finds a store, and makes the object that fills a store. Only
the latter loads a model.
"""

import dataclasses
import gc
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from llamafactory.hparams.model_args import ProcessorArguments

from ...artifacts.files import fingerprint
from ...artifacts.gradient_store import GradientStore, open_store
from ...artifacts.samples import samples_digest
from ...core import devices
from ...stages import ranks
from ...stages.embeddings import EmbeddingFeatures
from ...stages.filling import Features, fill_store
from ...stages.gradients import GradientFeatures, SampleProjector, Samples
from ...stages.layers import track_layers
from ..data.source import DataSource
from ..host import collators, objectives
from ..settings import cache_folder
from . import encoder, proxy
from .samples import SampleTexts, TokenisedSamples, proxy_tokens

logger = logging.getLogger(__name__)


class FeatureSource(ABC):
    """A kind of features. `name` is its folder in the cache, and the key of its inputs in a map. Features are computed
    on `device`, where the host, by accelerate, trains.
    """

    name: str

    def __init__(self, source: DataSource, samples: TokenisedSamples) -> None:
        self.settings = source.settings
        self.source = source
        self.samples = samples
        self.device = source.training_args.device

    @abstractmethod
    def inputs(self) -> dict[str, Any]:
        """All inputs that affect the features."""

    @abstractmethod
    def prepare(self) -> tuple[int, Callable[[], Features]]:
        """(dimension of a row, function that makes the features)."""


def feature_source(source: DataSource, samples: TokenisedSamples) -> FeatureSource:
    """The source of features that `dids_cluster_features` names."""
    kind = Embeddings if source.settings.config.dids_cluster_features == "semantic" else Gradients
    return kind(source, samples)


def feature_store(features: FeatureSource, inputs: dict[str, Any], title: str | None = None) -> GradientStore:
    """The complete store of these features: from the cache, or filled now by all ranks.

    `inputs` are the features' own, which take time to find. `title` names the progress.
    """
    folder = cache_folder(features.settings.config) / features.name / fingerprint(inputs)
    num_rows = len(features.samples.keys)
    dim, make = features.prepare()
    ranks.done_by_first(lambda: open_store(folder, inputs, num_rows, dim))
    ranks.wait_to_see(folder / "manifest.json")
    store = open_store(folder, inputs, num_rows, dim)
    if ranks.decided_by_first(lambda: bool(store.missing_parts())):
        logger.info("%s: %s", features.name, where(features.device))
        fill_store(store, make(), title)
    else:
        logger.info("%s: using %s", features.name, folder)
    del make
    free_memory(features.device)
    return store


def where(device: torch.device) -> str:
    """The device of the features for the log; for a CPU, also why."""
    if device.type != "cpu":
        return f"on {device}"
    present = torch.accelerator.is_available()
    return f"on the CPU, since {'use_cpu says so' if present else 'torch finds no accelerator'}"


def free_memory(device: torch.device) -> None:
    """Free the memory of a model that is gone, before the trained model is loaded."""
    gc.collect()
    devices.release(device)


class Gradients(FeatureSource):
    """The proxy model's gradients of the samples, tokenised for the proxy."""

    name = "gradients"

    def inputs(self) -> dict[str, Any]:
        config = self.settings.config
        return {
            "proxy": proxy.identity(self.settings, self.source.model_args),
            "vocabulary": len(self.samples.tokenizer),
            "stage": self.source.stage,
            **objectives.identity(self.settings.finetuning_args),
            **self.samples.identity(),
            "dids_gradient_layers": config.dids_gradient_layers,
            "dids_topk_ratio": config.dids_topk_ratio,
            "dids_projection_dim": config.dids_projection_dim,
            "dids_seed": self.settings.seed,
            **self._media(),
        }

    def _media(self) -> dict[str, Any]:
        """Inputs that affect the features of pictures, videos and sounds; empty if the samples are texts."""
        content = self.samples.media_digest()
        if content is None:
            return {}
        keys = [field.name for field in dataclasses.fields(ProcessorArguments)]
        return {"media": content, **{key: getattr(self.source.model_args, key) for key in keys}}

    def prepare(self) -> tuple[int, Callable[[], Features]]:
        return self.settings.config.dids_projection_dim, self._features

    def _features(self) -> GradientFeatures:
        config, samples = self.settings.config, self.samples
        model = self.source.kept.pop("proxy", None)  # kept from the training samples for the tasks' samples
        if model is None:
            model = proxy.load_proxy(self.settings, self.source.model_args, samples.tokenizer, self.device)
            if self.settings.needs.task_samples:
                self.source.kept["proxy"] = model
        tracked = track_layers(model, config.dids_gradient_layers)
        finetuning_args, seed = self.settings.finetuning_args, self.settings.seed
        objective = objectives.objective(finetuning_args, self.device)
        projector = SampleProjector(model, tracked, objective, config.dids_topk_ratio, config.dids_projection_dim, seed)
        template, module = proxy_tokens(self.source)
        collate = collators.collate(self.source.stage, template, model, **module)
        return GradientFeatures(Samples(samples.dataset, samples.lengths(), collate), projector)


class Embeddings(FeatureSource):
    """The embeddings of the samples' texts by `dids_semantic_model`."""

    name = "embeddings"

    def inputs(self) -> dict[str, Any]:
        return {
            "encoder": encoder.identity(self.settings, self.source.model_args),
            "samples": samples_digest(self.samples.sources, self.samples.keys),
        }

    def prepare(self) -> tuple[int, Callable[[], Features]]:
        model = encoder.load(self.settings, self.source.model_args, str(self.device))

        def encode(texts: list[str]) -> torch.Tensor:
            found = model.encode(texts, batch_size=len(texts), convert_to_tensor=True, show_progress_bar=False)
            return found  # type: ignore[no-any-return]

        def features() -> EmbeddingFeatures:
            if self.samples.media_digest() is not None:
                logger.warning("dids_cluster_features: semantic reads texts alone, no pictures, videos or sounds")
            return EmbeddingFeatures(SampleTexts(self.source.aligned, self.samples), encode, model.max_seq_length)

        return encode(["a"]).shape[1], features  # tried out: no attribute holds for all kinds of modules
