"""Draws are pure functions of space, seed, index and record."""

import dataclasses
import math
import statistics
from typing import Any

import pytest

from workflows.tuning import draws
from workflows.tuning.draws import Method
from workflows.tuning.search_space import Choices, Range, Space
from workflows.tuning.trials import Trial

SPACE: Space = {
    "a": Range(low=0.1, high=10.0, log=True),
    "b": Range(low=-1.0, high=3.0),
    "c": Range(low=2, high=5),
    "d": Choices(values=("x", "y", "z")),
}


def draw(method: Method, index: int, trials: list[Trial], seed: int = 0) -> dict[str, Any]:
    return draws.draw(method, SPACE, seed, index, trials, "score")


def search(method: Method, count: int) -> list[Trial]:
    """A search whose score is best at a = 1."""
    trials: list[Trial] = []
    for index in range(count):
        trial = Trial(id=f"{index:04d}", index=index, settings=draw(method, index, trials))
        score = abs(math.log(trial.settings["a"]))
        trial = trial.with_score(8, "score", score)
        trials.append(dataclasses.replace(trial, state="finished"))
    return trials


@pytest.mark.parametrize("method", ["random", "optuna"])
def test_draws_stay_in_range_and_reach_all_of_it(method: Method) -> None:
    drawn = [trial.settings for trial in search(method, 40)]
    assert all(settings.keys() == SPACE.keys() for settings in drawn)
    assert all(0.1 <= settings["a"] <= 10.0 for settings in drawn)
    assert all(-1.0 <= settings["b"] <= 3.0 for settings in drawn)
    assert {settings["c"] for settings in drawn} <= {2, 3, 4, 5}
    assert {settings["d"] for settings in drawn} == {"x", "y", "z"}
    assert min(settings["a"] for settings in drawn) < 0.5
    assert max(settings["a"] for settings in drawn) > 2.0


def test_random_draws_follow_from_seed_and_index_alone() -> None:
    assert draw("random", 3, []) == draw("random", 3, search("random", 3))
    assert draw("random", 3, []) != draw("random", 4, [])
    assert draw("random", 3, []) != draw("random", 3, [], seed=1)


def test_whole_and_logarithmic_ranges_are_drawn_evenly() -> None:
    drawn = [draw("random", index, []) for index in range(400)]
    counts = [sum(settings["c"] == value for settings in drawn) for value in (2, 3, 4, 5)]
    assert min(counts) > 70
    assert statistics.median(settings["a"] for settings in drawn) == pytest.approx(1.0, rel=0.3)


def test_optuna_draws_the_same_from_the_same_record() -> None:
    trials = search("optuna", 12)
    assert draw("optuna", 12, trials) == draw("optuna", 12, trials)
    assert draw("optuna", 12, trials) != draw("optuna", 12, trials, seed=1)
    best = min(trials, key=lambda trial: trial.scored("score")[8])
    other = [t.with_score(8, "score", 100.0) if t is best else t for t in trials]
    assert draw("optuna", 12, trials) != draw("optuna", 12, other)


def test_optuna_learns_from_the_record() -> None:
    late, by_chance = (
        statistics.mean(trial.scored("score")[8] for trial in search(method, 40)[20:])
        for method in ("optuna", "random")
    )
    assert late < 0.7 * by_chance


def test_optuna_takes_trials_in_every_state() -> None:
    scored = Trial(id="0", index=0, settings=draw("random", 0, [])).with_score(2, "score", 0.5)
    trials = [
        dataclasses.replace(scored, id=state, index=index, state=state)
        for index, state in enumerate(("running", "finished", "stopped", "failed", "lost"))
    ]
    unscored = [dataclasses.replace(trial, scores=[]) for trial in (trials[0], *trials[2:])]
    assert draw("optuna", 9, [*trials, *unscored]).keys() == SPACE.keys()
