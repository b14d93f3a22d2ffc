"""Which trial runs next, and what became of each; every change is recorded at once.

It decides, and something else runs: a cluster, or a test without one.
"""

import dataclasses
import itertools
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from workflows.tuning.trials import State, Trial, TrialStore

log = logging.getLogger(__name__)

ATTEMPTS = 3
"""A trial that is lost so often in a row, without a new score, waits for the next call."""


class TrialQueue:
    """The trials of one search while they run.

    Interrupted and lost trials of earlier calls come first, under their own ids; then new ones are
    drawn until there are as many as wanted.

    Args:
        store: the record.
        trials: what it holds.
        wanted: number of trials in all.
        steps: of a trial that comes to its end.
        objective: key of the score; lower is better.
        draw: gives the settings of the trial with an index, by the trials so far.
    """

    def __init__(
        self,
        store: TrialStore,
        trials: Sequence[Trial],
        *,
        wanted: int,
        steps: int,
        objective: str,
        draw: Callable[[int, Sequence[Trial]], dict[str, Any]],
    ) -> None:
        self._store, self._wanted, self._steps = store, wanted, steps
        self._objective, self._draw = objective, draw
        self._trials = {trial.id: trial for trial in trials}
        self._waiting = deque(trial.id for trial in trials if not trial.settled)
        self._running: set[str] = set()
        self._to_retry: set[str] = set()
        self._losses: dict[str, int] = {}

    @property
    def trials(self) -> list[Trial]:
        """All trials so far, in the order of their draws."""
        return sorted(self._trials.values(), key=lambda trial: trial.index)

    @property
    def over(self) -> bool:
        """Whether no trial runs, and none is left to run in this call."""
        left = self._running or self._to_retry or self._waiting
        return not left and len(self._trials) >= self._wanted

    @property
    def settled(self) -> int:
        """Number of trials that no call changes any more."""
        return sum(trial.settled for trial in self._trials.values())

    def next(self) -> Trial | None:
        """The trial to run now; None where none is left, or only running ones are."""
        if self._waiting:
            trial = self._trials[self._waiting.popleft()]
        elif len(self._trials) < self._wanted:
            taken = {trial.index for trial in self._trials.values()}
            index = next(number for number in itertools.count() if number not in taken)
            trial = Trial(id=f"{index:04d}", index=index, settings=self._draw(index, self.trials))
        else:
            return None
        self._running.add(trial.id)
        return self._save(dataclasses.replace(trial, state="running", reason=None))

    def scored(self, trial: str, step: int, score: float) -> None:
        """A trial has been scored at a step of stage 3."""
        self._losses.pop(trial, None)
        self._save(self._trials[trial].with_score(step, self._objective, score))

    def ended(self, trial: str) -> None:
        """A trial's process has ended; whether it failed or was lost has been reported before.

        Only now can a lost trial be run again: it would write into the folder of its predecessor.
        """
        if trial in self._to_retry:
            self._to_retry.remove(trial)
            self._waiting.append(trial)
        if trial not in self._running:
            return
        at_end = self._trials[trial].last_step >= self._steps
        self._end(trial, "finished" if at_end else "stopped")

    def failed(self, trial: str, reason: str) -> None:
        """A trial's own settings ended it: another attempt would end alike."""
        log.warning("trial %s failed: %s", trial, reason)
        self._end(trial, "failed", reason)

    def lost(self, trial: str, reason: str, *, retry: bool = True) -> None:
        """Something else ended a trial. It runs again, after :meth:`ended`, if that may help.

        Args:
            trial: its id.
            reason: what, in one line.
            retry: whether another attempt in this call may come further.
        """
        if trial in self._to_retry:
            return  # its process reported the loss, and then died
        self._losses[trial] = self._losses.get(trial, 0) + 1
        again = retry and self._losses[trial] < ATTEMPTS
        log.warning("trial %s was lost%s: %s", trial, ", and restarts" if again else "", reason)
        self._end(trial, "lost", reason)
        if again:
            self._to_retry.add(trial)

    def _end(self, trial: str, state: State, reason: str | None = None) -> None:
        self._running.discard(trial)
        self._save(dataclasses.replace(self._trials[trial], state=state, reason=reason))

    def _save(self, trial: Trial) -> Trial:
        self._trials[trial.id] = trial
        self._store.save(trial)
        return trial
