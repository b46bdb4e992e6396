"""Equations 11 and 12 and the impact of method.md, section 3, one pair of vectors and one number at a
time."""

import math


def kl(domain: list[float], task: list[float], fisher_P: list[float]) -> float:
    return 0.5 * sum(f * (s - d) ** 2 for d, s, f in zip(domain, task, fisher_P, strict=True))


def metric(fisher_P: list[float], kind: str) -> list[float]:
    if kind == "gradient":
        return [1.0 for _ in fisher_P]
    if kind == "fisher":
        return list(fisher_P)
    largest_root = max(math.sqrt(f) for f in fisher_P)
    return [1.0 / (math.sqrt(f) + 1e-3 * largest_root) for f in fisher_P]


def inner(a: list[float], b: list[float], m: list[float]) -> float:
    return sum(x * y * z for x, y, z in zip(a, b, m, strict=True))


def impact(domains: list, tasks: list, fishers: list, kind: str, normalize: str) -> list[list[float]]:
    columns = [column(domains, task, f, kind, normalize) for task, f in zip(tasks, fishers, strict=True)]
    return [[values[i] for values in columns] for i in range(len(domains))]


def column(domains: list, task: list, fisher_P: list, kind: str, normalize: str) -> list[float]:
    """The impact of all domains on one task."""
    if kind == "kl":
        return [kl(domain, task, fisher_P) for domain in domains]
    m = metric(fisher_P, kind)
    dots = [inner(domain, task, m) for domain in domains]
    lengths = [math.sqrt(inner(domain, domain, m)) for domain in domains]
    if normalize == "dot":
        return dots
    if normalize == "cosine":
        return [x / (n * math.sqrt(inner(task, task, m))) for x, n in zip(dots, lengths, strict=True)]
    if normalize == "none":
        return [max(0.0, x) / n for x, n in zip(dots, lengths, strict=True)]
    if normalize == "sum":
        values = [x * x / (2 * n * n) if x > 0 else 0.0 for x, n in zip(dots, lengths, strict=True)]
    else:
        values = [max(dots) / 2 - x / 2 for x in dots]
    return [x / sum(values) if sum(values) > 0 else 0.0 for x in values]
