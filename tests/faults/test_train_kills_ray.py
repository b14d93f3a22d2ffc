"""Training on two Ray nodes: workers, nodes and drivers die, hang, leave and return."""

import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fault_injection import train_kills
from fault_injection.processes import Nodes, two_nodes, wait_for
from fault_injection.train_kills_ray import Driver, faults, settings, workers

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    # A short path: it contains Ray's sockets, whose path length is limited.
    with (
        tempfile.TemporaryDirectory(prefix="k-", dir="/tmp", ignore_cleanup_errors=True) as scratch,
        pytest.MonkeyPatch.context() as patch,
    ):
        # Inherited by Ray's controllers, which by default wait 30 s for hung workers.
        patch.setenv("TORCH_PROCESS_GROUP_SHUTDOWN_TIMEOUT_S", "5")
        with two_nodes(Path(scratch)) as nodes:
            yield nodes


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, make_clip: Callable[..., Path]) -> str:
    return train_kills.make_shards(tmp_path_factory.mktemp("world"), make_clip)


@pytest.fixture
def driven(nodes: Nodes, world: str, tmp_path: Path) -> Iterator[Callable[..., Driver]]:
    """Starts drivers that are killed at the end of the test."""
    started: list[Driver] = []

    def drive(workers: str, chosen: tuple[str, ...], **environment: str) -> Driver:
        driver = Driver(
            nodes=nodes,
            shards=world,
            out=tmp_path / "run",
            arguments=["--stage", "1", "--workers", workers, "--set", *chosen],
            environment=environment,
        )
        started.append(driver)
        driver.start()
        return driver

    yield drive
    for driver in started:
        driver.kill()
    wait_for(lambda: not workers(), "end of the workers")
    nodes.restore()


def test_hung_workers_and_a_damaged_checkpoint_cost_some_steps(driven, world):
    """One hangs in a step, the next as it starts; in between the newest checkpoint is damaged."""
    chosen = settings(stage1__steps=60, training__save_every=10, training__collective_timeout_s=10)
    driver = driven("2", chosen)
    driver.wait_for_checkpoint(1, 20)
    driver.hang()
    os.kill(workers()[-1], signal.SIGSTOP)
    wait_for(lambda: not driver.hang_is_due, "worker that hangs as it starts", 180)
    newest = driver.newest(1)
    damaged = driver.out / "stage1" / f"step-{newest:07d}" / "model.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert driver.wait() == 0, driver.log_lines[-3:]
    assert driver.sizes == [2, 2, 2]
    assert any("collective operation timed out" in line for line in driver.log_lines)
    assert len([line for line in driver.log_lines if "deleted the damaged checkpoint" in line]) == 1
    assert faults(world, driver.out, chosen, (1,)) == []


def test_a_run_follows_its_cluster_and_leaves_a_preempted_node_in_time(driven, nodes, world):
    from ray._raylet import GcsClient
    from ray.core.generated import autoscaler_pb2

    chosen = settings(stage1__steps=400, training__save_every=10)
    driver = driven("1:2", chosen)
    driver.wait_for_checkpoint(1, 20)
    nodes.kill()
    driver.wait_for_attempt(2)
    nodes.restore()
    driver.wait_for_attempt(3)
    second = nodes.second.node_id
    reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    deadline_ms = int((time.time() + 60) * 1000)
    client = GcsClient(address=nodes.cluster.address)
    assert client.drain_node(second, reason, "preempted", deadline_ms)[0]
    driver.wait_for_attempt(4)
    nodes.kill()
    assert driver.wait() == 0, driver.log_lines[-3:]
    assert driver.sizes == [2, 1, 2, 1]
    assert faults(world, driver.out, chosen, (1,)) == []


def test_a_rerun_driver_resumes_and_a_terminated_one_saves(driven, world):
    chosen = settings(stage1__steps=200, training__save_every=20)
    driver = driven("2", chosen)
    driver.wait_for_checkpoint(1, 20)
    driver.kill()
    wait_for(lambda: not workers(), "end of the workers")
    driver.start()
    driver.wait_for_checkpoint(1, driver.newest(1) + 20)
    newest = driver.newest(1)
    os.kill(driver.process.pid, signal.SIGTERM)
    assert driver.wait() == 128 + signal.SIGTERM
    assert driver.newest(1) > newest
    assert driver.log_lines[-1].endswith("rerun the command to resume")
    driver.start()
    assert driver.wait() == 0, driver.log_lines[-3:]
    assert driver.sizes == [2, 2, 2]
    assert faults(world, driver.out, chosen, (1,)) == []


def test_a_user_error_is_reported_at_once(driven, world):
    driver = driven("2", settings(stage1__steps=60, stage1__learning_rate=1e30))
    assert driver.wait() == 1
    assert driver.sizes == [2]
    assert "error: step" in driver.log_lines[-1]
    assert "Lower the stage's learning_rate" in driver.log_lines[-1]


def test_without_progress_a_run_ends(driven):
    """Killed repeatedly before the first checkpoint."""
    driver = driven("1", settings(stage1__steps=400, training__save_every=400), DELAYS="1")
    for attempt in (1, 2):
        wait_for(lambda: len(driver.sizes) >= attempt, "attempt")  # noqa: B023
        wait_for(workers, "worker")
        os.kill(workers()[-1], signal.SIGKILL)
        wait_for(lambda: not workers(), "death")
    assert driver.wait() == 1
    assert driver.sizes == [1, 1]
    assert "training failed 2 times in a row without a new checkpoint" in driver.log_lines[-1]
