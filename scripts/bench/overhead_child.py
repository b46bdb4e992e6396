"""One training of overhead.py: the host's `run_exp` with a callback that waits for its turn before each step.

    python scripts/bench/overhead_child.py '{"keys": {...}, "go": 5, "answers": 6, ...}'      # overhead.py starts it

What is timed inside of a mixture of ours, besides the whole step, is timed by wrapping its methods; nothing of them is
changed.
"""

import functools
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

CLOCKS: dict[str, Callable[[], float]] = {
    "wall": time.perf_counter,
    "cpu": time.process_time,
    "kernel": lambda: resource.getrusage(resource.RUSAGE_SELF).ru_stime,  # part of "cpu": new memory, mostly
}


class Stopwatch:
    """The seconds of a step so far, and of what was wrapped in it."""

    def __init__(self, clock: str) -> None:
        self.now = CLOCKS[clock]
        self.parts: dict[str, float] = {}
        self.began = 0.0
        self._inner = [0.0]  # of each timed call that is under way, what timed calls inside of it took

    def start(self) -> None:
        self.parts = {}
        self.began = self.now()

    def stop(self) -> dict[str, float]:
        """All seconds, less those of the reference that ran in between."""
        return {**self.parts, "seconds": self.now() - self.began - self.parts.get("forward", 0.0)}

    def timing(self, part: str, function: Callable[..., Any], *, own: bool = False) -> Callable[..., Any]:
        """The function, its seconds added to `part`: all of them, or its `own`, without what is timed inside of it."""

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            start = self._time()
            self._inner.append(0.0)
            try:
                return function(*args, **kwargs)
            finally:
                inner, seconds = self._inner.pop(), self._time() - start
                self._inner[-1] += seconds
                self.parts[part] = self.parts.get(part, 0.0) + seconds - (inner if own else 0.0)

        return timed

    def _time(self) -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return self.now()


def watch_mixing(stopwatch: Stopwatch) -> None:
    """Time what any mixture adds to a step: drawing, domains in batches, looking on at the loss, the callback."""
    from llamafactory.train.sft.trainer import CustomSeq2SeqTrainer

    from llamafactory_dids.training.callback import MixingCallback
    from llamafactory_dids.training.collator import DomainCollator
    from llamafactory_dids.training.sampler import MixtureSampler
    from llamafactory_dids.training.trainer import MixingTrainerMixin

    def ours(function: Callable[..., Any]) -> Callable[..., Any]:
        return stopwatch.timing("mixing", function, own=True)

    make_collator, draw = DomainCollator.__init__, MixtureSampler.__iter__

    def with_timed_inner(self: Any, inner: Callable[..., Any]) -> None:
        make_collator(self, stopwatch.timing("host", inner))

    def drawing(self: Any) -> Any:
        draws = draw(self)
        take = ours(lambda: next(draws, None))
        while (sample := take()) is not None:
            yield sample

    CustomSeq2SeqTrainer.compute_loss = stopwatch.timing("host", CustomSeq2SeqTrainer.compute_loss)
    DomainCollator.__init__ = with_timed_inner  # type: ignore[method-assign]
    DomainCollator.__call__ = ours(DomainCollator.__call__)  # type: ignore[method-assign]
    MixtureSampler.__iter__ = drawing  # type: ignore[method-assign]
    MixingTrainerMixin.compute_loss = ours(MixingTrainerMixin.compute_loss)  # type: ignore[method-assign]
    MixingCallback.on_step_end = ours(MixingCallback.on_step_end)  # type: ignore[method-assign]


def watch_dids(stopwatch: Stopwatch, kernel: Stopwatch) -> None:
    """Time what is taken of training batches' gradients, and the updates, and after each a forward pass over its rows.

    Of updates and forward passes the seconds in the kernel too, which a step without them does not have.
    """
    from llamafactory_dids.stages.meter import GradientMeter
    from llamafactory_dids.training.controller import MixtureController
    from llamafactory_dids.training.in_run import InRunImpact
    from llamafactory_dids.training.running import RunningGradients
    from llamafactory_dids.training.watching import WatchedGradients

    for seen in (InRunImpact, RunningGradients):
        seen.watch = stopwatch.timing("running", seen.watch)  # type: ignore[method-assign]
    for name in ("watch_loss", "_add"):
        setattr(WatchedGradients, name, stopwatch.timing("running", getattr(WatchedGradients, name)))
    make_hook = WatchedGradients._hook
    WatchedGradients._hook = lambda self, i: stopwatch.timing("running", make_hook(self, i))  # type: ignore
    GradientMeter.tasks = stopwatch.timing("measure", GradientMeter.tasks)  # type: ignore[method-assign]
    GradientMeter.domain = stopwatch.timing("fresh", GradientMeter.domain)  # type: ignore[method-assign]
    update = kernel.timing("update", stopwatch.timing("update", MixtureController._update))
    forward = kernel.timing("forward", stopwatch.timing("forward", task_forward))

    def updating(self: Any, step: int) -> Any:
        series = update(self, step)
        if self.observer.meter is not None:
            forward(self.observer.meter, self.plan.tasks.values())
        return series

    MixtureController._update = updating  # type: ignore[method-assign]


@torch.no_grad()
def task_forward(meter: Any, tasks: Any) -> None:
    """A plain forward pass over the batches of task samples that a measurement takes."""
    from llamafactory_dids.stages.batching import length_batches, num_tokens, to_device
    from llamafactory_dids.stages.per_sample import evaluating

    model = meter.engine.model
    with evaluating(model):
        for rows in tasks:
            for places in length_batches([num_tokens(row) for row in rows], meter.batch_size, meter.max_tokens):
                batch = to_device(meter.collate([dict(rows[i]) for i in places]), meter.device)
                batch.pop("labels")
                with meter.precision():
                    model(**batch, use_cache=False)


def waiting_callback(stopwatch: Stopwatch, kernel: Stopwatch, go: int, answers: int) -> Any:
    from transformers import TrainerCallback

    class Waiting(TrainerCallback):  # type: ignore[misc]
        started = False

        def on_step_begin(self, *_args: Any, **_kwargs: Any) -> None:
            answer = stopwatch.stop() if self.started else {}
            if self.started and stopwatch.now is CLOCKS["cpu"]:
                of_kernel = kernel.stop()
                answer["kernel"] = of_kernel["seconds"] - of_kernel.get("update", 0.0)
            self.started = True
            os.write(answers, (json.dumps(answer) + "\n").encode())
            if not os.read(go, 1):
                sys.exit()
            kernel.start()
            stopwatch.start()

    return Waiting()


def main() -> None:
    settings = json.loads(sys.argv[1])
    torch.set_num_threads(settings["threads"])
    stopwatch, kernel = Stopwatch(settings["clock"]), Stopwatch("kernel")
    if settings["dataflex"]:
        from dataflex import cli

        cli.patch_finetune_params()
        cli.patch_trainer("dynamic_mix")
        cli.patch_get_dataset()
    elif "dids_domains" in settings["keys"]:
        watch_mixing(stopwatch)
        if settings["keys"]["mix_strategy"] == "dids":
            watch_dids(stopwatch, kernel)
    from llamafactory.train.tuner import run_exp

    waiting = waiting_callback(stopwatch, kernel, settings["go"], settings["answers"])
    run_exp(args=settings["keys"], callbacks=[waiting])


if __name__ == "__main__":
    main()
