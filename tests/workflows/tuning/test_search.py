"""A search's settings and its result."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from aiaic import config, recipes
from workflows.tuning import search as searches
from workflows.tuning.search import OBJECTIVE, Search
from workflows.tuning.trials import State, Trial


@pytest.fixture(scope="module")
def compact() -> Any:
    return recipes.load("compact")


@pytest.fixture(scope="module")
def search(compact: Any) -> Search:
    return Search(
        recipe=config.to_json(compact),
        space={"model.guidance.tau": {"low": 0.1, "high": 3.0}},
        trials=8,
        search="random",
        seed=0,
        steps=None,
        split="train",
        manifest_digest="0" * 64,
        init_sha256="1" * 64,
    )


def test_a_trial_is_compared_several_times(compact: Any) -> None:
    recipe = searches.trial_recipe(compact, 40, {"model.guidance.tau": 0.3})
    assert (recipe.stage2.steps, recipe.stage3.steps) == (40, 40)
    assert recipe.training.validate_every == recipe.training.save_every == 10
    assert recipe.model.guidance.tau == 0.3
    assert recipe.stage1 == compact.stage1


def test_a_folder_holds_one_search(search: Search, tmp_path: Path) -> None:
    out = str(tmp_path / "search")
    assert not searches.start(search, out)
    assert searches.start(search, out)
    for change, text in (
        ({"trials": 9}, "trials was 8, is now 9"),
        ({"space": {"model.guidance.tau": {"low": 0.2, "high": 3.0}}}, "low was 0.1, is now 0.2"),
        ({"recipe": search.recipe | {"name": "x"}}, "recipe.name was 'compact', is now 'x'"),
    ):
        with pytest.raises(ValueError, match=text):
            searches.start(dataclasses.replace(search, **change), out)


def trial(index: int, state: State, *scores: float, reason: str | None = None) -> Trial:
    rows = [{"step": 2 * i, OBJECTIVE: score} for i, score in enumerate(scores, start=1)]
    settings = {"model.guidance.tau": float(index)}
    return Trial(
        id=f"{index:04d}", index=index, settings=settings, state=state, scores=rows, reason=reason
    )


def test_the_best_is_the_lowest_last_score_of_the_finished(
    compact: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trials = [
        trial(0, "finished", 0.1, 0.6),
        trial(1, "finished", 0.9, 0.5),
        trial(2, "stopped", 0.2),
        trial(3, "failed", 0.01, reason="step 3: the loss is nan"),
        trial(4, "lost"),
    ]
    out = str(tmp_path)
    assert searches.read_best(out) is None
    best = searches.write_best(compact, trials, out)
    assert best == {
        "recipe": "compact",
        "overrides": {"model.guidance.tau": 1.0},
        "score": 0.5,
        "search": {
            "objective": OBJECTIVE,
            "found": {"model.guidance.tau": 1.0},
            "trial": "0001",
            "trials": 5,
            "stopped_early": 1,
            "failed": 2,
        },
    }
    assert json.loads((tmp_path / "best.json").read_text()) == best == searches.read_best(out)
    assert "2 of 5 trials did not come to their end (step 3: the loss is nan)" in caplog.text


def test_a_search_without_a_finished_trial_says_why(compact: Any, tmp_path: Path) -> None:
    trials = [trial(0, "stopped", 0.5), trial(1, "lost", reason="no shard-0001")]
    with pytest.raises(ChildProcessError, match=r"no trial came to its end \(no shard-0001\)"):
        searches.write_best(compact, trials, str(tmp_path))
    assert not (tmp_path / "best.json").exists()
