"""Errors as the page shows them: with the names of its fields, in its language."""

import html
import re

from . import texts

_PLAIN = re.compile(r"^(\w+): got (.+?), allowed: (.+)$", flags=re.DOTALL)
_UNKNOWN = re.compile(r"^(\w+): unknown key(?:, did you mean (\w+)\?)?;")

# Chinese for what is allowed, in the most common refusals of a form. Others stay English.
_CHINESE = (
    (r"at least one task for mix_strategy '(.+)'", r"策略 \1 至少需要一个任务"),
    (
        r"a name in (.+)'s dataset_info\.json \(did you mean (.+)\?\)",
        r"\1 的 dataset_info.json 中的名称（是不是 \2？）",
    ),
    (r"a name in (.+)'s dataset_info\.json.*", r"\1 的 dataset_info.json 中的名称"),
    (r"a folder that is there, or the name of a model on the hub", "存在的文件夹，或模型库中的模型名称"),
    (r"cluster, source, or the path of a domain map", "cluster、source，或领域图的路径"),
    (r"at least one for each of the (\d+) datasets", r"\1 个数据集每个至少一个"),
    (r"at most the number of training samples, (\d+)", r"不超过训练样本数 \1"),
    (r"at least the samples of a step, (\d+).*", r"至少为一步的样本数 \1"),
    (r"an integer >= (\d+)", r"不小于 \1 的整数"),
    (r"a number", "数字"),
    (r"each name once", "每个名称只出现一次"),
    (r"a dataset whose file is there", "文件存在的数据集"),
)


def warn(message: str) -> None:
    """A notice on the page, which gradio takes for HTML."""
    import gradio as gr

    gr.Warning(html.escape(message))


def in_words(error: str, lang: str) -> str:
    """A one-line error with the labels of the page's fields. An error that names no field is unchanged."""
    lang = lang if lang in texts.LANGUAGES else "en"
    if found := _UNKNOWN.match(error):
        key, meant = found.groups()
        hint = texts.say("did_you_mean", lang).format(name=meant) if meant else ""
        return texts.say("unknown_key", lang).format(name=key) + hint
    if (found := _PLAIN.match(error)) is None or found[1] not in texts.FIELDS:
        return error
    field, value, allowed = texts.FIELDS[found[1]][lang][0], found[2], found[3]
    for text, chinese in _CHINESE if lang == "zh" else ():
        allowed = re.sub(f"^{text}$", chinese, allowed)
    value = texts.say("nothing", lang) if value in ("none", "None", "''") else value
    return texts.say("refused", lang).format(name=field, value=value, allowed=allowed)
