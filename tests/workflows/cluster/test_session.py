"""What is known of a cluster before anything starts there."""

import shlex
import tempfile

import pytest

from workflows.cluster import session
from workflows.cluster.worker_range import Workers


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


@pytest.mark.parametrize(
    ("ray_tmpdir", "tmpdir", "expected"),
    [
        (None, "/var/tmp", "/var/tmp"),
        ("/short", "/a path of/its own that no socket has room for", "/short"),
        (None, "/a path of/its own that no socket has room for", "/tmp"),
        (None, "/ein Ordner für Vorläufiges, größer", "/tmp"),  # in bytes it is longer
    ],
)
def test_rays_sockets_find_room_whatever_the_folder_for_temporary_files(
    ray_tmpdir: str | None, tmpdir: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    if ray_tmpdir is not None:
        monkeypatch.setenv("RAY_TMPDIR", ray_tmpdir)
    monkeypatch.setattr(tempfile, "tempdir", tmpdir)
    assert session.temp_folder() == expected
    process = 2**22  # the largest number that Linux gives
    socket = f"ray/session_2026-01-31_00-00-00_000000_{process}/sockets/plasma_store.1"
    assert len(f"{expected}/{socket}".encode()) <= 107


def test_ray_gets_a_path_of_python_that_a_shell_takes_for_one_word() -> None:
    assert session.interpreter("/opt/venv/bin/python") == {}
    (quoted,) = session.interpreter("/a home/it's/bin/python").values()
    assert shlex.split(quoted) == ["/a home/it's/bin/python"]


def test_a_folder_of_ray_that_is_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/a path of/its own that no socket has room for")
    with pytest.raises(ValueError, match=r"RAY_TMPDIR='/a path of/its own .* at most 37 bytes"):
        session.temp_folder()
