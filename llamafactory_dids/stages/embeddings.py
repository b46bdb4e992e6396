"""Sentence embeddings of the training samples' texts: features that need no gradient (the paper's DIDS-GC)."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from .batching import length_batches
from .filling import Block

MAX_BATCH = 64
MAX_BATCH_TOKENS = 16_384


class EmbeddingFeatures:
    """An embedding of each text. `encode` maps N texts to (N, K), each independent of the others.

    The encoder reads `max_tokens` of a text (None: all). A text has at most about as many tokens as characters, so
    characters bound a batch without tokenising the texts twice.
    """

    name = "embeddings"
    unit = "characters"

    def __init__(
        self, texts: Sequence[str], encode: Callable[[list[str]], Tensor], max_tokens: int | None = None
    ) -> None:
        self.texts = texts
        self.encode = encode
        self.max_tokens = max_tokens

    def blocks(self, rows: range) -> Iterator[Block]:
        """The embeddings of these texts, in batches of similar length."""
        texts = [self.texts[i] for i in rows]
        lengths = [min(len(text), self.max_tokens or len(text)) for text in texts]
        for places in length_batches(lengths, MAX_BATCH, MAX_BATCH_TOKENS):
            values_NK = self.encode([texts[i] for i in places]).detach().float()
            norm_N = values_NK.norm(dim=1)
            yield Block(places, values_NK, torch.isfinite(norm_N) & (norm_N > 0), sum(len(texts[i]) for i in places))
