"""``aiaic``: one command line for the whole chain.

Exit codes: 0 success, 1 an error that is told in one line, 2 wrong usage, 130 interrupted, 143 told
to leave by SIGTERM; ``submit`` passes on its job's exit code.
"""

import contextlib
import importlib
import json
import logging
import os
import sys
from collections.abc import Sequence

import tyro

from workflows.options import COMMANDS, Command, Outcome
from workflows.training.signals import StoppedError

_DESCRIPTION = (
    "Audio-infused automatic image colorization: clips -> shards -> three training stages -> "
    "evaluation and coloured pictures. 'aiaic COMMAND --help' explains each command."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    options = parse(arguments)
    _quiet(debug=options.debug)
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
        print(json.dumps(outcome.values) if options.json else outcome.text, flush=True)
    return outcome.exit_code


def parse(arguments: Sequence[str] | None = None) -> Command:
    """Arguments -> the options of a command; leaves with exit code 2 on wrong usage."""
    return tyro.extras.subcommand_cli_from_dict(
        COMMANDS,
        prog="aiaic",
        description=_DESCRIPTION,
        args=arguments,
        config=(tyro.conf.FlagCreatePairsOff,),
    )


def execute(options: Command) -> Outcome:
    """Carry out a command by the module of its name, which is loaded only now."""
    name = next(name for name, kind in COMMANDS.items() if kind is type(options))
    return importlib.import_module(f"workflows.commands.{name}").run(options)


def one_line(error: BaseException) -> str:
    """What went wrong, without the traceback that Ray puts into a remote error's text."""
    cause = getattr(error, "cause", None)
    text = str(cause if isinstance(cause, BaseException) else error)
    return " ".join(text.split()) or type(error).__name__


def _quiet(*, debug: bool) -> None:
    """Progress bars and our own notes on stderr; other people's chatter only when debugging."""
    logging.basicConfig(
        level=logging.INFO if debug else logging.WARNING, format="%(name)s: %(message)s"
    )
    for ours in ("workflows", "aiaic", "data_prep"):
        logging.getLogger(ours).setLevel(logging.DEBUG if debug else logging.INFO)
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


if __name__ == "__main__":
    sys.exit(main())
