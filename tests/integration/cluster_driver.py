"""For torchrun: makes the domains of two YAML files, as `llamafactory-dids cluster` does. Another run finishes the
cache of the second one after the first rank has looked for it, and before the second rank does.

torchrun --nproc-per-node 2 tests/integration/cluster_driver.py PLAIN.yaml LATE.yaml FINISHED CACHE
"""

import os
import shutil
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.integration.support import tuner


def main() -> None:
    plain, late, finished, cache = sys.argv[1:]
    tuner()
    from llamafactory_dids.integration.commands.cluster import make_domains
    from llamafactory_dids.integration.domains import making

    sys.argv[1:] = [plain]
    make_domains()
    look = making.feature_source

    def look_late(*arguments):
        if os.environ["RANK"] == "1":
            time.sleep(5)
            shutil.copytree(finished, cache, dirs_exist_ok=True)
        return look(*arguments)

    making.feature_source = look_late
    sys.argv[1:] = [late]
    make_domains()


if __name__ == "__main__":
    main()
