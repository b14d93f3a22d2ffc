"""The record of a search: one JSON file per trial, ``OUT/trials/<id>/trial.json``.

The record is the only truth. A search that is continued is rebuilt from it, whatever ran the trials
before; see :mod:`workflows.tuning.trial_queue`.
"""

import dataclasses
import json
import re
from typing import Any, Literal

from aiaic import config
from data_prep import storage

State = Literal["running", "finished", "stopped", "failed", "lost"]
"""running: it trains, or its search was interrupted; finished: it came to its last step; stopped:
ended early, since others scored better; failed: its settings made the loss infinite; lost: anything
else ended it, such as a kill or missing files, and the next call tries again."""

SETTLED: tuple[State, ...] = ("finished", "stopped", "failed")
"""States that no call changes any more."""

_FOLDER = "trials"
_RECORD = "trial.json"
_PATTERN = re.compile(rf"([^/]+)/{re.escape(_RECORD)}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trial:
    """What ``trial.json`` holds."""

    id: str
    """Name of its folder."""
    index: int
    """Its place in the order of draws, from 0."""
    settings: dict[str, Any]
    """What was drawn, by dotted key of the recipe."""
    state: State = "running"
    scores: list[dict[str, int | float]] = dataclasses.field(default_factory=list)
    """The objective at each comparison, by increasing ``step`` of stage 3."""
    reason: str | None = None
    """Why it failed or was lost, in one line."""

    @property
    def settled(self) -> bool:
        """Whether no call changes it any more."""
        return self.state in SETTLED

    @property
    def last_step(self) -> int:
        """Step of the last score; 0 where there is none."""
        return int(self.scores[-1]["step"]) if self.scores else 0

    def scored(self, objective: str) -> dict[int, float]:
        """The objective by step."""
        return {int(row["step"]): row[objective] for row in self.scores if objective in row}

    def with_score(self, step: int, objective: str, score: float) -> "Trial":
        """The trial with a score, in place of an earlier one of the same step."""
        others = [row for row in self.scores if row["step"] != step]
        rows = sorted([*others, {"step": step, objective: score}], key=lambda row: row["step"])
        return dataclasses.replace(self, scores=rows)


class TrialStore:
    """The trials of a search at a place: a path, or an object store.

    Args:
        out: the search's folder.
    """

    def __init__(self, out: str) -> None:
        self._folder = storage.join(out, _FOLDER)

    def folder(self, trial: str) -> str:
        """A trial's own folder, which is also its run's."""
        return storage.join(self._folder, trial)

    def load(self) -> list[Trial]:
        """All recorded trials in the order of their draws.

        Raises:
            ValueError: a record is damaged.
        """
        if not storage.exists(self._folder):
            return []
        files = storage.list_files(self._folder)
        trials = (self._read(file.uri) for file in files if _PATTERN.fullmatch(file.name))
        return sorted(trials, key=lambda trial: trial.index)

    def save(self, trial: Trial) -> None:
        """Record a trial as it is now."""
        content = json.dumps(config.to_json(trial), indent=1, sort_keys=True)
        storage.write_bytes(storage.join(self.folder(trial.id), _RECORD), content.encode())

    def _read(self, place: str) -> Trial:
        try:
            return config.from_json(Trial, json.loads(storage.read_bytes(place)))
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"'{place}' is damaged ({error}): delete it to draw another trial"
            ) from None
