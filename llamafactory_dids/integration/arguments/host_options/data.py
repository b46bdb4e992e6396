"""LLaMA-Factory's data arguments."""

from ...data.saved import is_saved
from .entries import Handled, Refused, Table, Untouched, given_with_streaming

DATA: Table = (
    Refused("interleave_probs", "none (see dids_probs)", lambda value, _: value is not None),
    Refused(
        "ignore_pad_token_for_loss",
        "true (else a sample's loss depends on how far its batch is padded)",
        lambda value, _: not value,
    ),
    Refused(
        "packing",
        "false (a pair or an answer has its own row)",
        lambda value, run: value and run.has_pairs_or_answers,
        where="stage {stage}",
    ),
    Refused("packing", "false", given_with_streaming, where="streaming"),
    Refused("val_size", "0 (name an eval_dataset, which is not streamed)", given_with_streaming, where="streaming"),
    Refused("streaming", "false", lambda value, run: value and is_saved(run.data_args), where="tokenized_path"),
    Handled("each data set is a source; the domains are made within or over them", "dataset"),
    Handled("the tasks, where dids_tasks names none; evaluated as the host does", "eval_dataset"),
    Handled("decides who mixes: a strategy of this plugin, or the host", "mix_strategy"),
    Handled(
        "decide what a sample is; tasks and a proxy read theirs in the same way",
        "template cutoff_len train_on_prompt mask_history tool_format default_system enable_thinking "
        "preserve_thinking media_dir",
    ),
    Handled("cuts each data set, and no task (dids_task_samples does)", "max_samples"),
    Handled("a stream a domain, its buffer a share of `buffer_size`", "streaming buffer_size"),
    Handled("a packed row holds samples of one domain", "packing neat_packing"),
    Handled("its rows are held out of the domains; they are no task", "val_size"),
    Handled("keeps each sample's source; what was saved from other inputs is refused", "tokenized_path"),
    Handled("decides which process reads and tokenises first", "data_shared_file_system"),
    Untouched(
        "where data lie, and how fast they are read",
        "dataset_dir overwrite_cache preprocessing_batch_size preprocessing_num_workers",
    ),
    Untouched("of the host's evaluation", "eval_num_beams eval_on_each_dataset"),
)
