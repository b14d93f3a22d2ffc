"""``aiaic``: the command line.

Exit codes: 0 success, 1 an error (reported in one line), 2 wrong usage, 130 interrupted, 143
stopped by SIGTERM; ``submit`` exits with its job's exit code.
"""

import contextlib
import importlib
import io
import json
import logging
import os
import platform
import pwd
import signal
import sys
from collections.abc import Iterator, Sequence
from importlib import metadata

from workflows.options import COMMANDS, Command, Outcome
from workflows.options.parser import parse
from workflows.training.signals import StoppedError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # the locale may lack a character of the help
    if list(arguments) == ["--version"]:
        print(versions())
        return 0
    with _closed_pipe_is_no_error():
        options = parse(arguments)
    _quiet(debug=options.debug)
    _name_user()
    try:
        with contextlib.redirect_stdout(sys.stderr) if options.json else contextlib.nullcontext():
            outcome = execute(options)
    except KeyboardInterrupt:
        print("aiaic: interrupted", file=sys.stderr)
        return 130
    except StoppedError as stopped:
        print(f"aiaic: {stopped}", file=sys.stderr)
        return stopped.exit_code
    except (ValueError, OSError) as error:
        if options.debug:
            raise
        print(f"aiaic: error: {one_line(error)}", file=sys.stderr)
        return 1
    if options.json or outcome.text:
        with _closed_pipe_is_no_error():
            print(json.dumps(outcome.values) if options.json else outcome.text, flush=True)
    return outcome.exit_code


@contextlib.contextmanager
def _closed_pipe_is_no_error() -> Iterator[None]:
    """Exit like other programs where the reader of our output, such as ``head``, has left."""
    try:
        yield
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the flush at exit
        sys.exit(128 + signal.SIGPIPE)


def versions() -> str:
    """The installed versions that matter in a bug report; nothing is imported to find them."""
    found = {name: metadata.version(name) for name in ("aiaic", "torch", "ray")}
    return (
        f"aiaic {found['aiaic']} (Python {platform.python_version()}, "
        f"PyTorch {found['torch']}, Ray {found['ray']})"
    )


def execute(options: Command) -> Outcome:
    """Run a command by the module of its name, which is imported only now."""
    name = next(name for name, kind in COMMANDS.items() if kind is type(options))
    return importlib.import_module(f"workflows.commands.{name}").run(options)


def one_line(error: BaseException) -> str:
    """The message of an error, without the traceback that Ray adds to remote ones."""
    cause = getattr(error, "cause", None)
    text = str(cause if isinstance(cause, BaseException) else error)
    return " ".join(text.split()) or type(error).__name__


def _quiet(*, debug: bool) -> None:
    """Progress bars and our own messages on stderr; those of libraries only when debugging."""
    logging.basicConfig(
        level=logging.INFO if debug else logging.WARNING, format="%(name)s: %(message)s"
    )
    for ours in ("workflows", "aiaic", "data_prep"):
        logging.getLogger(ours).setLevel(logging.DEBUG if debug else logging.INFO)
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


def _name_user() -> None:
    """Name and home for a user id that has none, as in containers: PyTorch's import fails without
    the one, MLflow's without the other, and Ray keeps its token there.
    """
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        os.environ.setdefault("LOGNAME", f"uid{os.getuid()}")
        if "HOME" not in os.environ:
            from workflows.artifacts import scratch  # noqa: PLC0415 (slow to load)

            os.environ["HOME"] = str(scratch.folder())


if __name__ == "__main__":
    sys.exit(main())
