"""What is known of a cluster before anything starts there."""

import pytest

from workflows.cluster import session
from workflows.cluster.workers import Workers


def test_gpus_that_will_never_be_added_are_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(session, "gpus", lambda: 1)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    session.check_gpus(Workers.parse("1"))
    with pytest.raises(ValueError, match="--gpu yes: Ray finds 1 GPUs on this machine"):
        session.check_gpus(Workers.parse("2"))
    assert not caplog.records
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    session.check_gpus(Workers.parse("2"))
    assert "Ray waits for more" in caplog.text


@pytest.mark.parametrize(
    ("workers", "threads", "advice"),
    [("1", 4, ""), ("2", 2, ""), ("2", 3, "training.threads=2"), ("5:8", 2, "training.threads=1")],
)
def test_more_threads_than_processors_are_warned_of(
    workers: str,
    threads: int,
    advice: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(session, "cpus", lambda: 4)
    session.warn_of_threads(Workers.parse(workers), threads)
    assert caplog.text.strip().endswith(advice)
    assert bool(caplog.records) == bool(advice)
