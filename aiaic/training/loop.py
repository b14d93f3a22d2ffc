"""The loop: the same for every stage and for whatever runs it."""

import contextlib
import dataclasses
import itertools
import logging
import math
import time
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Literal

import torch
import torch.distributed as dist
from torch import nn

from aiaic import config
from aiaic import distributed as gather
from aiaic.checkpointing import checkpoint
from aiaic.checkpointing.checkpoint import Record, Snapshot, Timings
from aiaic.loading import prefetch, sampler
from aiaic.loading.batch import Batch, mirrored
from aiaic.loading.loader import Loader, Samples
from aiaic.loading.sampler import SampleRef
from aiaic.networks import model as networks
from aiaic.networks import pretrained
from aiaic.networks.pretrained import ReadWeights
from aiaic.stages.base import StageOutput
from aiaic.training import build_stage as stages
from aiaic.training.acceleration import accelerate, distributed, unexchanged
from aiaic.training.context import TrainContext
from aiaic.training.history import Journal
from aiaic.training.meter import NonFiniteLossError
from aiaic.training.optim import learning_rate, resolve_precision
from aiaic.training.profiling import traced
from aiaic.training.recipe import Recipe
from aiaic.training.resume import Init, check_same_init, check_same_run, check_sound, load_init
from aiaic.training.state import Learner
from aiaic.training.throughput import Clock, flops_per_sample, peak_flops

log = logging.getLogger(__name__)

_SOUNDS_HEARD_FIRST = 512


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """What a stage came to."""

    step: int
    """Steps that were taken in all; fewer than the stage has where the run was told to leave."""
    seconds: float
    """Time since the stage was begun for the first time, whatever happened since."""
    goodput: float
    """Share of that time that went into the steps that stand."""
    samples_per_s: float
    """Training samples of all workers per second of these steps, validation included."""
    precision: str


def train(
    *,
    stage: int,
    recipe: Recipe,
    samples: Samples,
    run: TrainContext,
    init: Init | None,
    device: torch.device,
    read_weights: ReadWeights = pretrained.read,
    profile: Path | None = None,
    begun_unix_s: float | None = None,
) -> Result:
    """Train one stage to its end, from its newest checkpoint where there is one.

    Args:
        stage: 1, 2 or 3.
        recipe: the whole configuration.
        samples: what to train on; stage 2 uses those with sound alone.
        run: what runs the loop; several workers need an initialized process group.
        init: checkpoint of the stage before; needed by stages 2 and 3, refused by stage 1.
        device: where to compute.
        read_weights: gives the pretrained weights that the recipe names, at the start of a run.
        profile: local folder for a trace of a few steps.
        begun_unix_s: when the stage was begun for the first time; None: now.

    Raises:
        ValueError: ``init`` is missing, of another stage, or of another architecture; the run was
            begun with another recipe, other shards or from another checkpoint; there are no
            samples.
        NonFiniteLossError: a loss is not finite.
        OSError: the last checkpoint could not be stored; the GPU's memory does not hold a step.
    """
    torch.set_num_threads(recipe.training.threads)
    try:
        trainer = Trainer(stage, recipe, samples, run, init, device, read_weights, begun_unix_s)
        result = trainer.fit(profile)
    except BaseException as error:
        with contextlib.suppress(Exception):  # what has gone wrong first is told
            run.flush(retry=False)
        if isinstance(error, torch.OutOfMemoryError):
            raise OSError(  # which may pass: somebody else's memory, or a dying worker's
                "the GPU's memory does not hold a step: raise training.accumulate, which cuts it "
                "into parts, or lower sampling.batch_size; a run that has checkpoints already is "
                "to do so from this stage on, by --stage, or in another output folder"
            ) from error
        raise
    run.flush()
    return result


class Trainer:
    """One stage in training: weights, averages, optimizer and position."""

    def __init__(
        self,
        stage: int,
        recipe: Recipe,
        samples: Samples,
        run: TrainContext,
        init: Init | None,
        device: torch.device,
        read_weights: ReadWeights = pretrained.read,
        begun_unix_s: float | None = None,
    ) -> None:
        self.number, self.recipe, self.samples, self.run = stage, recipe, samples, run
        self.device = device
        self.settings = (recipe.stage1, recipe.stage2, recipe.stage3)[stage - 1]
        check_sound(stage, recipe, samples)
        self.precision = resolve_precision(recipe.training.precision, device)
        model = networks.build(recipe.model, recipe.sampling.seed)
        self.origin = load_init(model, stage, recipe, init)
        self.stage = stages.build(stage, model, recipe).to(device)
        accelerate(self.stage, recipe.training, device, precision=self.precision)
        self.learner = Learner(self.stage, recipe.training)
        eligible = len(self._with_sound(samples.train))
        accumulate = recipe.training.accumulate
        self.batch_size = sampler.check(eligible, recipe.sampling, run.world_size, accumulate)
        self.step = 0
        record: Record | None = None
        timings = Timings(begun_unix_s=time.time() if begun_unix_s is None else begun_unix_s)
        if (folder := run.restore()) is not None:
            record = self._go_on_from(folder)
            earlier = checkpoint.read_timings(folder) or timings
            timings = dataclasses.replace(earlier, begun_unix_s=timings.begun_unix_s)
        else:
            if self.origin is None:
                networks.load_pretrained(model, read_weights)
                self.learner = Learner(self.stage, recipe.training)
            self.stage.listen(self._first_sounds())
        self.journal = Journal(run, device, self._clock(), timings, record)

    def fit(self, profile: Path | None = None) -> Result:
        """Train to the last step, or until the run is told to leave.

        The last checkpoint may still be under way then.
        """
        with contextlib.ExitStack() as stack:
            batches = stack.enter_context(contextlib.closing(self._batches()))
            tracer = profile and stack.enter_context(traced(profile, self.run.rank))
            module = distributed(self.stage)
            clock, stop = self.journal.clock, False
            while self.step < self.settings.steps and not stop:
                with clock.spent("waiting"):
                    parts = [next(batches) for _ in range(self.recipe.training.accumulate)]
                with clock.spent("computing"):
                    train_step(self, module, parts)
                self.step += 1
                if self._due("report_every") or self._due("validate_every"):
                    point = self.journal.report(self.step, self.rate(self.step - 1))
                    self.run.report_progress(self.step, point)
                stop = self._told_to_stop()
                if stop or self._due("save_every") or self._due("validate_every"):
                    self._save(validate=self._due("validate_every"))
                if tracer:
                    tracer.step()
        return Result(
            step=self.step,
            seconds=self.journal.elapsed_s(),
            goodput=self.journal.goodput(),
            samples_per_s=self.step * self.batch_size / self.journal.trained_s(),
            precision=self.precision,
        )

    def _due(self, key: Literal["report_every", "validate_every", "save_every"]) -> bool:
        last = self.step == self.settings.steps
        return last or self.step % getattr(self.recipe.training, key) == 0

    def _told_to_stop(self) -> bool:
        """Whether any worker was told to leave; several agree on it when they report."""
        told = self.run.stop_requested()
        if self.run.world_size == 1:
            return told
        if not self._due("report_every"):
            return False
        flag = torch.tensor(float(told), device=self.device)
        dist.all_reduce(flag, dist.ReduceOp.MAX)
        return bool(flag)

    def _save(self, *, validate: bool) -> None:
        """Hand a checkpoint of this step to the run."""
        metrics = self.validate() if validate else {}
        if not all(math.isfinite(value) for value in metrics.values()):
            raise NonFiniteLossError(
                f"step {self.step}: validation gives {metrics}; the last checkpoint stands. Lower "
                f"stage{self.number}.learning_rate"
            )
        if metrics:
            self.journal.validated(metrics)
        with self.journal.clock.spent("saving"):
            snapshot = self.snapshot(metrics)
            if snapshot is not None:
                self.run.save(snapshot)

    def rate(self, step: int) -> float:
        """The learning rate of a step, from 0."""
        return learning_rate(
            step,
            self.settings.steps,
            self.settings.learning_rate,
            self.recipe.training.warmup_steps,
        )

    def autocast(self) -> torch.autocast:
        """bf16 where the precision says so."""
        enabled = self.precision == "bf16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Mean losses over the validation samples, with averaged weights; empty without samples.

        Batches are fixed, and dealt to the workers in turn: the result does not depend on how many
        there are.
        """
        chosen = self._with_sound(self.samples.validation)
        size = self.recipe.evaluated_at_once
        own = [
            sample
            for i in range(self.run.rank * size, len(chosen), self.run.world_size * size)
            for sample in chosen[i : i + size]
        ]
        if not chosen:
            return {}
        self.stage.eval()
        sums: dict[str, float] = {}
        with self.learner.averages.applied(), self.autocast():
            for batch in self._loader().evaluation(own, size):
                output = self.stage.validate(batch.to(self.device))
                for name, values in {"loss": output.loss, **output.terms}.items():
                    sums[name] = sums.get(name, 0.0) + float(values.sum())
        self.stage.train()
        return {f"validation_{n}": s / len(chosen) for n, s in _sum_over_workers(sums).items()}

    def snapshot(self, metrics: dict[str, float]) -> Snapshot | None:
        """Copy the state of this step for a checkpoint; None on all ranks but 0.

        A collective: every worker must call it.

        Raises:
            NonFiniteLossError: a loss since the last report is not finite.
        """
        entries = self.journal.entries()
        if self.run.rank > 0:
            return None
        copies = self.learner.copies()
        record = Record(
            stage=self.number,
            step=self.step,
            recipe=config.to_json(self.recipe),
            manifest_digest=self.samples.manifest_digest,
            split=self.samples.split,
            init=self.origin,
            metrics=metrics,
            precision=self.precision,
            versions=checkpoint.versions(),
            **entries,
        )
        return Snapshot(record=record, timings=self.journal.timings(), tensors=copies.tensors)

    def _go_on_from(self, folder: Path) -> Record:
        """Load a checkpoint of this run.

        Raises:
            ValueError: the run was begun with another recipe, other shards, in another precision,
                or from another checkpoint.
        """
        record = checkpoint.read_record(folder)
        check_same_run(record, self.recipe, self.samples, self.number)
        if self.origin is not None:
            check_same_init(record, self.origin.model_sha256)
        self.learner.load(folder)
        self._check_precision(record.precision)
        self.step = record.step
        log.info("stage %d goes on at step %d", self.number, self.step)
        return record

    def _check_precision(self, before: str) -> None:
        """Refuse to go on in another precision than ``auto`` has found before."""
        if before and before != self.precision:
            raise ValueError(
                f"this run was begun in {before}, and is {self.precision} on this machine: take "
                f"--set training.precision={before}, or another output folder"
            )

    def _first_sounds(self) -> Iterator[Batch]:
        """The same fixed sounds on every worker, spread evenly over the training samples."""
        heard = [sample for sample in self.samples.train if sample.sound is not None]
        every = max(1, len(heard) // _SOUNDS_HEARD_FIRST)
        return self._loader().evaluation(heard[::every], self.recipe.evaluated_at_once)

    def _batches(self) -> Generator[Batch, None, None]:
        chosen = self._with_sound(self.samples.train)
        sampling, run = self.recipe.sampling, self.run
        if self.batch_size < sampling.batch_size:
            log.warning(
                "%d samples are fewer than a batch of %d: each step takes them all",
                len(chosen),
                sampling.batch_size,
            )
        batches = self._loader().training(
            chosen, sampling, run.rank, run.world_size, self.step, self.recipe.training.accumulate
        )
        return prefetch.ahead(batches, self.device)

    def _with_sound(self, chosen: tuple[SampleRef, ...]) -> tuple[SampleRef, ...]:
        return tuple(s for s in chosen if s.sound is not None) if self.number == 2 else chosen

    def _loader(self) -> Loader:
        needs = stages.needs(self.number, self.recipe)
        return Loader(
            read=self.samples.read,
            view=self.recipe.view,
            audio=self.recipe.model.audio if needs.sound else None,
            augmentation=self.recipe.augmentation,
            other_frame=needs.other_frame,
            threads=self.recipe.training.decode_threads,
            pinned=self.device.type == "cuda",
        )

    def _clock(self) -> Clock:
        """Operations are counted where a device is known by which they could be judged."""
        peak = peak_flops(self.device, self.precision)
        if peak is None:
            return Clock(0.0, None)
        sample = next(self._loader().evaluation(self._with_sound(self.samples.train)[:1], 1))
        return Clock(flops_per_sample(self.stage, sample), peak)


def train_step(trainer: Trainer, module: nn.Module, parts: Sequence[Batch]) -> None:
    """One optimizer step over the micro-batches of a batch; nothing in it waits for the device."""
    trainer.learner.forget()
    for number, batch in enumerate(parts, start=1):
        with unexchanged(module) if number < len(parts) else contextlib.nullcontext():
            output = backward(trainer, module, batch, len(parts))
        trainer.journal.meter.add(trainer.step + 1, batch, output)
        trainer.journal.clock.count(len(batch))
    norm = trainer.learner.update(trainer.step, trainer.rate(trainer.step))
    keys = [key for batch in parts for key in batch.keys]
    trainer.journal.meter.watch(trainer.step + 1, "norm of the gradient", keys, norm)


def backward(trainer: Trainer, module: nn.Module, batch: Batch, parts: int) -> StageOutput:
    """Losses of a micro-batch, one of so many parts of a batch, and their gradient.

    What is differentiated is the sum over this worker's samples, times workers, over the size of
    the global micro-batch and the number of these; DDP takes the mean over workers. So workers
    weigh by their samples, and the gradient is that of the mean over the global batch.
    """
    with trainer.autocast():
        output: StageOutput = module(mirrored(batch, flip=trainer.recipe.view.flip))
    loss = output.loss.sum() * (trainer.run.world_size / (batch.global_size * parts))
    loss.backward()
    return output


def _sum_over_workers(sums: dict[str, float]) -> dict[str, float]:
    if gather.world_size() == 1:
        return sums
    parts: list[dict[str, float]] = [{} for _ in range(gather.world_size())]
    dist.all_gather_object(parts, sums)
    names = dict.fromkeys(itertools.chain.from_iterable(parts))
    return {name: sum(part.get(name, 0.0) for part in parts) for name in names}
