"""What this project uses of Ray beyond its public interface: still there after an upgrade?"""

import importlib
import importlib.util
import inspect
from pathlib import Path
from typing import Any, NoReturn

import pytest
import ray

from workflows.cluster import ray_internals


def lost(name: str, purpose: str) -> NoReturn:
    """Fail, and say what an upgrade of Ray has taken away."""
    pytest.fail(
        f"Ray {ray.__version__} no longer has {name}: used for {purpose}; see ray_internals.py",
        pytrace=False,
    )


def found(module: str, *path: str, purpose: str) -> Any:
    """An attribute of a module of Ray."""
    try:
        value = importlib.import_module(module)
        for name in path:
            value = getattr(value, name)
    except (ImportError, AttributeError):
        lost(".".join((module, *path)), purpose)
    return value


@pytest.mark.parametrize(
    ("module", "path", "parameters", "purpose"),
    [
        (
            "ray._private.state",
            ("available_resources_per_node",),
            [],
            "the room for workers on each node",
        ),
        (
            "ray._private.state",
            ("state", "get_draining_nodes"),
            [],
            "leaving out nodes that are about to go",
        ),
        (
            "ray.train.v2._internal.execution.scaling_policy.autoscaling_coordinator_client",
            ("TrainAutoscalingCoordinatorClient",),
            ["requester_id"],
            "asking an autoscaler for workers",
        ),
        (
            "ray.train.v2._internal.execution.scaling_policy.autoscaling_coordinator_client",
            ("TrainAutoscalingCoordinatorClient", "send_resource_request"),
            ["self", "scaling_config", "num_workers"],
            "asking an autoscaler for workers",
        ),
        (
            "ray.train.v2._internal.execution.scaling_policy.autoscaling_coordinator_client",
            ("TrainAutoscalingCoordinatorClient", "cancel_resource_request"),
            ["self"],
            "withdrawing a request for workers",
        ),
        (
            "ray.train.v2._internal.execution.context",
            ("get_train_context",),
            [],
            "hearing of a node's end without a barrier",
        ),
    ],
)
def test_functions(module: str, path: tuple[str, ...], parameters: list[str], purpose: str) -> None:
    function = found(module, *path, purpose=purpose)
    if list(inspect.signature(function).parameters) != parameters:
        lost(f"{path[-1]}({', '.join(parameters)})", purpose)


def test_an_announced_preemption_is_part_of_a_workers_context() -> None:
    purpose = "hearing of a node's end without a barrier"
    module = "ray.train.v2._internal.execution.context"
    fields = found(module, "TrainContext", "__dataclass_fields__", purpose=purpose)
    if "preemption_context" not in fields:
        lost("TrainContext.preemption_context", purpose)
    context = found(module, "PreemptionContext", purpose=purpose)()
    assert context.preemption_info is None


def test_failures_of_a_group_of_workers() -> None:
    module, purpose = "ray.train.v2._internal.exceptions", "telling failures apart"
    timeout = found(module, "WorkerGroupStartupTimeoutError", purpose=purpose)
    assert ray_internals.is_startup_timeout(timeout(2))
    assert not ray_internals.is_startup_timeout(TimeoutError())
    unhealthy = found(module, "WorkerHealthCheckFailedError", purpose=purpose)
    cause = OSError("gone")
    assert ray_internals.unwrap_health_check(unhealthy("unhealthy", failure=cause)) is cause
    assert ray_internals.unwrap_health_check(cause) is cause


@pytest.mark.parametrize(
    ("module", "constant", "value", "purpose"),
    [
        (
            "ray.train.v2._internal.constants",
            "COLLECTIVE_TIMEOUT_S_ENV_VAR",
            ray_internals.COLLECTIVE_TIMEOUT,
            "bounding Ray's own collectives",
        ),
        (
            "ray.train.v2._internal.constants",
            "CHECKPOINT_MANAGER_SNAPSHOT_FILENAME",
            ray_internals.CHECKPOINT_LIST,
            "deleting Ray's list of checkpoints",
        ),
        (
            "ray._private.ray_constants",
            "RAY_API_SERVER_ADDRESS_ENVIRONMENT_VARIABLE",
            ray_internals.JOB_ADDRESS,
            "submitting to the address that was given",
        ),
    ],
)
def test_constants(module: str, constant: str, value: str, purpose: str) -> None:
    if found(module, constant, purpose=purpose) != value:
        lost(f"'{value}'", purpose)


@pytest.mark.parametrize(
    ("module", "text", "purpose"),
    [
        (
            "ray._private.node",
            ray_internals.STARTUP_TIMEOUT_TEXT,
            "starting again on a busy machine",
        ),
        (
            "ray.dashboard.modules.job.job_head",
            ray_internals.NO_AGENT_TEXT,
            "waiting for a cluster that starts",
        ),
        (
            "ray.dashboard.modules.job.job_supervisor",
            ray_internals.JOB_STOP_WAIT,
            "giving a stopped job time to save",
        ),
        (
            "ray.tune.experimental.output",
            ray_internals.TUNE_OUTPUT,
            "turning Tune's console output off",
        ),
        (ray_internals.TOKEN_LOGGER, "", "keeping notes about tokens out of the log"),
        *(
            (name, "logging.getLogger(__name__)", "keeping notes about uploads out of the log")
            for name in ray_internals.CHATTY_JOB_LOGGERS
        ),
    ],
)
def test_texts(module: str, text: str, purpose: str) -> None:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None or text not in Path(spec.origin).read_text():
        lost(f"'{text}' in {module}", purpose)


def test_what_is_lost_is_named() -> None:
    with pytest.raises(
        pytest.fail.Exception, match=rf"Ray {ray.__version__} no longer has ray\.nothing\.x: used"
    ):
        found("ray.nothing", "x", purpose="showing that these tests can fail")


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_free_resources_of_a_cluster() -> None:
    (node,) = ray_internals.free_resources()
    assert 0 <= node.get("CPU", 0) <= 4
