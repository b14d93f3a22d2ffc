"""The client of the Job API: addresses, lost connections, exit codes, stops."""

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from ray.job_submission import JobStatus

from workflows.cluster import job_submission
from workflows.cluster.job_submission import JobClient


def test_which_address_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")  # a cluster to join, no dashboard
    assert job_submission.resolve_address(None) == job_submission.DEFAULT_ADDRESS
    monkeypatch.setenv("RAY_ADDRESS", "http://joined:8265/")
    assert job_submission.resolve_address(None) == "http://joined:8265"
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "https://variable")
    assert job_submission.resolve_address(None) == "https://variable"
    assert job_submission.resolve_address("given:8265") == "http://given:8265"


class Flaky:
    """A client whose connections break in turn; each sends the log from its start."""

    def __init__(self, *connections: list[str], ends: bool = True) -> None:
        self.connections = list(connections)
        self.ends = ends

    async def tail_job_logs(self, job: str) -> AsyncIterator[str]:
        if not self.connections:
            raise ConnectionError("down")
        for text in self.connections.pop(0):
            yield text
        if self.connections or not self.ends:
            raise RuntimeError("WebSocket connection closed")

    def get_job_info(self, job: str) -> Any:
        return SimpleNamespace(status=JobStatus.SUCCEEDED, driver_exit_code=0)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between connections, which then take no time."""
    paused: list[float] = []

    async def sleep(seconds: float) -> None:
        paused.append(seconds)

    monkeypatch.setattr(job_submission.asyncio, "sleep", sleep)
    return paused


def test_a_lost_connection_repeats_no_line(
    waits: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    client: Any = Flaky(["one\n", "tw"], [], ["one\ntwo\nth"], ["one\n", "two\nthree\n", "four\n"])
    assert JobClient(client, "http://h:1").follow("job").exit_code == 0
    assert capsys.readouterr().out == "one\ntwo\nthree\nfour\n"
    assert waits == [2, 4, 2]


def test_it_gives_up_on_a_cluster_that_stays_away(waits: list[float]) -> None:
    client: Any = Flaky(["one\n"], ends=False)
    with pytest.raises(ConnectionError, match=r"lost http://h:1 .*ray job logs .*aiaic-1"):
        JobClient(client, "http://h:1").follow("aiaic-1")
    assert len(waits) == 8


@pytest.mark.parametrize(
    ("driver", "code", "message"),
    [(None, 1, "no such command"), (3, 3, ""), (-9, 137, ""), (0, 1, "")],
)
def test_no_failure_is_exit_code_0(driver: int | None, code: int, message: str) -> None:
    details: Any = SimpleNamespace(
        status=JobStatus.FAILED, driver_exit_code=driver, message="no such command\nmore"
    )
    expected = job_submission.JobEnd(status="FAILED", exit_code=code, message=message)
    assert job_submission._end(details) == expected


class Stopping:
    """A job that runs for some polls, one of which gets no answer."""

    def __init__(self, polls: int) -> None:
        self.polls = polls

    def stop_job(self, job: str) -> None:
        """Taken at once."""

    def get_job_status(self, job: str) -> JobStatus:
        self.polls -= 1
        if self.polls == 1:
            raise ConnectionError("no answer, for once")
        return JobStatus.RUNNING if self.polls > 0 else JobStatus.STOPPED


def test_a_stop_waits_while_the_job_saves(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(job_submission.time, "sleep", lambda _: None)
    client: Any = Stopping(polls=50)
    JobClient(client, "http://h:1").stop("job")
    assert client.polls == 0
    assert "has not stopped yet" not in caplog.text


def test_a_job_that_does_not_stop_is_reported(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(job_submission, "_SAVED_WITHIN_S", 0)
    monkeypatch.setattr(job_submission, "_STOPPED_WITHIN_S", 0.01)
    client: Any = Stopping(polls=1 << 30)
    JobClient(client, "http://h:1").stop("job")
    assert "job has not stopped yet" in caplog.text
