"""What a stage in training has to tell: its curves, its throughput, what it has trained on."""

import dataclasses
import time
from collections.abc import Mapping
from typing import Any

import torch

from aiaic.checkpointing.checkpoint import Record, Timings
from aiaic.loading.sampler import LEDGER_MASK
from aiaic.training.context import TrainContext
from aiaic.training.meter import Meter
from aiaic.training.throughput import Clock


class Journal:
    """Grows with each step, and goes with each checkpoint.

    Args:
        run: what runs the loop.
        device: where losses are summed until they are reported.
        clock: of this worker.
        timings: of the attempts before; or of a stage that begins now.
        record: of the checkpoint that is gone on from, if there is one.
    """

    def __init__(
        self,
        run: TrainContext,
        device: torch.device,
        clock: Clock,
        timings: Timings,
        record: Record | None,
    ) -> None:
        self.curves: list[dict[str, float]] = list(record.curves) if record else []
        self._timings = timings
        self.clock = clock
        # What a checkpoint holds of an unfinished report is all workers' sum: one goes on with it.
        self.meter = Meter(device, record.pending if record and run.rank == 0 else {})
        self._ledger = record.ledger if record else 0
        self._world_size = run.world_size
        self._resumed_at_s = time.perf_counter()

    def report(self, step: int, learning_rate: float) -> dict[str, float]:
        """Add a point to the curves, and one to the throughput; every worker has to.

        Raises:
            NonFiniteLossError: a loss or gradient since the last report is not finite.
        """
        with self.clock.spent("computing"):  # the device catches up here
            totals = self.meter.totals()
        self.meter.clear()
        self._ledger = (self._ledger + totals.ledger) & LEDGER_MASK
        point = {"step": float(step), "learning_rate": learning_rate} | totals.means()
        self.curves.append(point)
        figures = self.clock.figures()
        if figures:  # of this worker: the others do as much, and wait for each other
            figures["samples_per_s"] *= self._world_size
        row = {"step": float(step), "goodput": self.goodput()} | figures
        self._timings = dataclasses.replace(self._timings, rows=[*self._timings.rows, row])
        return point

    def validated(self, metrics: Mapping[str, float]) -> None:
        """Add what validation has found to the last point of the curves."""
        self.curves[-1] |= metrics

    def entries(self) -> dict[str, Any]:
        """What a checkpoint's record keeps of it; every worker has to ask.

        Raises:
            NonFiniteLossError: a loss or gradient since the last report is not finite.
        """
        totals = self.meter.totals()
        return {
            "curves": [dict(row) for row in self.curves],
            "pending": totals.pending(),
            "ledger": (self._ledger + totals.ledger) & LEDGER_MASK,
        }

    def timings(self) -> Timings:
        """How the time was spent until now."""
        return dataclasses.replace(self._timings, trained_s=self.trained_s())

    def trained_s(self) -> float:
        """Time of the steps that stand, with their validations."""
        return self._timings.trained_s + time.perf_counter() - self._resumed_at_s

    def elapsed_s(self) -> float:
        """Time since the stage was begun for the first time, whatever happened since."""
        return time.time() - self._timings.begun_unix_s

    def goodput(self) -> float:
        """Share of that time that went into the steps that stand."""
        return min(1.0, self.trained_s() / self.elapsed_s())
