"""When a training on Ray gives up."""

import pytest
from ray.exceptions import RayActorError, RayTaskError
from ray.train import ControllerError, PreemptionError, PreemptionInfo, WorkerGroupError
from ray.train.v2._internal.exceptions import (
    BroadcastCollectiveTimeoutError,
    WorkerGroupStartupFailedError,
    WorkerGroupStartupTimeoutError,
    WorkerHealthCheckFailedError,
)

from aiaic.checkpointing.checkpoint import DamagedError
from aiaic.training.meter import NonFiniteLossError
from workflows.cluster.retry_policy import DELAYS_S, RetryPolicy

NO_PROGRESS = ("step-0000010",)


def dead(preempted: bool = False) -> WorkerHealthCheckFailedError:
    actor = RayActorError(actor_id="00" * 16, error_msg="worker died", preempted=preempted)
    return WorkerHealthCheckFailedError("health check failed", failure=actor)


def group(*failures: Exception) -> WorkerGroupError:
    return WorkerGroupError("workers failed", dict(enumerate(failures)))


FAILURES = [
    group(dead()),
    group(RuntimeError("Timed out waiting 600000ms for recv operation to complete")),
    group(ConnectionError("storage does not answer")),
    ControllerError(WorkerGroupStartupFailedError("at least one worker failed to initialize")),
    ControllerError(RuntimeError("Connection closed by peer")),
    RayActorError(actor_id="00" * 16, error_msg="the controller died"),
]


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: str(error)[:40])
def test_failures_without_a_new_checkpoint_end_a_run(error: Exception) -> None:
    policy = RetryPolicy(lambda: NO_PROGRESS)
    assert tuple(policy.next_delay_s(error) for _ in DELAYS_S) == DELAYS_S
    with pytest.raises((ChildProcessError, ConnectionError)) as raised:
        policy.next_delay_s(error)
    assert "\n" not in str(raised.value)


def test_progress_resets_the_count_any_number_of_times() -> None:
    steps = iter(range(10_000))
    policy = RetryPolicy(lambda: (f"step-{next(steps):07d}", ""))
    assert {policy.next_delay_s(group(dead())) for _ in range(1000)} == {DELAYS_S[0]}


def test_the_next_stage_is_progress_and_a_deleted_checkpoint_is_none() -> None:
    position = ("step-0000020", "")
    policy = RetryPolicy(lambda: position)
    policy.next_delay_s(group(dead()))
    position = ("step-0000020", "step-0000005")
    policy.next_delay_s(group(dead()))
    assert policy.failures == 1
    position = ("step-0000020", "")
    policy.next_delay_s(group(dead()))
    assert policy.failures == 2


@pytest.mark.parametrize(
    "mistake",
    [
        ValueError("model.width is wrong"),
        NonFiniteLossError("step 3: the loss is nan"),
        DamagedError("shard-0001 is damaged"),
        FileNotFoundError("no shard"),
    ],
)
def test_a_user_error_is_raised_at_once(mistake: Exception) -> None:
    policy = RetryPolicy(lambda: NO_PROGRESS)
    with pytest.raises(type(mistake), match=str(mistake)):
        policy.next_delay_s(group(dead(), mistake))


@pytest.mark.parametrize(
    "error",
    [
        PreemptionError(PreemptionInfo(deadline_ms=None, preempted_node_to_ranks={"n": [0]})),
        group(dead(preempted=True), RuntimeError("Connection closed by peer")),
        ControllerError(WorkerGroupStartupTimeoutError(2)),
    ],
)
def test_nodes_that_are_taken_away_or_not_there_yet_are_no_failure(error: Exception) -> None:
    policy = RetryPolicy(lambda: NO_PROGRESS)
    assert {policy.next_delay_s(error) for _ in range(50)} == {0.0}


def test_storage_that_does_not_answer_is_no_progress() -> None:
    def position() -> tuple[str, ...]:
        raise ConnectionError("storage does not answer")

    policy = RetryPolicy(position)
    assert tuple(policy.next_delay_s(group(dead())) for _ in DELAYS_S) == DELAYS_S


def test_a_hang_is_logged_by_its_cause_and_not_by_where_it_was_raised(
    caplog: pytest.LogCaptureFixture,
) -> None:
    hang = BroadcastCollectiveTimeoutError(15.0, [1], 15.0)
    seen = RayTaskError("broadcast", "ray::SynchronizationActor (pid=1)", hang)
    RetryPolicy(lambda: NO_PROGRESS).next_delay_s(group(seen.as_instanceof_cause()))
    assert "worker 0: The collective operation timed out after 15.00 s" in caplog.text
