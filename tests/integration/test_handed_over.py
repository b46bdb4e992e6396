"""`static` takes over the mean mixture of another run, by the names of its domains."""

import numpy as np
import pytest

from tests.integration.support import arguments, module_of, same_domains

pytestmark = pytest.mark.integration


def static(world, folder, **changes):
    return arguments(world, folder, **{"mix_strategy": "static", "dids_tasks": None} | changes)


@pytest.mark.parametrize("place", ["dids/mixture.jsonl", "dids", ""])
def test_mixture_of_a_run_is_its_mean_over_the_run(place, finished, world, tmp_path):
    values = static(world, tmp_path, dids_probs=str(finished.folder / place), **same_domains(finished))
    plan = module_of(values)[0]["mixing"]
    p = plan.mixer.init().probabilities_D
    expected = np.mean([list(line.values()) for line in finished.probabilities[:-1]], axis=0)
    assert plan.domain_names == tuple(finished.probabilities[0])
    assert p == pytest.approx(expected)
