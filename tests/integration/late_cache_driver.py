"""For torchrun: makes domains as `llamafactory-dids cluster` does; another run finishes the same cache after
the first rank has looked for it, and before the second one does.

torchrun --nproc-per-node 2 tests/integration/late_cache_driver.py run.yaml FINISHED CACHE
"""

import os
import shutil
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.integration.support import tuner


def main() -> None:
    cache, finished = Path(sys.argv.pop()), Path(sys.argv.pop())
    tuner()
    from llamafactory_dids.integration.commands.cluster import make_domains
    from llamafactory_dids.integration.domains import making

    look = making.feature_source

    def late(*arguments):
        if os.environ["RANK"] == "1":
            time.sleep(5)
            shutil.copytree(finished, cache, dirs_exist_ok=True)
        return look(*arguments)

    making.feature_source = late
    make_domains()


if __name__ == "__main__":
    main()
