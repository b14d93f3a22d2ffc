"""Which trial runs next, through interruptions and losses, without a cluster."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from workflows.tuning.trial_queue import ATTEMPTS, TrialQueue
from workflows.tuning.trials import Trial, TrialStore

STEPS = 8


def open_queue(folder: Path, wanted: int = 3) -> TrialQueue:
    """As a new call would open it."""

    def draw(index: int, others: Sequence[Trial]) -> dict[str, Any]:
        return {"lr": 0.1 * index, "known": len(others)}

    store = TrialStore(str(folder))
    return TrialQueue(store, store.load(), wanted=wanted, steps=STEPS, objective="loss", draw=draw)


def run(queue: TrialQueue, score: float = 0.5) -> str:
    """Run the next trial to its end."""
    trial = queue.next()
    assert trial is not None
    queue.scored(trial.id, STEPS, score)
    queue.ended(trial.id)
    return trial.id


def recorded(folder: Path) -> dict[str, str]:
    return {trial.id: trial.state for trial in TrialStore(str(folder)).load()}


def test_trials_are_drawn_in_turn_until_there_are_enough(tmp_path: Path) -> None:
    queue = open_queue(tmp_path)
    first, second = queue.next(), queue.next()
    assert first is not None
    assert second is not None
    assert (first.id, second.id) == ("0000", "0001")
    assert second.settings == {"lr": 0.1, "known": 1}
    assert recorded(tmp_path) == {"0000": "running", "0001": "running"}
    queue.scored("0001", 2, 0.9)
    queue.ended("0001")
    run(queue)
    assert queue.next() is None
    assert not queue.over
    queue.scored("0000", STEPS, 0.4)
    queue.ended("0000")
    assert queue.over
    assert queue.settled == 3
    assert recorded(tmp_path) == {"0000": "finished", "0001": "stopped", "0002": "finished"}


def test_a_lost_trial_waits_for_the_end_of_its_process(tmp_path: Path) -> None:
    """With room for another trial, the cluster asks before the lost one's process has ended."""
    queue = open_queue(tmp_path, wanted=1)
    first = queue.next()
    assert first is not None
    queue.lost(first.id, "storage fails")
    queue.lost(first.id, "its process died")
    assert queue.next() is None
    assert not queue.over
    queue.ended(first.id)
    again = queue.next()
    assert again is not None
    assert again.id == first.id
    assert queue.next() is None
    queue.scored(again.id, STEPS, 0.5)
    queue.ended(again.id)
    assert queue.over
    assert recorded(tmp_path) == {"0000": "finished"}


def test_an_interrupted_search_resumes_its_trials_first(tmp_path: Path) -> None:
    queue = open_queue(tmp_path)
    run(queue)
    interrupted = queue.next()
    assert interrupted is not None
    queue.scored(interrupted.id, 2, 0.7)

    again = open_queue(tmp_path)
    assert not again.over
    resumed = again.next()
    assert resumed is not None
    assert (resumed.id, resumed.settings) == (interrupted.id, interrupted.settings)
    assert resumed.scored("loss") == {2: 0.7}
    again.scored(resumed.id, STEPS, 0.3)
    again.ended(resumed.id)
    assert run(again) == "0002"
    assert again.over
    assert open_queue(tmp_path).over
    assert open_queue(tmp_path).next() is None


def test_a_deleted_record_is_drawn_again_in_its_place(tmp_path: Path) -> None:
    queue = open_queue(tmp_path)
    for _ in range(3):
        run(queue)
    (tmp_path / "trials" / "0001" / "trial.json").unlink()
    again = open_queue(tmp_path)
    trial = again.next()
    assert trial is not None
    assert (trial.id, trial.settings) == ("0001", {"lr": 0.1, "known": 2})
    assert again.next() is None


def test_a_lost_trial_restarts_under_its_id_a_few_times(tmp_path: Path) -> None:
    queue = open_queue(tmp_path, wanted=1)
    for attempt in range(ATTEMPTS):
        assert not queue.over
        assert queue.next() is not None, attempt
        queue.lost("0000", "its process died")
        queue.ended("0000")
    assert queue.over
    (trial,) = TrialStore(str(tmp_path)).load()
    assert (trial.state, trial.reason) == ("lost", "its process died")
    again = open_queue(tmp_path, wanted=1)
    again.next()
    (trial,) = TrialStore(str(tmp_path)).load()
    assert (trial.state, trial.reason) == ("running", None)
    assert run(open_queue(tmp_path, wanted=1)) == "0000"
    (trial,) = TrialStore(str(tmp_path)).load()
    assert (trial.state, trial.reason) == ("finished", None)


def test_a_score_between_two_losses_is_progress(tmp_path: Path) -> None:
    queue = open_queue(tmp_path, wanted=1)
    for step in range(1, 3 * ATTEMPTS):
        assert queue.next() is not None
        queue.scored("0000", step, 0.5)
        queue.lost("0000", "its process died")
        queue.ended("0000")
    assert not queue.over


def test_what_another_attempt_cannot_mend_waits_for_the_next_call(tmp_path: Path) -> None:
    queue = open_queue(tmp_path, wanted=1)
    queue.next()
    queue.lost("0000", "no shard", retry=False)
    queue.ended("0000")  # its process ends in peace
    assert queue.over
    assert recorded(tmp_path) == {"0000": "lost"}
    assert run(open_queue(tmp_path, wanted=1)) == "0000"


def test_a_failed_trial_is_recorded_and_never_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    queue = open_queue(tmp_path, wanted=1)
    queue.next()
    queue.failed("0000", "step 3: the loss is nan")
    queue.ended("0000")
    assert "trial 0000 failed: step 3: the loss is nan" in caplog.text
    assert recorded(tmp_path) == {"0000": "failed"}
    assert open_queue(tmp_path, wanted=1).over
