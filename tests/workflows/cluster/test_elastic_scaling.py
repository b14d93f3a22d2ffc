"""How many workers are started, and what an autoscaler is asked for, without a cluster."""

from typing import Any

import pytest

from workflows.cluster import elastic_scaling
from workflows.cluster.elastic_scaling import ElasticScaling
from workflows.cluster.worker_range import Workers


class Demand:
    """Stands for the part of Ray that adds up what all have asked for."""

    def __init__(self, requester: str) -> None:
        self.wanted: list[int] = []

    def send_resource_request(self, scaling: Any, workers: int) -> None:
        self.wanted.append(workers)

    def cancel_resource_request(self) -> None:
        self.wanted.append(0)


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The one number in it is the room for workers."""
    found = [0]
    monkeypatch.setattr(elastic_scaling.ray_internals, "worker_demand", Demand)
    monkeypatch.setattr(elastic_scaling, "_FREED_WITHIN_S", 0.0)
    monkeypatch.setattr(elastic_scaling.session, "cpus", lambda: 100)
    monkeypatch.setattr(elastic_scaling.session, "room", lambda *, gpu: found[0])
    return found


@pytest.mark.parametrize(("free", "count", "wanted"), [(3, 3, [8, 5]), (9, 8, [8, 0])])
def test_an_elastic_run_asks_for_no_more_than_its_most(
    free: int, count: int, wanted: list[int], room: list[int]
) -> None:
    """Ray itself asks for the workers that are started."""
    room[0] = free
    scaling: Any = ElasticScaling("run", Workers.parse("2:8"), gpu=False)
    assert scaling.initial_count(lambda: False) == count
    assert scaling._demand.wanted == wanted


def test_it_grows_into_free_room_up_to_its_most(room: list[int]) -> None:
    scaling: Any = ElasticScaling("run", Workers.parse("2:8"), gpu=False)
    assert not scaling.can_grow(3)
    room[0] = 1
    assert scaling.can_grow(3)
    assert not scaling.can_grow(8)
    assert scaling._demand.wanted == [5, 5, 0]


def test_a_fixed_number_is_started_whatever_there_is(room: list[int]) -> None:
    scaling: Any = ElasticScaling("run", Workers.parse("4"), gpu=False)
    assert scaling.initial_count(lambda: False) == 4
    scaling.close()
    assert scaling._demand.wanted == []
