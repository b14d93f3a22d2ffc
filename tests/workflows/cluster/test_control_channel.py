"""Reports and requests between driver and workers, with an actor that comes and goes."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest
from ray.exceptions import ActorUnavailableError

from fault_injection.processes import descendants
from workflows.cluster import control_channel
from workflows.cluster.control_channel import ControlChannel, Listener, Mailbox, Report


class Actor:
    """Stands for the handle of a mailbox, which can be away at will."""

    def __init__(self) -> None:
        self.mailbox = Mailbox()
        self.away = False
        self.calls = 0

    def __getattr__(self, method: str) -> Any:
        return Method(lambda *arguments: self._call(method, *arguments))

    def _call(self, method: str, *arguments: Any) -> Any:
        self.calls += 1
        if self.away:
            raise ActorUnavailableError("the actor is away", b"\0" * 16)
        return getattr(self.mailbox, method)(*arguments)


class Method:
    """A method of the actor; its answer is there at once, as a value or an error."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def remote(self, *arguments: Any) -> "Method":
        self._answer: Future[Any] = Future()
        try:
            self._answer.set_result(self._call(*arguments))
        except ActorUnavailableError as error:
            self._answer.set_exception(error)
        return self

    def future(self) -> "Future[Any]":
        return self._answer


@pytest.fixture
def actor(monkeypatch: pytest.MonkeyPatch) -> Actor:
    monkeypatch.setattr(control_channel, "_ASK_EVERY_S", 0.0)
    return Actor()


def asked_twice(channel: ControlChannel) -> bool:
    """Whether a stop is requested: the answer to one question is seen by the next."""
    channel.stop_requested()
    return channel.stop_requested()


def test_a_commit_whose_report_was_lost_arrives_with_the_next(actor: Actor) -> None:
    channel = ControlChannel(actor)
    channel.committed("run/stage1/step-0000002")
    actor.away = True
    channel.committed("run/stage1/step-0000004")
    actor.away = False
    channel.flush()
    assert actor.mailbox.poll(1)[1] == "run/stage1/step-0000004"
    actor.mailbox.post(Report())  # forgets nothing that has arrived
    channel.flush()
    assert actor.mailbox.poll(1)[1] == "run/stage1/step-0000004"


def test_workers_train_while_the_actor_is_away_and_report_everything_later(actor: Actor) -> None:
    channel = ControlChannel(actor)
    channel.started()
    actor.away = True
    channel.committed("run/stage1/step-0000002")
    channel.warn("a checkpoint could not be stored")
    assert not asked_twice(channel)
    actor.away = False
    channel.progress(1, 4, 8, 0.5)  # too soon after the last report to be one by itself
    channel.committed("run/stage1/step-0000004")
    report = Report(
        progress=(1, 4, 8, 0.5),
        commits=2,
        warnings=("a checkpoint could not be stored",),
        warned=1,
    )
    assert channel.poll() == (report, "run/stage1/step-0000004")
    assert channel.poll(commits=2) == (report, None)


def test_quick_steps_are_one_report_and_the_last_one_arrives(actor: Actor) -> None:
    channel = ControlChannel(actor)
    for step in range(1, 101):
        channel.progress(1, step, 100, 0.5)
    assert actor.calls == 1
    assert channel.poll()[0] == Report(progress=(1, 1, 100, 0.5))
    channel.flush()
    assert channel.poll()[0] == Report(progress=(1, 100, 100, 0.5))


def test_a_request_to_stop_that_did_not_arrive_is_made_again(actor: Actor) -> None:
    channel = ControlChannel(actor)
    actor.away = True
    assert not channel.request_stop()
    actor.away = False
    assert not asked_twice(channel)
    assert channel.request_stop()
    assert asked_twice(ControlChannel(actor))
    assert not asked_twice(ControlChannel(Actor()))  # another attempt's


def test_a_request_to_stop_is_remembered(actor: Actor) -> None:
    channel = ControlChannel(actor)
    channel.request_stop()
    assert asked_twice(channel)
    actor.mailbox = Mailbox()  # as after a restart of the actor
    assert asked_twice(channel)


def test_a_worker_does_not_wait_for_an_answer(actor: Actor) -> None:
    """Neither at a step nor for the next question while one is open."""
    pending: list[Future[bool]] = []

    class Slow:
        @property
        def stop_requested(self) -> Any:
            return self

        def remote(self) -> Any:
            return self

        def future(self) -> "Future[bool]":
            pending.append(Future())
            return pending[-1]

    channel = ControlChannel(Slow())
    assert [channel.stop_requested() for _ in range(100)] == [False] * 100
    assert len(pending) == 1
    pending[0].set_result(True)
    assert channel.stop_requested()


def test_each_report_is_passed_on_once_whenever_it_arrives(
    actor: Actor, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[Any] = []
    channel = ControlChannel(actor)
    with Listener(channel, lambda *step: heard.append(step), heard.append) as listener:
        listener.poll()
        assert (heard, listener.started, listener.training) == ([], False, False)
        channel.progress(1, 4, 8, 0.5)
        channel.committed("step-0000004")
        channel.warn("once")
        for away in (True, False, True, False):
            actor.away = away
            listener.poll()
            assert listener.started == (not away or bool(heard))
    assert heard == [(1, 4, 8, 0.5), "step-0000004"]
    assert [record.message for record in caplog.records] == ["once"]
    assert (listener.started, listener.training) == (True, True)


def test_a_slow_server_delays_no_other_report(actor: Actor) -> None:
    """Not even that the workers run; the attempt's end waits for it. Of the checkpoints that arrive
    during one call only the newest is passed on."""
    asked, answers, heard = threading.Event(), threading.Event(), list[Any]()

    def committed(place: str) -> None:
        asked.set()
        assert answers.wait(60)
        heard.append(place)

    channel = ControlChannel(actor)
    with Listener(channel, lambda *_: None, committed) as listener:
        channel.committed("step-0000004")
        listener.poll()
        assert asked.wait(60)
        for place in ("step-0000008", "step-0000012"):
            channel.committed(place)
            channel.progress(1, int(place[5:]), 12, 0.5)
            listener.poll()
        channel.flush()
        listener.poll()
        assert (listener.training, heard) == (True, [])
        answers.set()
    assert heard == ["step-0000004", "step-0000012"]


def test_an_error_of_a_callback_is_raised_at_the_end_unless_there_is_an_earlier_one(
    actor: Actor,
) -> None:
    def fail(place: str) -> None:
        raise KeyError(place)

    for error in (None, OSError("first")):
        channel = ControlChannel(actor)
        with pytest.raises(type(error) if error else KeyError):  # noqa: SIM117, PT012
            with Listener(channel, lambda *_: None, fail) as listener:
                channel.committed("step-0000004")
                listener.poll()
                if error:
                    raise error
        actor.mailbox = Mailbox()


class Rank0:
    """A worker that reports, stops when it is asked to, and says where its mailbox runs."""

    def __init__(self, name: str) -> None:
        self.channel = ControlChannel.connect(name)

    def commit(self, commit: Any) -> None:
        self.channel.committed(commit)
        self.channel.flush()

    def wait_for_stop(self) -> bool:
        until = time.monotonic() + 60
        while not self.channel.stop_requested() and time.monotonic() < until:
            time.sleep(0.01)
        return self.channel.stop_requested()


@pytest.fixture
def channel(ray_cluster: None) -> Iterator[ControlChannel]:
    channel = ControlChannel.create()
    yield channel
    channel.close()


@pytest.mark.ray
@pytest.mark.timeout(300)
def test_reports_and_requests_pass_through_an_actor_that_is_killed(
    channel: ControlChannel,
) -> None:
    import ray

    worker: Any = ray.remote(num_cpus=0)(Rank0).remote(channel.name)
    large = {"curves": [{"step": step, "loss": 0.5} for step in range(20_000)]}
    ray.get(worker.commit.remote(large))
    assert channel.poll() == (Report(commits=1), large)
    assert channel.poll(commits=1) == (Report(commits=1), None)

    (mailbox,) = (pid for pid, line in descendants(os.getpid()).items() if "::Mailbox" in line)
    os.kill(mailbox, signal.SIGKILL)
    stopped = worker.wait_for_stop.remote()
    until = time.monotonic() + 60
    while not channel.request_stop():
        assert time.monotonic() < until
    assert ray.get(stopped)
    ray.get(worker.commit.remote("next"))
    assert channel.poll() == (Report(commits=2), "next")


@pytest.mark.ray
@pytest.mark.timeout(300)
def test_a_worker_of_an_attempt_that_is_over_gets_an_error(channel: ControlChannel) -> None:
    other = ControlChannel.create()
    other.close()
    with pytest.raises(ConnectionError, match="the attempt is over"):
        ControlChannel.connect(other.name)
    late = ControlChannel(other._mailbox)
    late.committed("never heard of")
    late.flush()
    assert not asked_twice(late)
    assert channel.poll() == (None, None)
