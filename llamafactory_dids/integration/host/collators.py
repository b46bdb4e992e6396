"""Batches as the host's workflows make them, for a model outside a trainer."""

from typing import Any

from llamafactory.data import (
    KTODataCollatorWithPadding,
    PairwiseDataCollatorWithPadding,
    SFTDataCollatorWith4DAttentionMask,
)
from torch import nn

from ...stages.batching import Collate, pad_collate
from ...training.collator import untagged

OF_ANSWERS = {
    "dpo": PairwiseDataCollatorWithPadding,
    "kto": KTODataCollatorWithPadding,
    "rm": PairwiseDataCollatorWithPadding,
}


def collate(stage: str, template: Any, model: nn.Module, tokenizer: Any, processor: Any) -> Collate:
    """A collator of tokenised samples.

    For a model with a processor it is the host's own, which reads pictures, videos and sounds, and asks the model for
    the positions of its tokens. `stage: pt` trains on texts alone, whatever the model.
    """
    how = {"template": template, "model": model, "tokenizer": tokenizer, "processor": processor}
    if stage in OF_ANSWERS:
        return untagged(OF_ANSWERS[stage](**how))
    if stage == "sft" and processor is not None:
        return untagged(SFTDataCollatorWith4DAttentionMask(compute_dtype=model.dtype, **how))
    return pad_collate(tokenizer.pad_token_id)
