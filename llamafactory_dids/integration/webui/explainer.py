"""Explanations for the page by `llamafactory-dids explain -`. This process stays, since it takes longer to start than
to answer. It sees no GPU, so it takes no GPU memory.
"""

import json
import os
import subprocess
import sys
import threading
from typing import Any

from llamafactory.extras.misc import get_device_count

from ...text import byte_size
from . import messages
from .texts import say

# Keys that the host accepts only under torchrun, or with a GPU.
_NOT_FOR_COUNTING = ("deepspeed", "fsdp", "fsdp_config", "fp16", "pure_bf16")


class Explainer:
    """Answers one question at a time. No answer is kept, since data and models may change while the page is open."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def __call__(self, args: dict[str, Any]) -> dict[str, Any]:
        """The output of `explain --json` for a YAML file's values, or the refusal under `error`."""
        args = {key: value for key, value in args.items() if value not in (None, "") and key not in _NOT_FOR_COUNTING}
        with self._lock:
            return self._ask(json.dumps({"arguments": args, "processes": max(1, get_device_count())}))

    def _ask(self, line: str) -> dict[str, Any]:
        if self._process is None or self._process.poll() is not None:
            words = [sys.executable, "-m", "llamafactory_dids", "explain", "-", "--json"]
            hidden = {"CUDA_VISIBLE_DEVICES": "", "ASCEND_RT_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
            self._process = subprocess.Popen(words, text=True, env={**os.environ, **hidden}, **pipes)
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
            return dict(json.loads(self._process.stdout.readline()))
        except (OSError, ValueError):  # the process ended; the next question starts another
            return {"error": ""}


explain = Explainer()  # one for the page


def in_words(found: dict[str, Any], lang: str) -> str:
    """An answer as a line of Markdown, and a further line for each caution."""
    if "error" in found:
        return messages.in_words(found["error"], lang)
    parts = [
        say("line_training", lang).format(samples=f"{found['training_samples']:,}", steps=f"{found['steps']:,}"),
        say("line_updates", lang).format(count=found["num_updates"], every=f"{found['update_samples']:,}")
        if found["updates_wanted"]
        else say("line_fixed", lang),
        say("line_cost", lang).format(share=f"{found['overhead']:.1%}"),
        say("line_memory", lang).format(size=byte_size(found["gradient_bytes"])),
    ]
    cautions = [f"⚠️ {say('caution_' + kind, lang).format(**said)}" for kind, said in found["cautions"]]
    return "  \n".join([" · ".join(parts), *cautions])
