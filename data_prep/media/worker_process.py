"""A worker process that answers calls in order and may die at any moment.

It shares one socket with the process that started it and nothing else, so its death leaves no lock
held and no half-written answer in a queue that others read.
"""

import contextlib
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from data_prep.media.worker_channel import Channel

_START_S = 120.0  # a busy machine may take long
_END_S = 5.0
_MAIN = "data_prep.media.worker_main"


class CallTimeoutError(Exception):
    """A call took too long; the process was killed."""


class WorkerDiedError(Exception):
    """The process exited or was killed."""

    def __init__(self, exitcode: int, *, started: bool) -> None:
        super().__init__(f"the process exited with code {exitcode}")
        self.exitcode = exitcode
        """Below 0: minus the signal's number."""
        self.started = started
        """Whether it was ready to take calls."""

    @property
    def killed(self) -> bool:
        """Whether something else ended it, so that its current call may be harmless."""
        return self.exitcode in (-signal.SIGKILL, -signal.SIGTERM)


class WorkerProcess:
    """The process. It exits with the one that started it, even in the middle of a call.

    A fresh interpreter rather than a fork, which would inherit locks that other threads hold.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        prepare: Callable[[], None],
        environment: Mapping[str, str],
    ) -> None:
        """Starts it; it calls ``prepare`` once and ``function`` for each call.

        Both are pickled by name. ``environment`` holds defaults: variables that are set win.
        """
        ours, theirs = socket.socketpair()
        self._channel = Channel(ours)
        path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
        with theirs:  # closed here, so that its end is noticed as soon as the process is gone
            self._process = subprocess.Popen(  # noqa: S603 (this interpreter)
                [sys.executable, "-P", "-m", _MAIN, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env={**environment, **os.environ, "PYTHONPATH": path},
            )
        self._started = False
        self._calls: queue.SimpleQueue[tuple[Any, ...] | None] = queue.SimpleQueue()
        self._calls.put((function, prepare))
        self._sender = threading.Thread(target=self._send_all, daemon=True)
        self._sender.start()
        self.pending = 0
        """Calls without an answer yet."""

    def call(self, *arguments: Any) -> None:
        """Queues a call; ``answer`` returns its result in turn."""
        self.pending += 1
        self._calls.put(arguments)

    def answer(self, timeout_s: float) -> Any:
        """The answer to the oldest pending call. Raises what the function raised.

        Raises:
            CallTimeoutError: it takes longer than ``timeout_s``, start-up not counted.
            WorkerDiedError: the process exited or was killed.

        After either of these the process is gone.
        """
        try:
            if not self._started:
                if not self._channel.poll(_START_S):
                    raise EOFError
                self._channel.receive()
                self._started = True
            if not self._channel.poll(timeout_s):
                self.close()
                raise CallTimeoutError(f"no answer after {timeout_s:g} s")
            value, error = self._channel.receive()
        except (EOFError, OSError) as broken:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_END_S)  # so that its own exit code is seen
            self.close()
            exitcode = self._process.returncode or 0
            raise WorkerDiedError(exitcode, started=self._started) from broken
        self.pending -= 1
        if error is not None:
            raise error
        return value

    def kill(self) -> None:
        """Ends the process at once; a thread that waits for an answer gets WorkerDiedError."""
        self._process.kill()

    def close(self) -> None:
        """Ends the process at once and frees everything that belongs to it."""
        self.kill()
        self._process.wait()
        self._calls.put(None)
        self._sender.join()
        self._channel.close()

    def _send_all(self) -> None:
        """Sends calls as fast as they are taken; a large one must not hold up answers."""
        with contextlib.suppress(OSError):  # the process is gone: ``answer`` notices
            while (arguments := self._calls.get()) is not None:
                self._channel.send(arguments)
