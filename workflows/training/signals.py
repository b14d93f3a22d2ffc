"""The first SIGTERM or Ctrl-C requests a graceful stop; the second gets the default handling."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StoppedError(Exception):
    """A run stopped before its end, on request, after saving a checkpoint."""

    def __init__(self, stage: int, step: int) -> None:
        super().__init__(stage, step)  # so that it can be pickled
        self.stage, self.step = stage, step
        self.exit_code = 128 + signal.SIGTERM
        """What shells report for a process that a signal has ended."""

    def __str__(self) -> str:
        if self.step == 0:
            return "stopped before the first checkpoint; rerun the command to start over"
        return (
            f"stopped in stage {self.stage} with a checkpoint of step {self.step}; "
            "rerun the command to resume"
        )


class StopRequest:
    """Called, it says whether this process was asked to stop."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def __call__(self) -> bool:
        return self.signal is not None


@contextlib.contextmanager
def graceful_shutdown() -> Iterator[StopRequest]:
    """Within the context, the first signal only sets the request.

    Outside the main thread, which receives no signals, nothing is changed.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def note(number: int, frame: FrameType | None) -> None:
        del frame
        request.signal = signal.Signals(number)
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    for number in SIGNALS:
        signal.signal(number, note)
    try:
        yield request
    except StoppedError as stopped:
        if request.signal is not None:
            stopped.exit_code = 128 + request.signal
        raise
    finally:
        restore()
