"""What every command takes and returns."""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a command found or made."""

    values: dict[str, Any]
    """The result as plain JSON values: what '--json' prints."""
    text: str
    """The same for a person."""
    exit_code: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command:
    """Options of every command."""

    json: bool = False
    """Print the result as one JSON object on the last line of stdout; all other output goes to
    stderr."""
    debug: bool = False
    """Show tracebacks and Ray's log messages."""
