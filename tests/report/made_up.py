"""Made-up runs for the tests of the report: a log and a domain map of any size, by a seed."""

from pathlib import Path

import numpy as np

from llamafactory_dids.artifacts.files import write_json
from llamafactory_dids.artifacts.mixture_log import MixtureLog


def write_run(
    folder: Path,
    num_domains: int,
    num_lines: int = 26,
    num_tasks: int = 3,
    *,
    num_sources: int = 5,
    seed: int = 0,
    text: str = "A typical sample.",
    measured: bool = True,
    repeats: float | None = None,
    config: str = "",
) -> dict[str, np.ndarray]:
    """A run whose domains help or harm by chance: probabilities (U, D), impacts (U, D, T), losses (U, T).

    Its samples were drawn by the probabilities, a window of 4,000 each. Each domain's size is by chance, or, with
    `repeats`, what makes its samples be drawn so often.
    """
    rng = np.random.default_rng(seed)
    sources = [f"source_{i}" for i in range(min(num_sources, num_domains))]
    names = [f"{sources[i % len(sources)]}/{i // len(sources)}" for i in range(num_domains)]
    tasks = [f"task_{j}_val" for j in range(num_tasks)]
    truth_DT = rng.normal(0, 0.15, (num_domains, num_tasks))
    impact_UDT = truth_DT + rng.normal(0, 0.05, (num_lines, num_domains, num_tasks))
    logits_UD = np.vstack([np.zeros(num_domains), np.cumsum(impact_UDT[1:].mean(axis=2), axis=0)])
    shares_UD = np.exp(logits_UD) / np.exp(logits_UD).sum(axis=1, keepdims=True)
    times = np.arange(num_lines)[:, None]
    losses_UT = 1 + np.arange(num_tasks) / 4 + 2 * np.exp(-0.15 * times) + rng.normal(0, 0.03, (num_lines, num_tasks))
    log = MixtureLog(folder / "mixture.jsonl")
    drawn_UD = np.round(4000 * np.vstack([np.zeros(num_domains), np.cumsum(shares_UD[:-1], axis=0)])).astype(int)
    drawn_UD[:, -1] += 4000 * np.arange(num_lines) - drawn_UD.sum(axis=1)  # what rounding left
    for u in range(num_lines):
        first = u == 0 or not measured
        log.append(
            {
                "step": 32 * u,
                "samples_seen": 4000 * u,
                "seconds": 61.5 * u,
                "applies_from_sample": 4000 * u,
                "probabilities": dict(zip(names, shares_UD[u].tolist(), strict=True)),
                "impact": {}
                if first
                else {
                    n: dict(zip(tasks, row, strict=True)) for n, row in zip(names, impact_UDT[u].tolist(), strict=True)
                },
                "task_loss": dict(zip(tasks, losses_UT[u].tolist(), strict=True)) if measured else {},
                "task_potential": {} if first else dict.fromkeys(tasks, 0.05),
                "task_weight": {} if first else dict.fromkeys(tasks, 1 / num_tasks),
                "domain_loss": {} if u == 0 else {n: 4 - 0.1 * u + 0.01 * i for i, n in enumerate(names)},
                "domain_tokens": dict(zip(names, (10 * drawn_UD[u]).tolist(), strict=True)),
                "samples_drawn": dict(zip(names, drawn_UD[u].tolist(), strict=True)),
            }
        )
    sizes_D = np.random.default_rng(num_domains).integers(32, 3000, num_domains)
    if repeats is not None:
        sizes_D = np.maximum(1, drawn_UD[-1] / repeats).astype(int)
    domains = [
        {
            "name": name,
            "size": int(size),
            "sources": {name.split("/")[0]: int(size)},
            "typical_texts": [f"{text} {name} {k}" for k in range(3)],
        }
        for name, size in zip(names, sizes_D, strict=True)
    ]
    write_json(folder / "domains.json", {"schema": 1, "inputs": {}, "domains": domains})
    (folder / "config.yaml").write_text(config or "# seed: 1\nmix_strategy: dids\ndids_update_samples: 4000\n")
    data_D, drawn_D = sizes_D / sizes_D.sum(), drawn_UD[-1] / max(1, drawn_UD[-1].sum())
    return {"probabilities": shares_UD, "impact": impact_UDT, "losses": losses_UT, "data": data_D, "drawn": drawn_D}
