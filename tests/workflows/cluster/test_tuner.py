"""Early stopping by the record, and what becomes of a trial's errors; without a cluster."""

import dataclasses
import math
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.schedulers import TrialScheduler

from aiaic import config, recipes
from aiaic.training.meter import NonFiniteLossError
from workflows.cluster import tuner
from workflows.training.job import Job
from workflows.tuning.search import OBJECTIVE, Search
from workflows.tuning.trials import State, Trial

STEPS = 8


@pytest.fixture(scope="module")
def job() -> Job:
    recipe = recipes.load("compact")
    return Job(stages=(2, 3), recipe=recipe, shards="shards", split="train", out="out")


@pytest.fixture(scope="module")
def search(job: Job) -> Search:
    return Search(
        recipe=config.to_json(job.recipe),
        space={},
        trials=8,
        search="random",
        seed=0,
        steps=STEPS,
        split="train",
        manifest_digest="",
        init_sha256="",
    )


def trial(index: int, state: State, *scores: float) -> Trial:
    rows = [{"step": 2 * i, OBJECTIVE: score} for i, score in enumerate(scores, start=1)]
    return Trial(id=f"{index:04d}", index=index, settings={}, state=state, scores=rows)


def decide(scheduler: Any, step: int, score: float) -> str:
    """What it decides about a trial of this call."""
    new: Any = SimpleNamespace(trial_id="new")
    scheduler.on_trial_add(None, new)
    return scheduler.on_trial_result(None, new, {"step": step, OBJECTIVE: score})


@pytest.mark.parametrize(
    ("step", "score", "expected"),
    [
        (2, 0.35, TrialScheduler.CONTINUE),
        (2, 0.45, TrialScheduler.STOP),
        (4, 0.15, TrialScheduler.CONTINUE),
        (4, 0.25, TrialScheduler.STOP),
        (STEPS, 0.0, TrialScheduler.STOP),
    ],
)
def test_trials_of_earlier_calls_count_when_a_bad_one_is_stopped(
    search: Search, job: Job, step: int, score: float, expected: str
) -> None:
    earlier = [
        trial(0, "finished", 0.3, 0.2, 0.1, 0.1),
        trial(1, "stopped", 0.5),
        trial(2, "running", 0.4, 0.2),
        trial(3, "lost"),
    ]
    assert decide(tuner._scheduler(search, job, earlier), step, score) == expected


def test_nothing_is_stopped_before_there_is_anything_to_compare_with(
    search: Search, job: Job
) -> None:
    assert decide(tuner._scheduler(search, job, []), 2, 9.9) == TrialScheduler.CONTINUE


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (NonFiniteLossError("step 3: the loss is nan"), tuner._FAILED),
        (ConnectionError("the store\ndoes not answer"), tuner._LOST_FOR_NOW),
        (FileNotFoundError("no shard-0001"), tuner._LOST),
        (ValueError("stage3.p_missing is above 1"), tuner._LOST),
        (KeyError(), tuner._LOST),
    ],
)
def test_a_trials_error_is_a_result(
    error: Exception, kind: str, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise error

    reported: list[dict[str, Any]] = []
    monkeypatch.setattr(tuner, "_train_trial", fail)
    monkeypatch.setattr(tuner.tune, "report", reported.append)
    own = config.to_json(dataclasses.replace(job, init="init"))
    tuner._run_trial({"trial": "0000", "settings": {}}, job=own, steps=None)
    (result,) = reported
    assert math.isnan(result.pop(OBJECTIVE))
    reason = result.pop("failure")
    assert result == {"step": 0, "failure_kind": kind}
    assert "\n" not in reason
    assert reason
