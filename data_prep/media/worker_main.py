"""The worker's side of ``worker_process``: ``python -m data_prep.media.worker_main SOCKET``."""

import contextlib
import gc
import os
import pickle
import select
import signal
import socket
import sys
import threading

from data_prep.media.worker_channel import Channel


def main(descriptor: int) -> None:
    """Answers the calls that arrive on an inherited socket until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop
    threading.Thread(target=_exit_with_parent, args=(descriptor,), daemon=True).start()
    channel = Channel(socket.socket(fileno=descriptor))
    with contextlib.suppress(EOFError):
        function, prepare = channel.receive()
        prepare()
        # Media objects form reference cycles and can be large: they are freed after each call, when
        # few objects are left to scan, and the modules are not scanned again.
        gc.disable()
        gc.freeze()
        channel.send(None)
        while True:
            arguments = channel.receive()
            try:
                answer = function(*arguments), None
            except Exception as error:  # noqa: BLE001 (raised again in the parent)
                answer = None, _picklable(error)
            channel.send(answer)
            del arguments, answer
            gc.collect()


def _picklable(error: Exception) -> Exception:
    try:
        return pickle.loads(pickle.dumps(error))  # noqa: S301 (our own)
    except Exception:  # noqa: BLE001 (its class may do anything)
        return RuntimeError(f"{type(error).__name__}: {error}")


def _exit_with_parent(descriptor: int) -> None:
    """Exits when the parent dies, which closes the socket's other end, even during a call."""
    hang_up = select.poll()
    hang_up.register(descriptor, select.POLLRDHUP)
    hang_up.poll()
    os._exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]))
