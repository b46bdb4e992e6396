"""DGA (Fan et al. 2024a, arXiv:2410.02498), DoGE (Fan et al. 2024b, arXiv:2310.15393) and importance sampling, from
their papers, step by step in plain Python on gradients as lists of numbers."""

import math


def inner(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def cosine(a: list[float], b: list[float]) -> float:
    return inner(a, b) / math.sqrt(inner(a, a) * inner(b, b))


def reweighted(p: list[float], exponents: list[float]) -> list[float]:
    grown = [q * math.exp(e) for q, e in zip(p, exponents, strict=True)]
    return [g / sum(grown) for g in grown]


def dga_update(p: list[float], domains: list, tasks: list, similarity, eta: float, beta: float) -> list[float]:
    """DGA, Algorithm 1: mirror descent on the alignments, then the moving average."""
    alignments = [sum(similarity(g, h) for h in tasks) for g in domains]
    new = reweighted(p, [eta * a for a in alignments])
    return [beta * old + (1 - beta) * q for old, q in zip(p, new, strict=True)]


def doge_update(p: list[float], domains: list, tasks: list, similarity, eta: float) -> list[float]:
    """DoGE, equation 8 with the target's gradient in place of the sum over all domains (its section 4.2)."""
    return reweighted(p, [eta * sum(similarity(g, h) for h in tasks) for g in domains])


def doge_mixture(history: list[list[float]]) -> list[float]:
    """DoGE, Algorithm 1, last line: the mean of the weights over the proxy run's steps."""
    return [sum(column) / len(history) for column in zip(*history, strict=True)]


def importance(task_samples: list[list[float]], centroids: list[list[float]]) -> list[float]:
    """The share of the task samples whose nearest centroid, by Euclidean distance, is each domain's."""
    nearest = [
        min(range(len(centroids)), key=lambda i: sum((x - c) ** 2 for x, c in zip(sample, centroids[i], strict=True)))
        for sample in task_samples
    ]
    return [nearest.count(i) / len(nearest) for i in range(len(centroids))]


def balance_update(gradients: list[list[float]], shares: list[float], eta: float) -> list[float]:
    """R&B, its softmax of the normalised product of the Gram matrix and the evaluation shares (lambda: eta sqrt(D))."""
    gram = [[inner(g, h) for h in gradients] for g in gradients]
    score = [sum(entry * share for entry, share in zip(row, shares, strict=True)) for row in gram]
    length = math.sqrt(sum(s * s for s in score))
    factor = eta * math.sqrt(len(score))
    weights = [math.exp(factor * s / length) for s in score]
    return [w / sum(weights) for w in weights]
