"""The search: what may be searched, and a whole one with eight short trials."""

import json
from pathlib import Path
from typing import Any

import pytest

from aiaic import config, recipes
from workflows import cli
from workflows.cluster import search_space
from workflows.commands import tune


@pytest.fixture(scope="module")
def compact() -> Any:
    return recipes.load("compact")


def test_our_space_is_made_of_settings_that_keep_the_architecture(compact: Any) -> None:
    drawn = {
        key: domain.sample()
        for key, domain in search_space.domains(search_space.DEFAULT, compact).items()
    }
    changed = config.override(compact, drawn)
    assert changed.model.architecture() == compact.model.architecture()
    assert changed.stage1 == compact.stage1
    assert recipes.difference(changed) == drawn


@pytest.mark.parametrize("name", recipes.NETWORKS)
def test_draws_stay_in_range(name: str) -> None:
    domains = search_space.domains(search_space.DEFAULT, recipes.load(name))
    for key, chosen in search_space.DEFAULT.items():
        for _ in range(50):
            assert chosen["low"] <= domains[key].sample() <= chosen["high"]


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
        search_space.domains(chosen, compact)


def test_a_space_is_read_from_a_file(tmp_path: Path, compact: Any) -> None:
    file = tmp_path / "space.json"
    file.write_text('{"stage3.p_missing": {"choices": [0.1, 0.3]}}')
    drawn = search_space.domains(search_space.read(str(file)), compact)["stage3.p_missing"].sample()
    assert drawn in (0.1, 0.3)
    file.write_text("[]")
    with pytest.raises(ValueError, match=r"space\.json"):
        search_space.read(str(file))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        search_space.read("nowhere.json")


def test_a_trial_is_looked_at_several_times(compact: Any) -> None:
    recipe = tune.trial_recipe(compact, 40, {"model.guidance.tau": 0.3})
    assert (recipe.stage2.steps, recipe.stage3.steps) == (40, 40)
    assert recipe.training.validate_every == recipe.training.save_every == 10
    assert recipe.model.guidance.tau == 0.3
    assert recipe.stage1 == compact.stage1


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.timeout(600)
def test_a_search_ends_in_a_file_that_trains(
    shards: str,
    tiny: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    search = ["tune", "--shards", shards, "--out", "search", "--tracking-uri", "none", "--json"]
    search += ["--set", *tiny]
    assert cli.main([*search, "--trials", "8"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    best_file = tmp_path / "search" / "best.json"
    best = json.loads(best_file.read_text())
    assert told == best | {"best": str(best_file)}
    assert set(best["search"]["found"]) == set(search_space.DEFAULT)
    assert best["search"]["trials"] == 8
    told_by = (tmp_path / "search" / "search").glob("*/result.json")
    assert max(len(file.read_text().splitlines()) for file in told_by) == 4, "looks at a trial"
    assert len(list((tmp_path / "search" / "trials").iterdir())) == 8

    best_file.unlink()  # as if the search had been interrupted at its very end
    assert cli.main([*search, "--trials", "8"]) == 0
    assert json.loads(best_file.read_text()) == best

    assert cli.main([*search, "--trials", "9"]) == 1
    assert "trials was 8 and is 9" in capsys.readouterr().err.splitlines()[-1]

    train = ["train", "--stage", "all", "--shards", shards, "--out", "run"]
    assert cli.main([*train, "--config", str(best_file), "--tracking-uri", "none"]) == 0
    trained = json.loads(Path("run/stage3/step-0000004/checkpoint.json").read_text())["recipe"]
    found = {key: config.dotted_keys(trained)[key] for key in best["search"]["found"]}
    assert found == best["search"]["found"]
