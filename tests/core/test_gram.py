import numpy as np
import torch

from llamafactory_dids.core.gram import gram


def test_products_are_float64s_whatever_the_number_of_entries():
    rows_DP = np.random.default_rng(0).normal(size=(3, 70_001)).astype(np.float32) * [[1], [1e3], [1e25]]
    expected_DD = rows_DP.astype(np.float32).astype(np.float64) @ rows_DP.astype(np.float32).astype(np.float64).T
    found_DD = gram(torch.tensor(rows_DP, dtype=torch.float32))
    assert found_DD.dtype == np.float64
    np.testing.assert_allclose(found_DD, expected_DD, rtol=1e-10)
