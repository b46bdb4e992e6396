"""Called by the harness for a task that has only a reference answer: its negative log-likelihood a character."""

from typing import Any


def process_results(doc: dict[str, Any], results: list[Any]) -> dict[str, float]:
    """`results` is [(log-likelihood of the answer, whether it is the most likely one)], or its pair alone."""
    first = results[0]
    loglikelihood = first[0] if isinstance(first, tuple | list) else first
    return {"loss": -float(loglikelihood) / max(1, len(doc["output"]))}
