"""A stage's history: its curves, its throughput, and a ledger of what it was trained on."""

import dataclasses
import time
from collections.abc import Mapping
from typing import Any

import torch

from aiaic.checkpointing.checkpoint import Record
from aiaic.checkpointing.timings import Timings
from aiaic.loading.sampler import LEDGER_MASK
from aiaic.training.context import TrainContext
from aiaic.training.meter import Meter
from aiaic.training.throughput import Clock


class History:
    """Grows with each step, and is saved with each checkpoint.

    Args:
        context: rank and world size.
        device: where losses are summed between reports.
        clock: of this worker.
        timings: of all earlier attempts, or of a stage that starts now.
        record: of the checkpoint that training resumes from, if any.
    """

    def __init__(
        self,
        context: TrainContext,
        device: torch.device,
        clock: Clock,
        timings: Timings,
        record: Record | None,
    ) -> None:
        self.clock = clock
        # What a checkpoint holds of an unfinished report is the sum over all workers: one takes it.
        self.meter = Meter(device, record.pending if record and context.rank == 0 else {})
        self._curves: list[dict[str, float]] = list(record.curves) if record else []
        self._ledger = record.ledger if record else 0
        self._timings = timings
        self._world_size = context.world_size
        self._resumed_at_s = time.perf_counter()

    def add_point(self, step: int, learning_rate: float) -> dict[str, float]:
        """Add a point to the curves and a row to the timings, and return the point.

        A collective: every worker must call it.

        Raises:
            NonFiniteLossError: a loss or gradient since the last point is not finite.
        """
        with self.clock.measure("computing"):  # the device catches up here
            totals = self.meter.totals()
        self.meter.reset()
        self._ledger = (self._ledger + totals.ledger) & LEDGER_MASK
        point = {"step": float(step), "learning_rate": learning_rate} | totals.means()
        self._curves.append(point)
        rates = self.clock.rates()
        if rates:  # of this worker: the others do as much, since workers wait for each other
            rates["samples_per_s"] *= self._world_size
        row = {"step": float(step), "goodput": self.goodput()} | rates
        self._timings = dataclasses.replace(self._timings, rows=[*self._timings.rows, row])
        return point

    def add_validation(self, metrics: Mapping[str, float]) -> None:
        """Add validation metrics to the last point of the curves."""
        self._curves[-1] |= metrics

    def record_fields(self) -> dict[str, Any]:
        """The fields of a checkpoint's record that come from the history.

        A collective: every worker must call it.

        Raises:
            NonFiniteLossError: a loss or gradient since the last point is not finite.
        """
        totals = self.meter.totals()
        return {
            "curves": [dict(row) for row in self._curves],
            "pending": totals.pending(),
            "ledger": (self._ledger + totals.ledger) & LEDGER_MASK,
        }

    def timings(self) -> Timings:
        """How the time was spent so far."""
        return dataclasses.replace(self._timings, trained_s=self.trained_s())

    def trained_s(self) -> float:
        """Time spent on the steps that were not lost, and on their validations."""
        return self._timings.trained_s + time.perf_counter() - self._resumed_at_s

    def elapsed_s(self) -> float:
        """Time since the stage was first started, interruptions included."""
        return time.time() - self._timings.begun_unix_s

    def goodput(self) -> float:
        """Share of the elapsed time that went into steps that were not lost."""
        return min(1.0, self.trained_s() / self.elapsed_s())
