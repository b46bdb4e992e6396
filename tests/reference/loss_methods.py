"""DoReMi (Xie et al. 2023, arXiv:2305.10429), Velocitune (Luo et al. 2024, arXiv:2411.14318) and ODM (Albalak et al.
2023, arXiv:2312.02406), from their papers, step by step in plain Python."""

import math


def normalised(weights: list[float]) -> list[float]:
    return [w / sum(weights) for w in weights]


def excess_loss(proxy: list[float], reference: list[float]) -> float:
    """DoReMi, Algorithm 1: the per-token excess losses of one domain (or task), clipped at zero, averaged."""
    return sum(max(now - then, 0.0) for now, then in zip(proxy, reference, strict=True)) / len(proxy)


def doremi_update(p: list[float], excess: list[float], eta: float = 1.0, c: float = 1e-3) -> list[float]:
    """DoReMi, Algorithm 1: exponentiated gradient ascent, renormalised, smoothed toward uniform."""
    new = normalised([q * math.exp(eta * e) for q, e in zip(p, excess, strict=True)])
    return [(1 - c) * q + c / len(p) for q in new]


def shared_out(similarities: list[list[float]], values: list[float]) -> list[float]:
    """For domain i, the sum over tasks j of its share of j's positive similarity times j's value (method.md, 7)."""
    result = [0.0] * len(similarities)
    for j, value in enumerate(values):
        positive = [max(row[j], 0.0) for row in similarities]
        if sum(positive) > 0:
            for i, s in enumerate(positive):
                result[i] += s / sum(positive) * value
    return result


def velocity(start: float, now: float, target: float) -> float:
    """Velocitune, equation 2: the part of the way from the first loss to the target that is left."""
    return (now - target) / (start - target)


def velocitune_update(p: list[float], velocities: list[float]) -> list[float]:
    """Velocitune, equation 3."""
    return normalised([q * math.exp(v) for q, v in zip(p, velocities, strict=True)])


class Odm:
    """ODM, Algorithm 1: one object is one run of the bandit."""

    def __init__(self, num_domains: int) -> None:
        self.k, self.alpha = num_domains, 0.9
        self.rewards = [0.0] * num_domains
        self.pi = [1 / num_domains] * num_domains
        self.exploration = 1 / num_domains

    def observe(self, losses: dict[int, float], turn: int) -> list[float]:
        """The losses of the domains that were drawn; the policy of the next turns."""
        for i, loss in losses.items():
            self.rewards[i] = self.alpha * self.rewards[i] + (1 - self.alpha) * loss / self.pi[i]
        exploration = min(1 / self.k, math.sqrt(math.log(self.k) / (self.k * turn)))
        soft = normalised([math.exp(self.exploration * r) for r in self.rewards])
        self.pi = [(1 - self.k * exploration) * s + exploration for s in soft]
        self.exploration = exploration
        return self.pi
