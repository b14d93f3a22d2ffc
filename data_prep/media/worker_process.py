"""A process of one's own that answers calls in their order, and may die at any moment.

Nothing is shared with it but one socket, which goes with it: no lock that it could take along, no
half-sent answer that another process would go on with.
"""

import contextlib
import multiprocessing
import os
import pickle
import queue
import signal
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext, SpawnProcess
from pickle import UnpicklingError
from types import ModuleType
from typing import Any

_START_S = 120.0  # a busy machine may take long
_END_S = 5.0


class SlowError(Exception):
    """The process takes too long over a call, and was killed."""


class DiedError(Exception):
    """The process has ended by itself, or somebody has killed it."""

    def __init__(self, exitcode: int, *, started: bool) -> None:
        super().__init__(f"the process has ended with code {exitcode}")
        self.exitcode = exitcode
        """Less than 0: minus the signal."""
        self.started = started
        """Whether it had come as far as to take calls."""

    @property
    def killed(self) -> bool:
        """Whether somebody else has ended it; what it was at may be innocent."""
        return self.exitcode in (-signal.SIGKILL, -signal.SIGTERM)


class _LeanProcess(SpawnProcess):
    """A new process without the program's main module, which it would load for nothing.

    A forked one would be faster, and inherit the locks of the threads of whoever starts it.
    """

    @staticmethod
    def _Popen(process_obj: Any) -> Any:  # noqa: N802 (multiprocessing's hook)
        main = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            start: Any = vars(SpawnProcess)["_Popen"]
            return start(process_obj)
        finally:
            sys.modules["__main__"] = main


class Child:
    """The process; it ends with the one that has started it, whatever it is at."""

    def __init__(self, function: Callable[..., Any], prepare: Callable[[], None]) -> None:
        """Starts it; it calls ``prepare`` first, and ``function`` for each call."""
        ours, theirs = SpawnContext().Pipe()
        self._connection: Connection[Any, Any] = ours
        self._process = _LeanProcess(target=_serve, args=(theirs, function, prepare), daemon=True)
        self._process.start()
        theirs.close()  # so that its end is known as soon as it is gone
        self._started = False
        self._calls: queue.SimpleQueue[tuple[Any, ...] | None] = queue.SimpleQueue()
        self._sender = threading.Thread(target=self._send_all, daemon=True)
        self._sender.start()
        self.owing = 0
        """Calls without an answer yet."""

    def call(self, *arguments: Any) -> None:
        """Asks for one more answer."""
        self.owing += 1
        self._calls.put(arguments)

    def answer(self, patience_s: float) -> Any:
        """The first answer that is owing; raises what the function has raised.

        Raises SlowError where it takes longer, not counting the process's start, and DiedError; the
        process is gone then.
        """
        try:
            if not self._started:
                if not self._connection.poll(_START_S):
                    raise EOFError
                self._connection.recv()
                self._started = True
            if not self._connection.poll(patience_s):
                self.close()
                raise SlowError(f"no answer after {patience_s:g} s")
            value, error = self._connection.recv()
        except (EOFError, OSError, UnpicklingError) as broken:
            self._process.join(_END_S)  # so that its own exit code is seen
            self.close()
            raise DiedError(self._process.exitcode or 0, started=self._started) from broken
        self.owing -= 1
        if error is not None:
            raise error
        return value

    def kill(self) -> None:
        """Ends the process at once; whoever waits for an answer gets DiedError."""
        self._process.kill()

    def close(self) -> None:
        """Ends the process at once, and all that belongs to it."""
        self.kill()
        self._process.join()
        self._calls.put(None)
        self._sender.join()
        self._connection.close()

    def _send_all(self) -> None:
        """Sends calls as fast as they are taken; a long one must not keep answers from coming."""
        with contextlib.suppress(OSError):  # the process is gone: whoever waits for it notices
            while (arguments := self._calls.get()) is not None:
                self._connection.send(arguments)


def _serve(
    calls: "Connection[Any, Any]", function: Callable[..., Any], prepare: Callable[[], None]
) -> None:
    """What the process does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    prepare()
    calls.send(None)
    with contextlib.suppress(EOFError):
        while True:
            arguments = calls.recv()
            try:
                answer = function(*arguments), None
            except Exception as error:  # noqa: BLE001 (raised by whoever has called)
                answer = None, _that_travels(error)
            calls.send(answer)


def _that_travels(error: Exception) -> Exception:
    try:
        return pickle.loads(pickle.dumps(error))  # noqa: S301 (our own)
    except Exception:  # noqa: BLE001 (whatever its class makes of it)
        return RuntimeError(f"{type(error).__name__}: {error}")


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None  # this is no main process
    parent.join()
    os._exit(1)
