"""What is installed beside this package: its licences, a bill of materials (CycloneDX), and known vulnerabilities.

python scripts/supply.py licences            fails on one that would bind who uses the package
python scripts/supply.py sbom sbom.json
python scripts/supply.py audit               by pip-audit; says so, and does not fail, where nobody answers
"""

import importlib.metadata as metadata
import json
import re
import subprocess
import sys
from pathlib import Path

from packaging.requirements import Requirement

NAME = "llamafactory-dids"
BINDING = re.compile(r"\b(A?GPL|GNU (Affero )?General Public)", re.IGNORECASE)  # and not the Lesser one
WEAK = re.compile(r"\bLGPL|GNU Lesser|GPL-compatible|with.*exception", re.IGNORECASE)
PATIENCE = 90  # seconds


def closure(name: str = NAME) -> dict[str, metadata.Distribution]:
    """What an install of the package brings, by name; what markers leave out is not there."""
    found: dict[str, metadata.Distribution] = {}
    waiting, seen = [Requirement(name)], set()
    while waiting:
        wanted = waiting.pop()
        key = re.sub(r"[-_.]+", "-", wanted.name).lower()
        try:
            distribution = metadata.distribution(key)
        except metadata.PackageNotFoundError:
            continue
        if (key, *wanted.extras) in seen:
            continue
        seen.add((key, *wanted.extras))
        found[key] = distribution
        for one in map(Requirement, distribution.requires or ()):
            if any(one.marker is None or one.marker.evaluate({"extra": extra}) for extra in {"", *wanted.extras}):
                waiting.append(one)
    return found


def licence(distribution: metadata.Distribution) -> str:
    """What a package says of its licence, in a line."""
    told = distribution.metadata
    if found := told.get("License-Expression"):
        return str(found)
    classes = [text.split(" :: ")[-1] for text in told.get_all("Classifier") or () if text.startswith("License ::")]
    return ", ".join(classes) or str(told.get("License") or "unknown").split("\n")[0][:100]


def licences() -> int:
    binding = {name: licence(one) for name, one in closure().items()}
    binding = {name: text for name, text in binding.items() if BINDING.search(text) and not WEAK.search(text)}
    for name, text in binding.items():
        print(f"{name}: {text}")
    print(f"{len(closure())} packages, {len(binding)} of them under a licence that binds who uses this one")
    return bool(binding)


def sbom(path: Path) -> int:
    """Write the bill of materials: the same bytes for the same environment."""
    parts = [
        {
            "type": "library",
            "name": name,
            "version": one.version,
            "purl": f"pkg:pypi/{name}@{one.version}",
            "licenses": [{"license": {"name": licence(one)}}],
        }
        for name, one in sorted(closure().items())
        if name != NAME
    ]
    own = {"type": "library", "name": NAME, "version": metadata.version(NAME)}
    head = {"bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1, "metadata": {"component": own}}
    path.write_text(json.dumps({**head, "components": parts}, indent=1) + "\n")
    print(f"{path}: {len(parts)} packages")
    return 0


def audit() -> int:
    """1 where a package has a known vulnerability and a version without it."""
    wanted = "\n".join(f"{name}=={one.version}" for name, one in closure().items() if name != NAME)
    command = [sys.executable, "-m", "pip_audit", "--no-deps", "--disable-pip", "-r", "/dev/stdin", "-f", "json"]
    try:
        ran = subprocess.run(command, input=wanted, capture_output=True, text=True, timeout=PATIENCE)
        answers = json.loads(ran.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, ValueError, KeyError) as error:
        print(f"vulnerabilities: not known, nobody answered ({type(error).__name__}); pip install pip-audit")
        return 0
    told = [one for one in answers if "skip_reason" not in one]
    found = [(one["name"], hole) for one in told for hole in one["vulns"]]
    for name, hole in found:
        print(f"{name}: {hole['id']}, mended in {', '.join(hole['fix_versions']) or 'no version'}")
    print(f"vulnerabilities: {len(found)} in {len(told)} packages; of {len(answers) - len(told)} nobody told")
    return any(hole["fix_versions"] for _, hole in found)


def main() -> int:
    match sys.argv[1:]:
        case [] | ["licences"]:
            return licences()
        case ["sbom", path]:
            return sbom(Path(path))
        case ["audit"]:
            return audit()
    raise SystemExit(__doc__)


if __name__ == "__main__":
    sys.exit(main())
