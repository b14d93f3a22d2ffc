"""The worker process: its environment, its errors and its memory between calls."""

import os
import weakref

import pytest

from data_prep.media.worker_process import CallTimeoutError, WorkerProcess

made: "list[weakref.ref[Circle]]" = []


class Circle:
    """Refers to itself, so that only the garbage collector frees it."""

    def __init__(self) -> None:
        self.itself = self


class UnpicklableError(Exception):
    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


def nothing() -> None:
    """Prepares nothing."""


def circles_left() -> int:
    """How many circles of earlier calls still exist; makes one more."""
    made.append(weakref.ref(Circle()))
    return sum(circle() is not None for circle in made[:-1])


def fail() -> None:
    raise UnpicklableError("this", "that")


@pytest.fixture
def start():
    started = []

    def start(function, environment=None):
        started.append(WorkerProcess(function, nothing, environment or {}))
        return started[-1]

    yield start
    for process in started:
        process.close()


def test_answers_come_in_order_while_calls_are_still_sent(start):
    process = start(len)
    sizes = [1 << 22, 0, 1 << 20, 7]
    for size in sizes:
        process.call(bytes(size))
    assert process.pending == 4
    assert [process.answer(60) for _ in sizes] == sizes
    assert process.pending == 0


def test_environment_holds_defaults(start, monkeypatch):
    monkeypatch.setenv("AIAIC_TEST_SET", "ours")
    process = start(os.getenv, {"AIAIC_TEST_SET": "default", "AIAIC_TEST_UNSET": "default"})
    for name in ("AIAIC_TEST_SET", "AIAIC_TEST_UNSET"):
        process.call(name)
    assert [process.answer(60), process.answer(60)] == ["ours", "default"]


def test_circular_garbage_is_freed_after_each_call(start):
    process = start(circles_left)
    for _ in range(3):
        process.call()
    assert [process.answer(60) for _ in range(3)] == [0, 0, 0]


def test_an_error_that_cannot_be_pickled_arrives_by_name(start):
    process = start(fail)
    process.call()
    with pytest.raises(RuntimeError, match="UnpicklableError: this and that"):
        process.answer(60)


def test_a_call_that_takes_too_long_ends_the_process(start):
    import time

    process = start(time.sleep)
    process.call(600)
    with pytest.raises(CallTimeoutError, match=r"no answer after 0\.2 s"):
        process.answer(0.2)
