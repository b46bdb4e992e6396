"""Token losses survive the disk, and a broken file is named."""

import pytest
import torch

from llamafactory_dids.artifacts.token_losses import FILE, load_token_losses, save_token_losses
from llamafactory_dids.errors import DidsError


def test_what_is_saved_is_loaded(tmp_path):
    tables = {
        "a:b/0": (torch.rand(3, 5, dtype=torch.float64), torch.tensor([5, 0, 2])),
        "exam": (torch.rand(1, 2, dtype=torch.float64), torch.tensor([1])),
    }
    save_token_losses(tmp_path / "new", tables)
    loaded = load_token_losses(tmp_path / "new")
    assert loaded.keys() == tables.keys()
    for name, (losses_NS, counts_N) in tables.items():
        assert torch.equal(loaded[name][0], losses_NS) and torch.equal(loaded[name][1], counts_N)


@pytest.mark.parametrize("content", [None, b"", b"not a tensor"])
def test_a_missing_or_broken_file_is_named(tmp_path, content):
    if content is not None:
        (tmp_path / FILE).write_bytes(content)
    with pytest.raises(DidsError, match=f"{FILE}: not readable"):
        load_token_losses(tmp_path)
