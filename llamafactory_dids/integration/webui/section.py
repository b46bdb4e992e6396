"""The components added to the Train tab, and their places.

The accordion of the keys is made before the host makes the tab, so that the host's buttons take its fields as inputs.
It is then moved below the datasets. The pictures of a run are below the host's loss curve. Its report, its domains and
the comparison of runs are above the host's log, which may become long.
"""

from typing import Any, Literal, get_args, get_origin

from ...config import FIELDS
from . import fields
from .style import HEAD, MARK
from .texts import locales

_ROWS = (
    (fields.STRATEGY, "dids_tasks", "dids_task_samples"),
    ("dids_domains", "dids_num_domains", "dids_proxy_model"),
    ("dids_update_samples", "dids_proxy_share", "dids_probs", "dids_schedule", "dids_share_of"),
)
METHOD = (("dids_preset", "dids_ema_beta"), ("dids_trajectory", "dids_impact", "dids_cluster_features"))


def make_fields() -> dict[str, Any]:
    """The folded accordion with a field for each key, by key. The strategy alone is shown until one is chosen."""
    import gradio as gr

    made = {}
    with gr.Accordion(open=False) as tab:
        for row in _ROWS:
            with gr.Row():
                made |= {key: _field(key) for key in row}
        with gr.Accordion(open=False, visible=False) as method_tab:
            for row in METHOD:
                with gr.Row():
                    made |= {key: _field(key) for key in row}
        line = gr.Markdown(elem_classes=[MARK, "dids-line"])
    return {"dids_tab": tab, "dids_method_tab": method_tab, "dids_line": line, **made}


def _field(key: str) -> Any:
    import gradio as gr

    value = fields.FIRST[key]
    common = {**locales()[key]["en"], "value": value, "visible": key == fields.STRATEGY}
    if key == fields.STRATEGY:
        return gr.Dropdown(scale=3, **common)
    if isinstance(value, bool):
        return gr.Checkbox(**common)
    if isinstance(value, list):
        return gr.Dropdown(multiselect=True, allow_custom_value=True, scale=3, **common)
    if key == "dids_domains":
        return gr.Dropdown(choices=[fields.AUTO, "cluster", "source"], allow_custom_value=True, **common)
    if choices := _choices(key):
        return gr.Dropdown(choices=[fields.PRESET, *choices] if value == fields.PRESET else choices, **common)
    if isinstance(value, int):  # a number that may be empty is a text field: gradio shows None as 0
        return gr.Number(**common)
    return gr.Textbox(**common)


def _choices(key: str) -> list[str]:
    kinds = (FIELDS[key].type, *get_args(FIELDS[key].type))
    return [choice for kind in kinds if get_origin(kind) is Literal for choice in get_args(kind)]


def make_views(host: dict[str, Any]) -> dict[str, Any]:
    """The views of a run, by name: pictures below the host's loss curve, and folded report, domains and comparison."""
    import gradio as gr

    texts = locales()
    made: dict[str, Any] = {}
    with host["loss_viewer"].parent:
        for name in ("dids_probabilities", "dids_losses"):
            made[name] = gr.HTML(visible=False, elem_classes=[MARK, "dids-frame"])
    with gr.Accordion(open=False, visible=False, **texts["dids_report_tab"]["en"]) as made["dids_report_tab"]:
        made["dids_report"] = gr.HTML(elem_classes=[MARK])
        made["dids_files"] = gr.Files(interactive=False, elem_classes=[MARK], **texts["dids_files"]["en"])
    with gr.Accordion(open=False, visible=False, **texts["dids_domains_tab"]["en"]) as made["dids_domains_tab"]:
        with gr.Row():
            made["dids_map"] = gr.Textbox(scale=5, **texts["dids_map"]["en"])
            made["dids_show"] = gr.Button(scale=1, **texts["dids_show"]["en"])
        made["dids_table"] = gr.HTML(elem_classes=[MARK])
        made["dids_shares"] = gr.Textbox(visible=False)
    with gr.Accordion(open=False, visible=False, **texts["dids_compare_tab"]["en"]) as made["dids_compare_tab"]:
        with gr.Row():
            runs = {"multiselect": True, "allow_custom_value": True, "scale": 4, **texts["dids_runs"]["en"]}
            made["dids_runs"] = gr.Dropdown(**runs)
            made["dids_compare"] = gr.Button(scale=1, **texts["dids_compare"]["en"])
            made["dids_baseline"] = gr.Button(scale=2, **texts["dids_baseline"]["en"])
        made["dids_comparison"] = gr.HTML(elem_classes=[MARK])
    gr.HTML(HEAD, padding=False)
    return made


def place(host: dict[str, Any], ours: dict[str, Any]) -> None:
    """Move the accordion of the keys below the datasets, and a run's accordions behind the host's row of buttons."""
    _move_behind(host["dataset"].parent, ours["dids_tab"])
    tabs = [ours[name] for name in ("dids_report_tab", "dids_domains_tab", "dids_compare_tab")]
    _move_behind(host["start_btn"].parent, *tabs)


def _move_behind(place: Any, *components: Any) -> None:
    """Move the components behind `place`, or behind its ancestor among their siblings."""
    while place.parent is not components[0].parent:
        place = place.parent
    siblings = place.parent.children
    for component in components:
        siblings.remove(component)
    index = siblings.index(place) + 1
    siblings[index:index] = components
