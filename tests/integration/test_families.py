"""Models of other families, dense and mixtures of experts, through the host's own entry."""

import numpy as np
import pytest
from transformers import AutoTokenizer

from tests.helpers import FAMILIES, tiny_model
from tests.integration.support import arguments, our_log, train

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("family", sorted(FAMILIES.keys() - {"llama"}))  # which all other tests train
def test_a_model_of_each_family_has_its_domains_made_and_its_impacts_measured(family, world, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(world.model)
    tokenizer.save_pretrained(tmp_path / "model")
    tiny_model(family, num_blocks=2, vocab_size=len(tokenizer)).save_pretrained(tmp_path / "model")
    few = {"max_steps": 6, "dids_update_samples": 16, "dids_task_samples": 4}
    with our_log() as messages:
        ran = train(arguments(world, tmp_path, model_name_or_path=str(tmp_path / "model"), **few))
    assert [line["step"] for line in ran.lines] == [0, 2, 4, 6]
    impacts = [list(of_tasks.values()) for of_tasks in ran.lines[1]["impact"].values()]
    assert np.isfinite(np.array(impacts, dtype=float)).all() and np.any(impacts)
    assert any("other weights of their blocks are not tracked" in m for m in messages) == (
        "experts" in str(ran.trainer.model)
    )
