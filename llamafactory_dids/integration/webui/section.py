"""The components that are added to the Train tab, and what happens in them.

The accordion of the keys is made before the host makes the tab, so that the host's buttons take its fields as inputs,
and is then moved beside the host's accordions. The pictures of a run stand below the host's loss curve; its report and
its domains above the host's log, which may become long.
"""

from typing import Any, Literal, get_args, get_origin

from llamafactory.webui.control import list_datasets

from ... import mixers
from ...config import FIELDS
from ...errors import DidsError
from ..arguments.keys import HOST_STRATEGIES
from ..errors import one_line
from . import fields, view
from .texts import locales

SECONDS_BETWEEN_LOOKS = 2  # as often as the host looks at its logs
_LAST_ACCORDION = "swanlab_tab"
_ROWS = (
    (fields.STRATEGY, "dids_tasks", "dids_task_samples"),
    ("dids_domains", "dids_num_domains", "dids_proxy_model"),
    ("dids_update_samples", "dids_preset", "dids_ema_beta", "dids_proxy_share", "dids_probs", "dids_schedule"),
    ("dids_trajectory", "dids_impact", "dids_cluster_features"),
)


def make_fields() -> dict[str, Any]:
    """The folded accordion with a field a key, those hidden that do not apply; by the ends of their ids."""
    import gradio as gr

    shown = fields.applicable(fields.FIRST)
    made = {}
    with gr.Accordion(open=False) as tab:
        for row in _ROWS:
            with gr.Row():
                for key in row:
                    made[key] = _field(key, visible=key in shown)
    return {"dids_tab": tab, **made}


def _field(key: str, visible: bool) -> Any:
    import gradio as gr

    value = fields.FIRST[key]
    common = {**locales()[key]["en"], "value": value, "visible": visible}
    if key == fields.STRATEGY:
        return gr.Dropdown(choices=[*HOST_STRATEGIES, *mixers.names()], **common)
    if isinstance(value, bool):
        return gr.Checkbox(**common)
    if isinstance(value, list):
        return gr.Dropdown(multiselect=True, allow_custom_value=True, scale=3, **common)
    if key == "dids_domains":
        return gr.Dropdown(choices=["cluster", "source"], allow_custom_value=True, **common)
    if choices := _choices(key):
        return gr.Dropdown(choices=[fields.PRESET, *choices] if value == fields.PRESET else choices, **common)
    if isinstance(value, int):
        return gr.Number(**common)
    return gr.Textbox(**common)


def _choices(key: str) -> list[str]:
    kinds = (FIELDS[key].type, *get_args(FIELDS[key].type))
    return [choice for kind in kinds if get_origin(kind) is Literal for choice in get_args(kind)]


def make_views(host: dict[str, Any]) -> dict[str, Any]:
    """What shows a run: pictures below the host's loss curve; the report and the domains, folded."""
    import gradio as gr

    texts = locales()
    with host["loss_viewer"].parent:
        probabilities = gr.Plot(visible=False, **texts["dids_probabilities"]["en"])
        losses = gr.Plot(visible=False, **texts["dids_losses"]["en"])
    with gr.Accordion(open=False, visible=False, **texts["dids_report_tab"]["en"]) as report_tab:
        report = gr.HTML()
    with gr.Accordion(open=False, **texts["dids_domains_tab"]["en"]) as domains_tab:
        with gr.Row():
            path = gr.Textbox(scale=5, **texts["dids_map"]["en"])
            show = gr.Button(scale=1, **texts["dids_show"]["en"])
        table = gr.HTML()
    return {
        "dids_probabilities": probabilities,
        "dids_losses": losses,
        "dids_report_tab": report_tab,
        "dids_report": report,
        "dids_domains_tab": domains_tab,
        "dids_map": path,
        "dids_show": show,
        "dids_table": table,
    }


def place(host: dict[str, Any], ours: dict[str, Any]) -> None:
    """Move the accordions: of the keys behind the host's last one, of a run behind the row of the host's buttons."""
    _move_behind(host[_LAST_ACCORDION], ours["dids_tab"])
    _move_behind(host["start_btn"].parent, ours["dids_report_tab"], ours["dids_domains_tab"])


def _move_behind(place: Any, *components: Any) -> None:
    siblings = place.parent.children
    for component in components:
        siblings.remove(component)
    index = siblings.index(place) + 1
    siblings[index:index] = components


def connect(engine: Any, host: dict[str, Any], ours: dict[str, Any]) -> None:
    """Hide what does not apply, list the data sets, and show the run that the output folder names."""
    import gradio as gr

    keys = list(fields.FIRST)
    deciding = [ours[key] for key in (fields.STRATEGY, "dids_domains", "dids_cluster_features")]
    for component in deciding:
        component.change(_visibility, deciding, [ours[key] for key in keys], queue=False, show_progress="hidden")
    tasks = ours["dids_tasks"]
    tasks.focus(_list_tasks, [host["dataset_dir"], host["training_stage"], tasks], [tasks], queue=False)

    top = [engine.manager.get_elem_by_id(f"top.{name}") for name in ("lang", "model_name", "finetuning_type")]
    shows = [ours[name] for name in view.SHOWN]
    seen = gr.State()
    gr.Timer(SECONDS_BETWEEN_LOOKS).tick(
        view.look, [*top, host["output_dir"], seen], [seen, *shows], concurrency_limit=None, show_progress="hidden"
    )
    ours["dids_show"].click(view.show_domains, [top[0], ours["dids_map"]], [ours["dids_table"]], concurrency_limit=None)


def _list_tasks(dataset_dir: str, training_stage: str, chosen: list[str]) -> Any:
    """Offer the folder's data sets, and keep what was chosen, which may come from another folder.

    The browser keeps the places of what is chosen in the list, so that with the list alone it would show others, or
    `undefined`. That a task is not in the folder is told when the run is started or previewed.
    """
    import gradio as gr

    return gr.update(choices=list_datasets(dataset_dir, training_stage).choices, value=chosen)


def _visibility(strategy: str, domains: str, features: str) -> list[Any]:
    import gradio as gr

    choice = {fields.STRATEGY: strategy, "dids_domains": domains, "dids_cluster_features": features}
    try:
        shown = fields.applicable(choice)
    except DidsError as refusal:
        gr.Warning(one_line(refusal))
        shown = [fields.STRATEGY]
    return [gr.update(visible=key in shown) for key in fields.FIRST]
