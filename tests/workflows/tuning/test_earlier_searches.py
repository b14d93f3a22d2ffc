"""Searches of versions that kept their trials in Ray Tune's files."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from aiaic import config, recipes
from aiaic.checkpointing import checkpoint
from workflows.tuning import earlier_searches
from workflows.tuning.search import OBJECTIVE, Search
from workflows.tuning.trials import Trial

STEPS = 8
SPACE = {"model.guidance.tau": {"low": 0.1, "high": 3.0}, "stage3.p_missing": {"low": 0, "high": 1}}


class Pickled:
    """A pickle that fails the test when it is loaded."""

    def __reduce__(self) -> Any:
        return pytest.fail, ("a pickle was loaded",)


@pytest.fixture(scope="module")
def compact() -> Any:
    return recipes.load("compact")


@pytest.fixture
def search(compact: Any) -> Search:
    return Search(
        recipe=config.to_json(compact),
        space=SPACE,
        trials=8,
        search="random",
        seed=0,
        steps=STEPS,
        split="train",
        manifest_digest="0" * 64,
        init_sha256="1" * 64,
    )


def settings(tau: float) -> dict[str, Any]:
    return {"model.guidance.tau": tau, "stage3.p_missing": 0.25}


def write_tune_files(
    out: Path, name: str, tau: float, scores: dict[int, float], *, done: bool = False
) -> None:
    """What Tune left of a trial."""
    import pickle

    folder = out / "search" / name
    folder.mkdir(parents=True)
    (folder / "params.json").write_text(json.dumps(settings(tau), indent=2))
    (folder / "params.pkl").write_bytes(pickle.dumps(Pickled()))
    rows = [
        {
            OBJECTIVE: score,
            "step": step,
            "timestamp": 1795754846,
            "checkpoint_dir_name": None,
            "done": done and step == max(scores),
            "trial_id": name,
            "config": settings(tau),
        }
        for step, score in scores.items()
    ]
    if rows:
        text = "".join(f"{json.dumps(row)}\n" for row in rows)
        (folder / "result.json").write_text(text)


def write_checkpoint(out: Path, name: str, stage: int, recipe: Any, curves: list[Any]) -> None:
    """A checkpoint in a trial's own folder, which is not whole: only its record is read."""
    record = checkpoint.Record(
        stage=stage,
        step=4,
        recipe=config.to_json(recipe),
        manifest_digest="",
        split="train",
        init=None,
        metrics={},
        curves=curves,
        versions={},
    )
    weights = {"w": torch.zeros(1)}
    checkpoint.commit(
        out / "trials" / name / f"stage{stage}" / "step-0000004",
        lambda folder: checkpoint.write(folder, record, weights, weights),
    )


def test_trials_are_read_from_text_files(search: Search, compact: Any, tmp_path: Path) -> None:
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "tuner.pkl").write_bytes(b"\x80not even a pickle")
    write_tune_files(tmp_path, "3256e_00001", 0.2, {2: 0.5, 4: 0.4, 8: 0.3}, done=True)
    write_tune_files(tmp_path, "3256e_00000", 0.1, {2: 0.6, 4: 0.7}, done=True)
    write_tune_files(tmp_path, "3256e_00010", 0.4, {})
    write_tune_files(tmp_path, "3256e_00002", 0.3, {2: 0.55, 4: 0.45})
    with (tmp_path / "search" / "3256e_00002" / "result.json").open("a") as file:
        file.write('{"validation_colour": 0.44, "st')  # killed in the middle of a line
    expected = [
        ("3256e_00000", 0.1, "stopped", {2: 0.6, 4: 0.7}),
        ("3256e_00001", 0.2, "finished", {2: 0.5, 4: 0.4, 8: 0.3}),
        ("3256e_00002", 0.3, "running", {2: 0.55, 4: 0.45}),
        ("3256e_00010", 0.4, "running", {}),
    ]
    found = earlier_searches.read_trials(search, compact, str(tmp_path))
    assert found == [
        Trial(
            id=name,
            index=index,
            settings=settings(tau),
            state=state,
            scores=[{"step": step, OBJECTIVE: score} for step, score in scores.items()],
        )
        for index, (name, tau, state, scores) in enumerate(expected)
    ]


def test_what_tunes_files_lack_is_in_the_checkpoints(
    search: Search, compact: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As in a store where Tune could write nothing."""
    recipe = config.override(compact, settings(0.7))
    curves = [
        {"step": 2.0, OBJECTIVE: 0.5},
        {"step": 3.0, "loss": 1.0},
        {"step": 4.0, OBJECTIVE: 0.4},
    ]
    write_checkpoint(tmp_path, "3256e_00000", 2, recipe, [])
    write_checkpoint(tmp_path, "3256e_00000", 3, recipe, curves)
    write_checkpoint(tmp_path, "3256e_00001", 2, recipe, [])
    (tmp_path / "trials" / "3256e_00002" / "stage2").mkdir(parents=True)
    (tmp_path / "trials" / "3256e_00002" / "stage2" / "begun.json").write_text("{}")
    first, second = earlier_searches.read_trials(search, compact, str(tmp_path))
    assert (first.settings, first.state) == (settings(0.7), "running")
    assert first.scored(OBJECTIVE) == {2: 0.5, 4: 0.4}
    assert (second.id, second.settings, second.scores) == ("3256e_00001", settings(0.7), [])
    assert "trial 3256e_00002 of an earlier version is left out" in caplog.text


def test_the_last_score_is_left_to_the_trial_itself(
    search: Search, compact: Any, tmp_path: Path
) -> None:
    """It is that of the best checkpoint, which a finished stage knows."""
    curves = [{"step": 4.0, OBJECTIVE: 0.4}, {"step": 8.0, OBJECTIVE: 0.9}]
    write_checkpoint(tmp_path, "3256e_00000", 3, config.override(compact, settings(0.7)), curves)
    (trial,) = earlier_searches.read_trials(search, compact, str(tmp_path))
    assert (trial.state, trial.scored(OBJECTIVE)) == ("running", {4: 0.4})


def test_a_search_that_has_just_started_has_no_trials(
    search: Search, compact: Any, tmp_path: Path
) -> None:
    assert earlier_searches.read_trials(search, compact, str(tmp_path)) == []
    (tmp_path / "search").write_bytes(b"")  # a store's marker of a folder
    assert earlier_searches.read_trials(search, compact, str(tmp_path)) == []


def test_no_more_trials_are_read_than_are_wanted(
    search: Search, compact: Any, tmp_path: Path
) -> None:
    for number in range(3):
        write_tune_files(tmp_path, f"3256e_{number:05d}", 0.1, {2: 0.5})
    fewer = dataclasses.replace(search, trials=2)
    assert len(earlier_searches.read_trials(fewer, compact, str(tmp_path))) == 2
