"""A domain map as `inspect` and `cluster` print it: a line for each domain, in the width of the terminal."""

import json
import shutil
from pathlib import Path

from ...artifacts.domain_map import DomainMap
from ...text import beginning, one_line, without_middle

LONGEST_NAME = 32  # letters


def show_domains(
    domain_map: DomainMap,
    folder: Path,
    as_json: bool,
    shares: dict[str, float] | None = None,
    limit: int | None = None,
) -> None:
    """Print at most `limit` domains: a run's by their share at its last update, other maps' by their size."""
    domains, num_samples = domain_map.describe(), len(domain_map.keys_N)
    for domain in domains:
        if shares:
            domain["probability"] = shares.get(domain["name"])
    if as_json:
        print(json.dumps({"path": str(folder), "domains": domains[:limit]}, ensure_ascii=False))
        return
    domains.sort(key=lambda domain: (-(domain.get("probability") or 0.0), -domain["size"]))
    print(f"{folder}: {len(domains)} domains, {num_samples:,} samples")
    width = min(LONGEST_NAME, max(len(name) for name in ("domain", *domain_map.names)))
    columns = max(80, shutil.get_terminal_size().columns)
    share = f"{'share':>8}" if shares else ""
    print(f"{'domain':<{width}} {'samples':>9} {'of data':>8}{share}  datasets, and a sample")
    for domain in domains[:limit]:
        name = without_middle(domain["name"], width)
        size = f"{domain['size']:>9,} {domain['size'] / max(1, num_samples):>8.2%}"
        now = f"{domain['probability']:>8.2%}" if domain.get("probability") is not None else " " * len(share)
        sources = ", ".join(f"{source} {count:,}" for source, count in domain["sources"].items())
        start = f"{name:<{width}} {size}{now}  "
        print(start + _cut(sources, columns - len(start)))
        for text in domain["typical_texts"][:1]:
            print("  " + _cut(one_line(text), columns - 2))
    if limit is not None and len(domains) > limit:
        print(f"… and {len(domains) - limit} more")


def _cut(text: str, room: int) -> str:
    return beginning(text, room) if len(text) <= room else beginning(text, room - 2)
