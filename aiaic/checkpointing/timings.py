"""How the time of a training was spent: the only part of a checkpoint that differs between runs."""

import dataclasses
import json
from pathlib import Path

from aiaic import config

TIMINGS = "timings.json"
"""The file of :class:`Timings`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Timings:
    """How a stage's time was spent, over all attempts that led to a checkpoint."""

    begun_unix_s: float
    """When the stage was first started."""
    trained_s: float = 0.0
    """Time spent on the steps that this checkpoint includes, and on their validations. The rest of
    the time since the start was lost to crashes, restarts and waiting."""
    rows: list[dict[str, float]] = dataclasses.field(default_factory=list)
    """Throughput at each report, one object per reported step."""


def read_timings(folder: Path) -> Timings | None:
    """Read a checkpoint's timings; None if they are missing or damaged."""
    path = folder / TIMINGS
    return parse_timings(path.read_bytes()) if path.is_file() else None


def parse_timings(content: bytes) -> Timings | None:
    """Timings from the content of their file; None if it is damaged."""
    try:
        return config.from_json(Timings, json.loads(content))
    except ValueError:  # only shown to people
        return None
