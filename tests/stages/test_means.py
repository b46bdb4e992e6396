"""What is asked of domains that are there, against plain loops."""

import numpy as np

from llamafactory_dids.stages.means import central_samples, nearest_domains
from tests.stages.points import blobs


def test_central_samples_are_those_nearest_the_mean_nearest_first():
    points_NK, domains_N = blobs(9, 7), np.repeat([0, 1], [9, 7])
    written_N = np.ones(16, bool)
    written_N[4] = False
    for domain, found in enumerate(central_samples(points_NK.__getitem__, written_N, domains_N, 3)):
        members = [n for n in range(16) if domains_N[n] == domain and written_N[n]]
        mean = sum(points_NK[n] for n in members) / len(members)
        expected = sorted(members, key=lambda n: sum((points_NK[n] - mean) ** 2))[:3]
        assert found == expected


def test_other_samples_count_for_the_domain_whose_mean_is_nearest():
    rng = np.random.default_rng(0)
    features_NK = rng.normal(size=(40, 6)).astype(np.float32)
    domains_N, written_N = rng.integers(0, 4, 40), rng.random(40) < 0.8
    domains_N[domains_N == 2] = 3  # a domain without samples
    others_MK = rng.normal(size=(25, 6)).astype(np.float32)
    expected = []
    for other in others_MK:
        distance = {
            domain: np.linalg.norm(features_NK[written_N & (domains_N == domain)].mean(axis=0) - other)
            for domain in (0, 1, 3)
        }
        expected.append(min(distance, key=distance.get))
    found = nearest_domains(features_NK.__getitem__, written_N, domains_N, 5, others_MK)
    assert found.tolist() == expected
