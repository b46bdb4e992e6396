"""What is clustered (`dids_cluster_features`): gradients of a proxy model, or sentence embeddings of the texts.

A source of features says what they are made from, which decides whether what the cache holds is theirs, and makes
what fills a store; only that loads a model.
"""

import dataclasses
import gc
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from llamafactory.hparams.model_args import ProcessorArguments

from ...artifacts.files import fingerprint
from ...artifacts.gradient_store import GradientStore, open_store
from ...stages import ranks
from ...stages.embeddings import EmbeddingFeatures
from ...stages.filling import Features, fill_store
from ...stages.gradients import GradientFeatures, SampleProjector, Samples
from ...stages.layers import track_layers
from ..data.source import DataSource
from ..host import collators, objectives
from . import encoder, proxy
from .samples import SampleTexts, TokenisedSamples, proxy_tokens

logger = logging.getLogger(__name__)


class FeatureSource(Protocol):
    """`name` is its folder in the cache, and the key of its inputs among those of a map."""

    name: str

    def inputs(self) -> dict[str, Any]:
        """All that decides the features."""
        ...

    def prepare(self) -> tuple[int, Callable[[], Features]]:
        """(dimension of a row, what makes the features)."""
        ...


def feature_source(source: DataSource, samples: TokenisedSamples) -> FeatureSource:
    """The source of features that `dids_cluster_features` asks for."""
    kind = Embeddings if source.settings.config.dids_cluster_features == "semantic" else Gradients
    return kind(source, samples)


def feature_store(cache: Path, features: FeatureSource, inputs: dict[str, Any], num_rows: int) -> GradientStore:
    """The whole store of these features: the one in the cache folder, or made now, by all ranks."""
    folder = cache / features.name / fingerprint(inputs)
    dim, make = features.prepare()
    if ranks.world()[0] == 0:
        open_store(folder, inputs, num_rows, dim)
    ranks.wait_for_all()
    store = open_store(folder, inputs, num_rows, dim)
    if store.missing_parts():
        fill_store(store, make())
    else:
        logger.info("%s: using %s", features.name, folder)
    del make
    _free_memory()
    return store


def _free_memory() -> None:
    """Let go of the model that made the features: the trained model comes next."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class Gradients:
    """The proxy model's gradients of the samples as it tokenises them."""

    name = "gradients"

    def __init__(self, source: DataSource, samples: TokenisedSamples) -> None:
        self.settings = source.settings
        self.source = source
        self.samples = samples

    def inputs(self) -> dict[str, Any]:
        config, data_args = self.settings.config, self.source.data_args
        return {
            "proxy": proxy.identity(self.settings, self.source.model_args),
            "vocabulary": len(self.samples.tokenizer),
            "template": data_args.template,
            "stage": self.source.stage,
            **objectives.identity(self.settings.finetuning_args),
            "cutoff_len": data_args.cutoff_len,
            "train_on_prompt": data_args.train_on_prompt,
            "mask_history": data_args.mask_history,
            "samples": self.samples.digest(),
            "dids_gradient_layers": config.dids_gradient_layers,
            "dids_topk_ratio": config.dids_topk_ratio,
            "dids_projection_dim": config.dids_projection_dim,
            "dids_seed": self.settings.seed,
            **self._media(),
        }

    def _media(self) -> dict[str, Any]:
        """What decides the features of pictures, videos and sounds; nothing where the samples are texts."""
        content = self.samples.media_digest()
        if content is None:
            return {}
        keys = [field.name for field in dataclasses.fields(ProcessorArguments)]
        return {"media": content, **{key: getattr(self.source.model_args, key) for key in keys}}

    def prepare(self) -> tuple[int, Callable[[], Features]]:
        return self.settings.config.dids_projection_dim, self._features

    def _features(self) -> GradientFeatures:
        config, samples = self.settings.config, self.samples
        model = proxy.load_proxy(self.settings, self.source.model_args, samples.tokenizer, device())
        tracked = track_layers(model, config.dids_gradient_layers)
        finetuning_args, seed = self.settings.finetuning_args, self.settings.seed
        objective = objectives.objective(finetuning_args, device())
        projector = SampleProjector(model, tracked, objective, config.dids_topk_ratio, config.dids_projection_dim, seed)
        template, module = proxy_tokens(self.source)
        collate = collators.collate(self.source.stage, template, model, **module)
        return GradientFeatures(Samples(samples.dataset, samples.lengths(), collate), projector)


class Embeddings:
    """The embeddings of the samples' texts by `dids_semantic_model`."""

    name = "embeddings"

    def __init__(self, source: DataSource, samples: TokenisedSamples) -> None:
        self.settings = source.settings
        self.source = source
        self.samples = samples

    def inputs(self) -> dict[str, Any]:
        return {
            "encoder": encoder.identity(self.settings, self.source.model_args),
            "samples": self.samples.digest(),
        }

    def prepare(self) -> tuple[int, Callable[[], Features]]:
        model = encoder.load(self.settings, self.source.model_args, str(device()))

        def encode(texts: list[str]) -> torch.Tensor:
            found = model.encode(texts, batch_size=len(texts), convert_to_tensor=True, show_progress_bar=False)
            return found  # type: ignore[no-any-return]

        def features() -> EmbeddingFeatures:
            if self.samples.media_digest() is not None:
                logger.warning("dids_cluster_features: semantic reads texts alone, no pictures, videos or sounds")
            return EmbeddingFeatures(SampleTexts(self.source.aligned, self.samples), encode, model.max_seq_length)

        return encode(["a"]).shape[1], features  # asked of the model: nothing it says holds for all kinds of modules


def device() -> torch.device:
    """Where features are computed."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
