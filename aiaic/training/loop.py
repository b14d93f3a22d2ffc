"""The training loop: the same for every stage, on one worker or many, under Ray or on its own."""

import contextlib
import math
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from aiaic.loading.batch import Batch, mirrored
from aiaic.stages.base import StageOutput
from aiaic.training.acceleration import data_parallel, no_sync
from aiaic.training.context import TrainContext
from aiaic.training.meter import NonFiniteLossError
from aiaic.training.profiling import traced
from aiaic.training.spec import StageSpec
from aiaic.training.trainer import Trainer, TrainResult


def train(spec: StageSpec, context: TrainContext, profile: Path | None = None) -> TrainResult:
    """Train one stage to its end, from its newest checkpoint if it has one.

    Args:
        spec: what to train.
        context: checkpoints, progress and stop requests; with several workers, the process group
            must be initialized.
        profile: local folder for a trace of a few steps.

    Raises:
        ValueError: the initial checkpoint is missing, or of another stage or architecture; the
            stage was started with different settings, shards or from another checkpoint; there
            are no samples.
        NonFiniteLossError: a loss is not finite.
        OSError: the last checkpoint could not be stored; a step does not fit the GPU's memory.
    """
    torch.set_num_threads(spec.recipe.training.threads)
    try:
        result = fit(Trainer(spec, context), profile)
    except BaseException as error:
        with contextlib.suppress(Exception):  # the first error is the one to report
            context.flush(retry=False)
        if isinstance(error, torch.OutOfMemoryError):
            raise OSError(  # so that it is retried: another process may have taken the memory
                "a training step does not fit the GPU's memory: raise training.accumulate, which "
                "splits the batch, or lower sampling.batch_size (a run with finished stages takes "
                "new settings for its next stage by --stage, or in another output folder)"
            ) from error
        raise
    context.flush()
    return result


def fit(trainer: Trainer, profile: Path | None = None) -> TrainResult:
    """Train to the last step or until a stop is requested; the last checkpoint may be in flight."""
    with contextlib.ExitStack() as stack:
        batches = stack.enter_context(contextlib.closing(trainer.batches.training(trainer.step)))
        profiler = profile and stack.enter_context(traced(profile, trainer.context.rank))
        model = data_parallel(trainer.stage)
        clock, stop = trainer.history.clock, False
        while not trainer.finished and not stop:
            with clock.measure("waiting"):
                parts = [next(batches) for _ in range(trainer.spec.recipe.training.accumulate)]
            with clock.measure("computing"):
                train_step(trainer, model, parts)
            trainer.step += 1
            if trainer.due("report_every") or trainer.due("validate_every"):
                report(trainer)
            stop = stop_requested(trainer)
            if stop or trainer.due("save_every") or trainer.due("validate_every"):
                save(trainer, validate=trainer.due("validate_every"))
            if profiler:
                profiler.step()
    return trainer.result()


def train_step(trainer: Trainer, model: nn.Module, parts: Sequence[Batch]) -> None:
    """One optimizer step over the micro-batches of a batch; never waits for the device."""
    state, history, step = trainer.state, trainer.history, trainer.step
    state.zero_grad()
    for number, batch in enumerate(parts, start=1):
        with no_sync(model) if number < len(parts) else contextlib.nullcontext():
            output = backward(trainer, model, batch, len(parts))
        history.meter.add(step + 1, batch, output)
        history.clock.count(len(batch))
    gradient_norm = state.step(step, trainer.learning_rate(step))
    keys = [key for batch in parts for key in batch.keys]
    history.meter.watch(step + 1, "gradient norm", keys, gradient_norm)


def backward(trainer: Trainer, model: nn.Module, batch: Batch, parts: int) -> StageOutput:
    """Losses and gradients of one of ``parts`` micro-batches.

    The loss is the sum over this worker's samples, times the number of workers, over the size of
    the global micro-batch and the number of micro-batches; DDP averages over workers. So each
    worker weighs by its samples, and the gradient is that of the mean over the global batch.
    """
    with trainer.autocast():
        output: StageOutput = model(mirrored(batch, flip=trainer.spec.recipe.view.flip))
    loss = output.loss.sum() * (trainer.context.world_size / (batch.global_size * parts))
    loss.backward()
    return output


def report(trainer: Trainer) -> None:
    """Add a point to the curves and show it."""
    point = trainer.history.add_point(trainer.step, trainer.learning_rate(trainer.step - 1))
    trainer.context.report_progress(trainer.step, point)


def save(trainer: Trainer, *, validate: bool) -> None:
    """Hand a checkpoint of this step to the context, which writes it in the background.

    Raises:
        NonFiniteLossError: a training or validation loss is not finite; nothing is saved.
    """
    metrics = trainer.validate() if validate else {}
    if not all(math.isfinite(value) for value in metrics.values()):
        raise NonFiniteLossError(
            f"step {trainer.step}: validation gives {metrics}; the last checkpoint is intact. "
            f"Lower stage{trainer.spec.stage}.learning_rate"
        )
    if metrics:
        trainer.history.add_validation(metrics)
    with trainer.history.clock.measure("saving"):
        snapshot = trainer.snapshot(metrics)
        if snapshot is not None:
            trainer.context.save(snapshot)


def stop_requested(trainer: Trainer) -> bool:
    """Whether any worker was asked to stop; several workers agree on it at each report."""
    requested = trainer.context.stop_requested()
    if trainer.context.world_size == 1:
        return requested
    if not trainer.due("report_every"):
        return False
    flag = torch.tensor(float(requested), device=trainer.spec.device)
    dist.all_reduce(flag, dist.ReduceOp.MAX)
    return bool(flag)
