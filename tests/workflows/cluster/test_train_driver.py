"""What the driver asks of a cluster, without one."""

from pathlib import Path
from typing import Any

import pytest

from aiaic import recipes
from workflows.cluster import train_driver
from workflows.cluster.workers import Workers
from workflows.training.job import Job


class Coordinator:
    """Stands for the one that adds up what all have asked for."""

    def __init__(self, requester: str) -> None:
        self.wanted: list[int] = []

    def send_resource_request(self, scaling: Any, workers: int) -> None:
        self.wanted.append(workers)

    def cancel_resource_request(self) -> None:
        self.wanted.append(0)


@pytest.mark.parametrize(("room", "count", "wanted"), [(3, 3, [8, 5]), (9, 8, [8, 0])])
def test_an_elastic_run_asks_for_no_more_than_its_most(
    room: int, count: int, wanted: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray itself asks for those that are started."""
    monkeypatch.setattr(train_driver, "TrainAutoscalingCoordinatorClient", Coordinator)
    monkeypatch.setattr(train_driver, "_ROOM_WITHIN_S", 0.0)
    monkeypatch.setattr(train_driver.cluster, "cpus", lambda: 100)
    monkeypatch.setattr(train_driver.cluster, "room", lambda *, gpu: room)
    recipe = recipes.load("compact")
    job = Job(stages=(1,), recipe=recipe, shards="shards", split="train", out=str(tmp_path))
    driver = train_driver._Driver(
        job, Workers.parse("2:8"), False, lambda *_: None, lambda _: None, lambda: False
    )
    assert driver._count() == count
    assert driver._demand.wanted == wanted
