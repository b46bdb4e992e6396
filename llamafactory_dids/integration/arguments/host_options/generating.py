"""LLaMA-Factory's generating arguments."""

from .entries import Table, Untouched

GENERATING: Table = (
    Untouched(
        "texts are generated in evaluation and prediction alone",
        "do_sample temperature top_p top_k num_beams max_length max_new_tokens repetition_penalty length_penalty "
        "skip_special_tokens",
    ),
)
