"""The presets' updates of method.md, sections 4 and 5, step by step in plain Python, one function a preset.

All take the probabilities p, the impact rows I[i][j], the losses now L[j], l_c[j] and l_p[j].
"""

import math


def utilities(impact: list[list[float]], weights: list[float]) -> list[float]:
    return [sum(impact[i][j] * weights[j] for j in range(len(weights))) for i in range(len(impact))]


def softmax(values: list[float]) -> list[float]:
    top = max(values)
    exponentials = [math.exp(v - top) for v in values]
    return [e / sum(exponentials) for e in exponentials]


def over_p(values: list[float], p: list[float]) -> list[float]:
    return [u / max(q, 1e-3 / len(p)) for u, q in zip(values, p, strict=True)]


def average(p: list[float], p_hat: list[float], beta: float) -> list[float]:
    return [beta * old + (1 - beta) * new for old, new in zip(p, p_hat, strict=True)]


def finish(p: list[float], p_hat: list[float], beta: float, floor: float) -> list[float]:
    return [(1 - floor) * q + floor / len(p) for q in average(p, p_hat, beta)]


def raised(p: list[float], floor: float) -> list[float]:
    """max(floor / D, c p), with the c that makes it sum to one found by bisection."""
    least, low, high = floor / len(p), 0.0, 1.0
    for _ in range(200):
        c = (low + high) / 2
        low, high = (c, high) if sum(max(least, c * q) for q in p) < 1 else (low, c)
    return [max(least, low * q) for q in p]


def finish_above(p: list[float], p_hat: list[float], beta: float, floor: float) -> list[float]:
    return raised(average(p, p_hat, beta), floor)


def exponentiate(p: list[float], u: list[float], eta: float) -> list[float]:
    unnormalised = [q * math.exp(eta * v) for q, v in zip(p, u, strict=True)]
    return [x / sum(unnormalised) for x in unnormalised]


def standardize(u: list[float]) -> list[float]:
    mean = sum(u) / len(u)
    deviation = math.sqrt(sum((v - mean) ** 2 for v in u) / len(u))
    return [(v - mean) / deviation for v in u]


def returns(p: list, impact: list, covariance: list, weights: list, sizes: list) -> tuple[list[float], list[float]]:
    """V and s^2; `covariance[i]` is T x T, and `sizes[i]` what a sample of domain i weighs in the loss."""
    T = range(len(weights))
    mean_size = sum(q * a for q, a in zip(p, sizes, strict=True))
    lever = [a / mean_size for a in sizes]
    u = utilities(impact, weights)
    whole = sum(q * a * v for q, a, v in zip(p, lever, u, strict=True))
    u = [a * (v - whole) for a, v in zip(lever, u, strict=True)]
    noise = [sum(weights[j] * weights[k] * c[j][k] for j in T for k in T) for c in covariance]
    return u, [a * a * e for a, e in zip(lever, noise, strict=True)]


def pool(estimates: list[tuple[list[float], list[float]]]) -> tuple[list[float], list[float]]:
    """The means of several, weighed by 1 / s^2, and the variance that they have."""
    total = [sum(1 / s[i] for _, s in estimates) for i in range(len(estimates[0][0]))]
    means = [sum(v[i] / s[i] for v, s in estimates) / t for i, t in enumerate(total)]
    return means, [1 / t for t in total]


def quantile(freedom: float) -> float:
    """What a chi-square variable exceeds in one case of 200, by Wilson and Hilferty."""
    return freedom * (1 - 2 / (9 * freedom) + 2.576 * math.sqrt(2 / (9 * freedom))) ** 3


def evidence(p: list, u: list, noise: list) -> list[float]:
    """z of each domain."""
    mean = sum(q * v for q, v in zip(p, u, strict=True))
    variance = sum(q * (v - mean) ** 2 for q, v in zip(p, u, strict=True))
    signal = 0.0
    for power in (1, 2):
        q = [x**power / sum(y**power for y in p) for x in p]
        spread = sum(x * (v - mean) ** 2 for x, v in zip(q, u, strict=True))
        by_chance = [x * e for x, e in zip(q, noise, strict=True)]
        freedom = sum(by_chance) ** 2 / sum(e * e for e in by_chance)
        signal = max(signal, spread - sum(by_chance) / freedom * quantile(freedom))
    if signal == 0:
        return [0.0 for _ in p]
    z = [(v - mean) / math.sqrt(variance) * signal / (signal + e) for v, e in zip(u, noise, strict=True)]
    return [min(max(x, -3.0), 3.0) for x in z]


def default(p: list, windows: list[tuple[list, list, list]]) -> list[float]:
    """`windows`: impact, covariance and sizes of each window since p moved."""
    T = len(windows[0][0][0])
    z = evidence(
        p, *pool([returns(p, impact, covariance, [1 / T] * T, sizes) for impact, covariance, sizes in windows])
    )
    return finish_above(p, exponentiate(p, z, eta=0.25), beta=0.1, floor=0.05)


def paper(p: list, impact: list, losses: list, l_c: list, l_p: list) -> list[float]:
    weights = [max(0.0, c + q) for c, q in zip(l_c, l_p, strict=True)]
    u = over_p(utilities(impact, weights), p)
    return finish(p, softmax(standardize(u)), beta=0.1, floor=0.05)


def literal(p: list, impact: list, losses: list, l_c: list, l_p: list) -> list[float]:
    weights = [c + q for c, q in zip(l_c, l_p, strict=True)]
    return finish(p, softmax(over_p(utilities(impact, weights), p)), beta=0.1, floor=0.0)


def authors(p: list, impact: list, losses: list, l_c: list, l_p: list) -> list[float]:
    weights = [c + q for c, q in zip(l_c, l_p, strict=True)]
    u = [v if v > 0 else 1e-7 for v in over_p(utilities(impact, weights), p)]
    return finish(p, [v / sum(u) for v in u], beta=0.2, floor=0.0)
