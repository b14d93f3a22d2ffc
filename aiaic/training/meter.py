"""Accumulates losses on the device between reports, without a host sync per step."""

import dataclasses
from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from aiaic import distributed
from aiaic.loading.batch import Batch
from aiaic.loading.sampler import LEDGER_MASK
from aiaic.stages.base import StageOutput

_COUNT = "samples"


class NonFiniteLossError(ValueError):
    """A loss or gradient is not finite; the last checkpoint is intact."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Totals:
    """Sums over the samples of all workers since the last report."""

    sums: dict[str, float]
    """Of each loss term."""
    samples: float
    ledger: int
    """Sum of the hashes of (step, sample); see :func:`aiaic.loading.sampler.ledger`."""

    def means(self) -> dict[str, float]:
        """Mean of each loss term."""
        return {name: value / self.samples for name, value in self.sums.items()}

    def pending(self) -> dict[str, float]:
        """The sums as a checkpoint stores them, so that a resumed run reports the same means."""
        return self.sums | {_COUNT: self.samples} if self.samples else {}


class Meter:
    """Sums of a stage's loss terms on the device.

    Args:
        device: where the sums are kept.
        pending: what a checkpoint stored, on the one worker that resumes with it.
    """

    def __init__(self, device: torch.device, pending: Mapping[str, float]) -> None:
        self._device = device
        self._sums = {
            name: torch.tensor(value, device=device)
            for name, value in pending.items()
            if name != _COUNT
        }
        self._count = pending.get(_COUNT, 0.0)
        self._ledger = 0
        self._watched: list[tuple[int, str, tuple[str, ...], Tensor]] = []

    def add(self, step: int, batch: Batch, output: StageOutput) -> None:
        """Add the losses of a (micro-)batch of a step, counted from 1."""
        for name, values in {"loss": output.loss, **output.terms}.items():
            total = values.detach().float().sum()
            self._sums[name] = self._sums[name] + total if name in self._sums else total
        self._count += len(batch)
        self._ledger = (self._ledger + batch.ledger) & LEDGER_MASK
        self.watch(step, "loss", batch.keys, output.loss.detach())

    def watch(self, step: int, what: str, keys: Sequence[str], values: Tensor) -> None:
        """Check at the next report that values are finite; ``keys`` are their samples."""
        self._watched.append((step, what, tuple(keys), values))

    def totals(self) -> Totals:
        """The sums over all workers since the last report.

        A collective: every worker must call it.

        Raises:
            NonFiniteLossError: a loss or gradient is not finite; the first such step is named, with
                its batch.
        """
        names = sorted(self._sums)
        count = torch.tensor(self._count, device=self._device)
        bad = [values.isfinite().logical_not().any() for _, _, _, values in self._watched]
        bad_count = torch.stack(bad).sum() if bad else torch.zeros((), device=self._device)
        sums = torch.stack([*(self._sums[name] for name in names), count, bad_count.float()])
        ledger = torch.tensor(self._ledger, device=self._device)
        if distributed.world_size() > 1:
            dist.all_reduce(sums)
            dist.all_reduce(ledger)
        *values, samples, not_finite = sums.tolist()
        if not_finite:
            self._raise_not_finite()
        return Totals(
            sums=dict(zip(names, values, strict=True)),
            samples=samples,
            ledger=int(ledger) & LEDGER_MASK,
        )

    def reset(self) -> None:
        """Start over, after a report."""
        self._sums, self._count, self._ledger, self._watched = {}, 0.0, 0, []

    def _raise_not_finite(self) -> None:
        """Name the first step with a value that is not finite: all later ones follow from it."""
        bad = [
            (step, order, what, float(values[~values.isfinite()].flatten()[0]), keys)
            for order, (step, what, keys, values) in enumerate(self._watched)
            if not values.isfinite().all()
        ][:1]
        if distributed.world_size() > 1:
            parts = [bad for _ in range(distributed.world_size())]
            dist.all_gather_object(parts, bad)
            bad = [found for part in parts for found in part]
        step, _, what, value, keys = min(bad)
        raise NonFiniteLossError(
            f"step {step}: the {what} is {value} on the batch {', '.join(keys)}; the last "
            "checkpoint is intact. Lower the stage's learning_rate, or inspect these samples"
        )
