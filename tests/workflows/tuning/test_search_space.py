"""What may be searched."""

from pathlib import Path
from typing import Any

import pytest

from aiaic import config, recipes
from workflows.tuning import draws, search_space
from workflows.tuning.search_space import Choices, Range


@pytest.fixture(scope="module")
def compact() -> Any:
    return recipes.load("compact")


def test_the_default_space_is_made_of_settings_that_keep_the_architecture(compact: Any) -> None:
    space = search_space.parse(search_space.DEFAULT, compact)
    drawn = draws.draw("random", space, 0, 0, [], "score")
    changed = config.override(compact, drawn)
    assert changed.model.architecture() == compact.model.architecture()
    assert changed.stage1 == compact.stage1
    assert recipes.difference(changed) == drawn


@pytest.mark.parametrize("name", recipes.NETWORKS)
def test_the_default_space_fits_every_network(name: str) -> None:
    search_space.parse(search_space.DEFAULT, recipes.load(name))


@pytest.mark.parametrize(
    ("chosen", "named"),
    [
        ({}, "empty"),
        ({"model.nothing": {"low": 0, "high": 1}}, "model.nothing"),
        ({"model.backbone.width": {"choices": [8, 16]}}, "stage-1 checkpoint"),
        ({"stage1.steps": {"low": 1, "high": 2}}, "stage-1 checkpoint"),
        ({"stage3.p_missing": {"low": 0.1}}, "range or choices"),
        ({"stage3.p_missing": {"low": 0.2, "high": 0.1}}, "less than high"),
        ({"stage3.p_missing": {"low": 0.0, "high": 0.1, "log": True}}, "above 0"),
        ({"stage3.p_missing": {"choices": ["much"]}}, "p_missing"),
    ],
)
def test_a_wrong_space_is_refused(compact: Any, chosen: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        search_space.parse(chosen, compact)


def test_ranges_and_choices_are_read_from_a_file(tmp_path: Path, compact: Any) -> None:
    file = tmp_path / "space.json"
    file.write_text(
        '{"stage3.p_missing": {"choices": [0.1, 0.3]}, '
        '"training.warmup_steps": {"low": 1, "high": 9}}'
    )
    assert search_space.parse(search_space.read(str(file)), compact) == {
        "stage3.p_missing": Choices(values=(0.1, 0.3)),
        "training.warmup_steps": Range(low=1, high=9),
    }
    file.write_text("[]")
    with pytest.raises(ValueError, match=r"space\.json"):
        search_space.read(str(file))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        search_space.read("nowhere.json")


def test_only_whole_bounds_without_log_make_whole_numbers() -> None:
    assert Range(low=1, high=9).whole
    assert not Range(low=1, high=9.0).whole
    assert not Range(low=1, high=9, log=True).whole
