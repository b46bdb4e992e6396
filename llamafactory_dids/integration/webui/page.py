"""The wrappers of the host's functions of its web page."""

import functools
import json
import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llamafactory.extras.constants import TRAINER_LOG

from ...config import FIELDS
from ...errors import DidsError
from ...stages.bar import last_progress
from ..errors import one_line
from . import fields, messages, texts


def with_section(host: Callable[..., Any]) -> Callable[..., Any]:
    """The host's `create_train_tab`, with our components in the tab, and our fields among its buttons' inputs."""

    @functools.wraps(host)
    def create_train_tab(engine: Any) -> dict[str, Any]:
        from . import events, section

        ours = section.make_fields()
        with _also_inputs(engine.manager, {ours[key] for key in fields.FIRST}) as inputs:
            theirs = host(engine)
        ours |= section.make_views(theirs)
        section.place(theirs, ours)
        events.connect(engine, theirs, ours, inputs)
        return {**theirs, **ours}

    return create_train_tab


@contextmanager
def _also_inputs(manager: Any, components: set[Any]) -> Iterator[set[Any]]:
    """Inside this context the host's buttons also take these components as inputs. Yields the set of all inputs."""
    inputs = manager.get_base_elems() | components
    manager.get_base_elems = lambda: inputs
    try:
        yield inputs
    finally:
        del manager.get_base_elems  # the class's method shows again


def with_our_texts(host: dict[str, Any]) -> dict[str, Any]:
    """The host's texts by component and language, and ours."""
    return {**host, **texts.locales()}


def with_our_keys(host: Callable[..., Any]) -> Callable[..., Any]:
    """The host's `Runner._parse_train_args`, with the chosen keys. The page's extra arguments override a key."""

    @functools.wraps(host)
    def _parse_train_args(self: Any, data: dict[Any, Any]) -> dict[str, Any]:
        args = host(self, data)
        values = {key: data[self.manager.get_elem_by_id(f"train.{key}")] for key in fields.FIRST}
        return {**args, **{key: value for key, value in fields.chosen(values).items() if key not in args}}

    return _parse_train_args


def refusing(host: Callable[..., Any]) -> Callable[..., Any]:
    """The host's `Runner._initialize`, which says what is wrong with the entries: ours are checked too."""

    @functools.wraps(host)
    def _initialize(self: Any, data: dict[Any, Any], do_train: bool, from_preview: bool) -> str:
        error: str = host(self, data, do_train, from_preview)
        if error or not do_train:
            return error
        try:
            refused = fields.problem(self._parse_train_args(data))
        except DidsError as refusal:
            refused = one_line(refusal)
        return messages.in_words(refused, data[self.manager.get_elem_by_id("top.lang")]) if refused else ""

    return _initialize


def explaining(host: Callable[..., Any]) -> Callable[..., Any]:
    """The host's `Runner._preview`, which shows the command. With a mixture of ours it adds what the run would do."""

    @functools.wraps(host)
    def _preview(self: Any, data: dict[Any, Any], do_train: bool) -> Iterator[dict[Any, Any]]:
        shown: dict[Any, Any] = {}
        for shown in host(self, data, do_train):
            yield shown
        get = self.manager.get_elem_by_id
        if not do_train or not fields.is_ours(data[get(f"train.{fields.STRATEGY}")]):
            return
        box, lang = get("train.output_box"), data[get("top.lang")]
        if box in shown and "llamafactory-cli train" in str(shown[box]):
            from .events import explanation

            found = explanation(self, data, lang)
            yield {box: f"{shown[box]}\n\n**{texts.say('what_it_does', lang)}**\n\n{found}"}

    return _preview


def keeping_switches(host: Callable[..., Any]) -> Callable[..., Any]:
    """The host's `_clean_cmd`, which drops false values. Ours are kept, since false may differ from the default."""

    @functools.wraps(host)
    def _clean_cmd(args: dict[str, Any]) -> dict[str, Any]:
        return {**host(args), **{key: value for key, value in args.items() if key in FIELDS and value is False}}

    return _clean_cmd


def quoting(host: Callable[..., Any]) -> Callable[..., Any]:
    """The host's `gen_cmd`, the command that is shown: each word as a shell takes it for one."""

    @functools.wraps(host)
    def gen_cmd(args: dict[str, Any]) -> str:
        if not fields.is_ours(args.get(fields.STRATEGY)):
            return str(host(args))
        return str(host({key: _quoted(value) for key, value in args.items()}))

    return gen_cmd


def _quoted(value: Any) -> Any:
    if isinstance(value, list):
        return [shlex.quote(str(one)) for one in value]
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else value
    return shlex.quote(text) if isinstance(text, str) and text else value


def one_line_failures(host: Callable[..., Any]) -> Callable[..., Any]:
    """The host's `Runner.monitor`. For a run that was refused it shows only the line that says why."""

    @functools.wraps(host)
    def monitor(self: Any) -> Iterator[dict[Any, Any]]:
        lang = self.running_data[self.manager.get_elem_by_id("top.lang")]
        for update in host(self):
            shown = {component: _only_the_reason(value, lang) for component, value in update.items()}
            for component, value in shown.items():
                if value != update[component]:
                    messages.warn(value)
            yield shown

    return monitor


def _only_the_reason(value: Any, lang: str) -> Any:
    """A failed run's stderr, cut down to our `error: …` if it has one; any other value unchanged."""
    if not isinstance(value, str):
        return value
    found = re.findall(r"^error: (.+)$", value, flags=re.MULTILINE)
    return messages.in_words(found[-1], lang) if found else value


def with_domain_progress(host: Callable[..., Any]) -> Callable[..., Any]:
    """The host's `get_trainer_info`. Its progress bar shows the domain stage until there are training steps."""

    @functools.wraps(host)
    def get_trainer_info(lang: str, output_path: Any, do_train: bool) -> Any:
        import gradio as gr

        log, bar, info = host(lang, output_path, do_train)
        if not _has_lines(Path(output_path) / TRAINER_LOG) and (progress := last_progress(log)):
            stage = f"stage_{progress.name}"
            name = texts.say(stage, lang) if stage in texts.PHRASES else progress.name
            title = texts.say("progress", lang).format(name=name)
            label = f"{title} {progress.done}/{progress.total}: {progress.elapsed} < {progress.remaining}"
            bar = gr.Slider(label=label, value=round(100 * progress.done / progress.total, 2), visible=True)
        return log, bar, info

    return get_trainer_info


def _has_lines(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0
