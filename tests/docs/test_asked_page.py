"""docs/asked.md: each answer is YAML that a run takes."""

import re
from pathlib import Path

import pytest
import yaml

from llamafactory_dids import mixers
from llamafactory_dids.config import FIELDS, make_config
from llamafactory_dids.integration.arguments import checks
from llamafactory_dids.integration.plan.probabilities import check_mixture
from llamafactory_dids.integration.plan.schedules import check_schedule
from llamafactory_dids.integration.settings import Settings
from llamafactory_dids.integration.strategy import mixer_on_two_domains

CHECKOUT = Path(__file__).resolve().parents[2]
PAGE = (CHECKOUT / "docs" / "asked.md").read_text(encoding="utf-8")
SECTIONS = re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]
DATASETS = ("math", "code", "web")

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("section", SECTIONS, ids=lambda text: text.splitlines()[0])
def test_an_answer_is_yaml_of_our_keys_that_says_what_can_be(section):
    (block,) = re.findall(r"^```yaml\n(.*?)^```", section, flags=re.DOTALL | re.MULTILINE)
    values = yaml.safe_load(block)
    assert values["mix_strategy"] in mixers.names()
    assert [key for key in values if key.startswith("dids_") and key not in FIELDS] == []
    config = make_config(values)
    needs = mixer_on_two_domains(values["mix_strategy"], config, len(config.tasks())).needs
    settings = Settings(values["mix_strategy"], config, needs, config.tasks(), 0, values, False, None)
    checks._check_mixer(settings)
    if config.dids_probs is not None:
        check_mixture("dids_probs", config.dids_probs, DATASETS, (), config.dids_share_of)
    if config.dids_schedule is not None:
        check_schedule(config.dids_schedule, DATASETS, (), config.dids_share_of)


@pytest.mark.parametrize("section", SECTIONS, ids=lambda text: text.splitlines()[0])
def test_each_ask_says_where_it_was_asked(section):
    rows = [line for line in section.splitlines() if line.startswith("| ")][1:]
    assert rows
    for row in rows:
        links = re.findall(r"\[(?:[^\]]* )?(\d+)\]\(https://github\.com/[^)]+/(?:issues|pull)/(\d+)\)", row)
        assert links and all(said == linked for said, linked in links), row
