import json

import pytest

from aiaic import config
from aiaic.training.recipe import Recipe
from tests.aiaic.recipes import TINY


def test_json_round_trip():
    text = json.dumps(config.to_json(TINY))
    assert config.from_json(Recipe, json.loads(text)) == TINY


def test_override_changes_one_leaf_and_nothing_else():
    changed = config.override(TINY, {"model.guidance.tau": 0.25})
    assert changed.model.guidance.tau == 0.25
    before, after = (config.dotted_keys(config.to_json(c)) for c in (TINY, changed))
    assert {key for key in before if before[key] != after[key]} == {"model.guidance.tau"}


def test_unknown_key_is_named_with_near_ones():
    with pytest.raises(ValueError, match=r"'model.guidance.taw'.*model.guidance.tau"):
        config.override(TINY, {"model.guidance.taw": 1})


def test_a_branch_is_no_key():
    with pytest.raises(ValueError, match=r"'model\.guidance'"):
        config.override(TINY, {"model.guidance": 1})


def test_unknown_nested_key_fails():
    tree = config.to_json(TINY)
    tree["model"]["guidance"]["tawny"] = 1
    with pytest.raises(ValueError, match=r"model\.guidance\.tawny"):
        config.from_json(Recipe, tree)


def test_wrong_type_is_named():
    with pytest.raises(ValueError, match=r"stage1\.steps"):
        config.override(TINY, {"stage1.steps": "many"})


def test_values_of_all_kinds_are_described_so_that_they_are_read_back():
    values = {"a": 0.123456, "b": 3, "c": True, "d": "text", "e": [0, 1], "f": None}
    described = config.describe(values)
    assert described == "a=0.1235 b=3 c=true d=text e=[0,1] f=null"
    assert config.parse_settings(described.split()) == values | {"a": 0.1235}
