"""The events of the components: fields that do not apply are hidden, and a line says what the run would do."""

from collections.abc import Iterator
from typing import Any

from llamafactory.webui.control import list_datasets

from ...errors import DidsError
from ..errors import one_line
from . import comparison, domains_table, fields, section, style, view
from .explainer import explain, in_words
from .messages import in_words as told
from .messages import warn

SECONDS_BETWEEN_LOOKS = 2  # the host's own interval for its logs
# The host's fields that change the line.
_COUNTED = (
    *("dataset", "dataset_dir", "training_stage", "num_train_epochs", "max_samples", "batch_size"),
    *("gradient_accumulation_steps", "extra_args", "packing"),
)


def connect(engine: Any, host: dict[str, Any], ours: dict[str, Any], inputs: set[Any]) -> None:
    """Connect the events. `inputs` are the components that the host's buttons take."""
    _connect_fields(host, ours)
    _connect_line(engine, host, ours, inputs)
    _connect_views(engine, host, ours)
    _connect_comparison(engine, host, ours, inputs)


def _connect_fields(host: dict[str, Any], ours: dict[str, Any]) -> None:
    import gradio as gr

    deciding = [ours[key] for key in (fields.STRATEGY, "dids_domains", "dids_cluster_features")]
    tabs = [ours[name] for name in ("dids_method_tab", "dids_domains_tab", "dids_compare_tab")]
    shown = [*(ours[key] for key in fields.FIRST), *tabs]
    gr.on([field.change for field in deciding], _visibility, deciding, shown, queue=False, show_progress="hidden")
    tasks = ours["dids_tasks"]
    listed = [host["dataset_dir"], host["training_stage"], tasks]
    tasks.focus(_list_tasks, listed, [tasks], queue=False, show_progress="hidden")


def _connect_line(engine: Any, host: dict[str, Any], ours: dict[str, Any], inputs: set[Any]) -> None:
    import gradio as gr

    lang = engine.manager.get_elem_by_id("top.lang")

    def line(data: dict[Any, Any]) -> str:
        if not fields.is_ours(data[ours[fields.STRATEGY]]):
            return ""
        return explanation(engine.runner, data, data[lang])

    # One event for all fields. With an event for each, the delayed last change of one field would carry old values of
    # the others, and bring back an old line.
    components = (*(ours[key] for key in fields.FIRST), *(host[name] for name in _COUNTED), lang)
    gr.on(
        [component.change for component in components],
        line,
        inputs,
        [ours["dids_line"]],
        trigger_mode="always_last",
        show_progress="hidden",
        concurrency_limit=1,
    )


def explanation(runner: Any, data: dict[Any, Any], lang: str) -> str:
    """What a run with these values would do, or why it would be refused; empty if the form is incomplete."""
    try:
        if not data[runner.manager.get_elem_by_id("train.dataset")]:
            return ""
        args = runner._parse_train_args(data)
    except DidsError as error:
        return told(one_line(error), lang)
    except (ValueError, TypeError, KeyError):
        return ""  # the host reports faults of its own fields at the start
    if error := fields.problem(args):
        return told(error, lang)
    return in_words(explain(args), lang)


def _connect_views(engine: Any, host: dict[str, Any], ours: dict[str, Any]) -> None:
    import gradio as gr

    top = [engine.manager.get_elem_by_id(f"top.{name}") for name in ("lang", "model_name", "finetuning_type")]
    seen, shown = gr.State(tuple(view.NOTHING)), gr.State(tuple(view.NOTHING))
    gr.Timer(SECONDS_BETWEEN_LOOKS).tick(
        lambda *names: tuple(view.look(*names)),
        [*top, host["output_dir"]],
        [seen],
        concurrency_limit=None,
        show_progress="hidden",
    )
    seen.change(
        view.show,
        [seen, shown, ours["dids_map"]],
        [shown, *(ours[name] for name in view.SHOWN)],
        concurrency_limit=None,
        show_progress="hidden",
    ).then(None, [ours["dids_shares"]], None, js=style.WRITE_SHARES)
    ours["dids_show"].click(
        domains_table.show_domains, [top[0], ours["dids_map"]], [ours["dids_table"]], concurrency_limit=None
    )


def _connect_comparison(engine: Any, host: dict[str, Any], ours: dict[str, Any], inputs: set[Any]) -> None:
    lang, runs = engine.manager.get_elem_by_id("top.lang"), ours["dids_runs"]
    runs.focus(comparison.list_runs, [runs], [runs], queue=False, show_progress="hidden")
    ours["dids_compare"].click(comparison.compared, [lang, runs], [ours["dids_comparison"]], concurrency_limit=None)

    def train_baseline(data: dict[Any, Any]) -> Iterator[dict[Any, Any]]:
        changed = (ours[fields.STRATEGY], ours["dids_domains"], host["output_dir"])
        yield from engine.runner.run_train(comparison.baseline_values(data, *changed))

    outputs = [host[name] for name in ("output_box", "progress_bar", "loss_viewer", "swanlab_link")]
    ours["dids_baseline"].click(train_baseline, inputs, outputs)


def _list_tasks(dataset_dir: str, training_stage: str, chosen: list[str]) -> Any:
    """Offer the folder's data sets, and keep the chosen ones, which may come from another folder.

    The browser stores chosen items by their position in the list. With a new list alone it would show other items, or
    `undefined`. A task that is not in the folder is refused when the run is started or previewed.
    """
    import gradio as gr

    return gr.update(choices=list_datasets(dataset_dir, training_stage).choices, value=chosen)


def _visibility(strategy: str, domains: str, features: str) -> list[Any]:
    import gradio as gr

    choice = {fields.STRATEGY: strategy, "dids_domains": domains, "dids_cluster_features": features}
    try:
        shown = fields.applicable(choice)
    except DidsError as refusal:
        warn(one_line(refusal))
        shown = [fields.STRATEGY]
    of_method = any(key in shown for row in section.METHOD for key in row)
    ours = fields.is_ours(strategy)
    views = [gr.update(visible=True) if ours else gr.skip()] * 2  # a run on display stays
    return [*(gr.update(visible=key in shown) for key in fields.FIRST), gr.update(visible=of_method), *views]
