"""Everything that this project uses of Ray beyond its public interface, and what for.

None of it is promised to survive an upgrade: ``tests/workflows/cluster/test_ray_internals.py``
checks each name against the installed Ray and says which purpose it would leave unserved.
Modules of Ray are imported where they are used, so that ``aiaic prepare`` loads no Ray Train.
"""

import logging
from typing import Any, Protocol

COLLECTIVE_TIMEOUT = "RAY_TRAIN_COLLECTIVE_TIMEOUT_S"
"""Environment: bounds the waits of ``ray.train.collective``, which are endless otherwise."""
JOB_STOP_WAIT = "RAY_JOB_STOP_WAIT_TIME_S"
"""Environment of a job: the time between SIGTERM and SIGKILL when it is stopped, 3 s otherwise."""
JOB_ADDRESS = "RAY_API_SERVER_ADDRESS"
"""Environment: the dashboard's address, which Ray prefers to the one that a client is given."""
TUNE_OUTPUT = "RAY_AIR_NEW_OUTPUT"
"""Environment: "0" turns off Tune's newer console output, which ignores ``verbose=0``."""
CHECKPOINT_LIST = "checkpoint_manager_snapshot.json"
"""Ray Train's own list of checkpoints in a run's folder; it refuses to start with a stale one."""
STARTUP_TIMEOUT_TEXT = "timed out during startup"
"""Part of the plain ``Exception`` that ``ray.init`` raises on a busy machine."""
NO_AGENT_TEXT = "No available agent"
"""Part of the Job API's answer while a cluster that has just been started takes no jobs yet."""
CHATTY_JOB_LOGGERS = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
)
TOKEN_LOGGER = "ray._private.authentication"  # noqa: S105 (the name of a logger)


class WorkerDemand(Protocol):
    """How many workers of Ray Train a cluster that starts machines on demand should have."""

    def send_resource_request(self, scaling_config: Any, num_workers: int) -> None:
        """Ask for so many workers, in place of an earlier request under the same name."""
        ...

    def cancel_resource_request(self) -> None:
        """Ask for none."""
        ...


def worker_demand(requester: str) -> WorkerDemand:
    """The part of Ray that adds up what all trainings ask the autoscaler for."""
    from ray.train.v2._internal.execution.scaling_policy import (  # noqa: PLC0415
        autoscaling_coordinator_client,
    )

    return autoscaling_coordinator_client.TrainAutoscalingCoordinatorClient(requester)


def free_resources() -> list[dict[str, float]]:
    """Free resources of each node that is not about to leave the cluster."""
    from ray._private import state  # noqa: PLC0415

    draining = state.state.get_draining_nodes()
    free = state.available_resources_per_node()
    return [resources for node, resources in free.items() if node not in draining]


def preemption_announced() -> bool:
    """Whether a node of this worker's group is about to be taken away.

    The public ``ray.train.get_preemption_info`` is a barrier: every worker would wait for all
    others at each call.
    """
    from ray.train.v2._internal.execution.context import get_train_context  # noqa: PLC0415

    return get_train_context().preemption_context.preemption_info is not None


def is_startup_timeout(failure: BaseException) -> bool:
    """Whether a group of workers did not get its resources in time."""
    from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError  # noqa: PLC0415

    return isinstance(failure, WorkerGroupStartupTimeoutError)


def unwrap_health_check(failure: BaseException) -> BaseException:
    """Why a worker's health check failed; any other failure as it is."""
    from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError  # noqa: PLC0415

    if isinstance(failure, WorkerHealthCheckFailedError):
        return failure.health_check_failure
    return failure


def quiet_token_log(*, debug: bool) -> None:
    """Keep where the token comes from out of the log, unless debugging."""
    logging.getLogger(TOKEN_LOGGER).setLevel(logging.INFO if debug else logging.ERROR)


def quiet_job_client() -> None:
    """Keep the uploads and addresses of Ray's job client out of the log."""
    for name in CHATTY_JOB_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
