"""What a training loop works on: one stage's networks, optimizer state, batches and history."""

import dataclasses
import logging
import time
from pathlib import Path
from typing import Literal

import torch

from aiaic import config, distributed
from aiaic.checkpointing import checkpoint
from aiaic.checkpointing.checkpoint import Record, Snapshot
from aiaic.checkpointing.timings import Timings, read_timings
from aiaic.networks.model import build_model, load_pretrained
from aiaic.training import build_stage
from aiaic.training.acceleration import accelerate
from aiaic.training.batches import StageBatches
from aiaic.training.context import TrainContext
from aiaic.training.history import History
from aiaic.training.optim import learning_rate, resolve_precision
from aiaic.training.resume import (
    check_same_init,
    check_same_precision,
    check_same_run,
    check_sound,
    load_init,
)
from aiaic.training.spec import StageSpec
from aiaic.training.state import TrainState
from aiaic.training.throughput import Clock, flops_per_sample, peak_flops

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainResult:
    """How the training of a stage ended."""

    step: int
    """Steps taken in all; fewer than the stage has if a stop was requested."""
    seconds: float
    """Time since the stage was first started, interruptions included."""
    goodput: float
    """Share of that time that went into steps that were not lost."""
    samples_per_s: float
    """Training samples of all workers per second of these steps, validation included."""
    precision: str


class Trainer:
    """A stage in training on one worker, fresh or resumed from the context's checkpoint.

    Args:
        spec: what to train.
        context: where checkpoints and progress go.

    Raises:
        ValueError: see :func:`aiaic.training.loop.train`.
    """

    def __init__(self, spec: StageSpec, context: TrainContext) -> None:
        recipe, device = spec.recipe, spec.device
        config.check(recipe)
        self.spec, self.context, self.step = spec, context, 0
        self._settings = recipe.stage_config(spec.stage)
        self.precision = resolve_precision(recipe.training.precision, device)
        check_sound(spec.stage, recipe, spec.samples)
        model = build_model(recipe.model, recipe.sampling.seed)
        self._origin = load_init(model, spec.stage, recipe, spec.init)
        self.stage = build_stage.build(spec.stage, model, recipe).to(device)
        accelerate(self.stage, recipe.training, device, precision=self.precision)
        self.batches = StageBatches(spec, context)
        folder = context.restore()
        if folder is None and self._origin is None:
            load_pretrained(model, spec.read_weights)
        self.state = TrainState(self.stage, recipe.training)
        record = None if folder is None else self._resume(folder)
        if record is None:
            self.stage.fit_normalization(self.batches.sounds())
        timings = _timings(folder, spec.started_unix_s)
        self.history = History(context, device, self._clock(), timings, record)

    @property
    def finished(self) -> bool:
        """Whether all steps are taken."""
        return self.step >= self._settings.steps

    def due(self, key: Literal["report_every", "validate_every", "save_every"]) -> bool:
        """Whether something that happens every few steps, and after the last, is due."""
        return self.finished or self.step % getattr(self.spec.recipe.training, key) == 0

    def learning_rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        settings, warmup = self._settings, self.spec.recipe.training.warmup_steps
        return learning_rate(step, settings.steps, settings.learning_rate, warmup)

    def autocast(self) -> torch.autocast:
        """A context that computes in the run's precision."""
        enabled = self.precision == "bf16"
        return torch.autocast(self.spec.device.type, torch.bfloat16, enabled=enabled)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Mean losses over the validation samples, with averaged weights; empty without samples."""
        count = self.batches.validation_count
        if count == 0:
            return {}
        sums: dict[str, float] = {}
        self.stage.eval()
        with self.state.averages.applied(), self.autocast():
            for batch in self.batches.validation():
                output = self.stage.validate(batch.to(self.spec.device))
                for name, values in {"loss": output.loss, **output.terms}.items():
                    sums[name] = sums.get(name, 0.0) + float(values.sum())
        self.stage.train()
        total = distributed.sum_by_name(sums)
        return {f"validation_{name}": value / count for name, value in total.items()}

    def snapshot(self, metrics: dict[str, float]) -> Snapshot | None:
        """Copy the state of this step for a checkpoint; None on all ranks but 0.

        A collective: every worker must call it.

        Args:
            metrics: of validation at this step.

        Raises:
            NonFiniteLossError: a loss since the last report is not finite.
        """
        learned = self.history.record_fields()
        if self.context.rank > 0:
            return None
        state = self.state.snapshot()
        record = Record(
            stage=self.spec.stage,
            step=self.step,
            recipe=config.to_json(self.spec.recipe),
            manifest_digest=self.spec.samples.manifest_digest,
            split=self.spec.samples.split,
            init=self._origin,
            metrics=metrics,
            precision=self.precision,
            versions={"torch": torch.__version__, "cuda": str(torch.version.cuda)},
            **learned,
        )
        return Snapshot(record=record, timings=self.history.timings(), tensors=state.tensors)

    def result(self) -> TrainResult:
        """How far training has come."""
        return TrainResult(
            step=self.step,
            seconds=self.history.elapsed_s(),
            goodput=self.history.goodput(),
            samples_per_s=self.step * self.batches.size / self.history.trained_s(),
            precision=self.precision,
        )

    def _resume(self, folder: Path) -> Record:
        """Continue from a checkpoint of this run.

        Raises:
            ValueError: the run was started with different settings, shards or precision, or from
                another checkpoint.
        """
        spec, record = self.spec, checkpoint.read_record(folder)
        check_same_run(record, spec.recipe, spec.samples, spec.stage)
        check_same_precision(record, self.precision)
        if self._origin is not None:
            check_same_init(record, self._origin.model_sha256)
        self.state.load(folder)
        self.step = record.step
        log.info("stage %d resumes at step %d", spec.stage, self.step)
        return record

    def _clock(self) -> Clock:
        """Operations are counted only where the device's peak is known, to be compared with it."""
        peak = peak_flops(self.spec.device, self.precision)
        if peak is None:
            return Clock(0.0, None)
        return Clock(flops_per_sample(self.stage, self.batches.example()), peak)


def _timings(folder: Path | None, started_unix_s: float | None) -> Timings:
    """Those of the checkpoint that is resumed, if any, since the stage was first started."""
    earlier = None if folder is None else read_timings(folder)
    timings = earlier or Timings(begun_unix_s=time.time())
    if started_unix_s is None:
        return timings
    return dataclasses.replace(timings, begun_unix_s=started_unix_s)
