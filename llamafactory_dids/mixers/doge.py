"""DoGE (Fan et al. 2024b, arXiv:2310.15393): a proxy run finds weights, and the main run uses their mean.

    W_i = sum_j <g_Di, g_Sj>        p ∝ p · exp(eta W)        main run: the mean of p over the proxy run

This is equation 8 and Algorithm 1 with the observed tasks as the target (its out-of-domain form). Our eta is its eta /
mu. With the paper's inner product, eta depends on the size of the gradients; with the cosine (our default, as in dga)
it does not. The proxy run's mixer is that of `dga.py`, without its moving average.
"""

from __future__ import annotations

from collections.abc import Sequence

from .base import Impact, Needs, ProxyRun, RunRecord
from .checks import require_choice, require_part, require_positive, require_tasks
from .dga import SIMILARITIES, Dga
from .static import Fixed


def doge(
    num_domains: int,
    num_tasks: int,
    *,
    similarity: str = "cosine",
    eta: float | None = None,
    proxy_share: float | None = None,
    proxy_runs: Sequence[RunRecord] = (),
) -> Dga | Fixed:
    """`mix_strategy: doge`. Raises ValueError for a value that is not allowed.

    `eta` defaults to 4 / T, as in dga. `proxy_share` (1) is the proxy run's share of the main run's samples.

    >>> doge(2, 1).needs.proxy_run.name
    'proxy'
    """
    require_tasks("doge", num_tasks)
    eta = 4.0 / num_tasks if eta is None else eta
    proxy_share = 1.0 if proxy_share is None else proxy_share
    require_choice("dids_similarity", similarity, SIMILARITIES)
    require_positive("dids_eta", eta)
    require_part("dids_proxy_share", proxy_share)
    options = {"similarity": similarity, "eta": eta, "proxy_share": proxy_share}
    if proxy_runs:
        return Fixed(num_domains, num_tasks, proxy_runs[0].mean_D(), options=options)
    needs = Needs(impact=Impact("gradient", similarity), proxy_run=ProxyRun("proxy", proxy_share))
    return Dga(num_domains, num_tasks, eta, ema_beta=0.0, needs=needs, options=options)
