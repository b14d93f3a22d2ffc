"""SIGTERM and Ctrl-C: a run is told to leave, and has the time to save."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StoppedError(Exception):
    """A run was told to leave, and has left: with a checkpoint, before its end."""

    def __init__(self, stage: int, step: int) -> None:
        super().__init__(stage, step)  # so that it can be sent to another process
        self.stage, self.step = stage, step
        self.exit_code = 128 + signal.SIGTERM
        """As shells tell of a process that a signal has ended."""

    def __str__(self) -> str:
        if self.step == 0:
            return "stopped before the first checkpoint; the same command begins anew"
        return (
            f"stopped in stage {self.stage} with a checkpoint of step {self.step}; "
            "the same command goes on from there"
        )


class Leave:
    """Whether this process was told to leave."""

    def __init__(self) -> None:
        self.told_by: signal.Signals | None = None

    def __call__(self) -> bool:
        return self.told_by is not None


@contextlib.contextmanager
def asked_politely() -> Iterator[Leave]:
    """Within the context the first signal is noted; a second one acts as ever.

    Outside the main thread, where no signal arrives, nothing is changed.
    """
    leave = Leave()
    if threading.current_thread() is not threading.main_thread():
        yield leave
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def note(number: int, frame: FrameType | None) -> None:
        del frame
        leave.told_by = signal.Signals(number)
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    for number in SIGNALS:
        signal.signal(number, note)
    try:
        yield leave
    except StoppedError as stopped:
        if leave.told_by is not None:
            stopped.exit_code = 128 + leave.told_by
        raise
    finally:
        restore()
