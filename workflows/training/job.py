"""A job: stages trained one after the other, each from the best checkpoint of the one before.

The same code runs in this process and in every worker of Ray Train; only the loop's
:class:`aiaic.training.context.TrainContext` differs.
"""

import contextlib
import dataclasses
import logging
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch

from aiaic.checkpointing import checkpoint, store
from aiaic.checkpointing.checkpoint import DamagedError
from aiaic.loading import sampler
from aiaic.loading.loader import Samples
from aiaic.training import build_stage, loop, resume
from aiaic.training.context import TrainContext
from aiaic.training.recipe import Recipe
from aiaic.training.spec import StageSpec
from aiaic.training.trainer import TrainResult
from data_prep import storage
from workflows.artifacts import pretrained_weights, run_folder, scratch
from workflows.artifacts.run_folder import PlaceStore, StageResult
from workflows.training.signals import StoppedError

log = logging.getLogger(__name__)

OnProgress = Callable[[int, int, int, float], None]
"""Called with (stage, step, steps in all, loss)."""
OpenContext = Callable[["Stage"], contextlib.AbstractContextManager[TrainContext]]
"""Opens the loop's context for one stage; leaving it waits for all workers."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What to train: all that a worker on another machine needs to know, as plain values."""

    stages: tuple[int, ...]
    """Which stages, in order."""
    recipe: Recipe
    shards: str
    """Place of the shards."""
    split: str
    out: str
    """The run's folder."""
    init: str | None = None
    """Checkpoint, or run, that the first stage starts from; None: the run's own previous stage."""
    profile: bool = False
    """Whether each stage records a trace of a few steps, as ``RUN/stageN/profile``."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of a job."""

    number: int
    place: str
    """Its folder, ``RUN/stageN``."""
    steps: int
    """Optimizer steps in all."""


def stage_of(job: Job, number: int) -> Stage:
    """A stage's folder and length."""
    steps = job.recipe.stage_config(number).steps
    return Stage(number=number, place=run_folder.stage_place(job.out, number), steps=steps)


def check_job(job: Job, samples: Samples, workers: Iterable[int]) -> None:
    """Refuse a job that cannot be trained or resumed, before anything starts.

    Args:
        job: what to train.
        samples: what to train on.
        workers: all numbers of workers that may come to train; 1: this process.

    Raises:
        ValueError: the initial checkpoint does not fit, a stage was started with different
            settings, there are no samples or too many workers for them, or the run's folder is a
            whole bucket.
        FileNotFoundError: there is no initial checkpoint.
    """
    run_folder.check_place(job.out)
    for number in job.stages:
        needs = build_stage.needs(number, job.recipe)
        usable = needs.usable(samples.train)
        if needs.sound and not any(sample.sound for sample in samples.train):
            raise ValueError(
                f"split '{job.split}' has no clips with sound, from which stage {number} learns: "
                "build shards from clips with sound"
            )
        resume.check_sound(number, job.recipe, samples)
        for count in workers:
            sampler.check(len(usable), job.recipe.sampling, count, job.recipe.training.accumulate)
    for number in job.stages:
        record = _newest_record(run_folder.stage_place(job.out, number))
        if record is not None:
            resume.check_same_run(record, job.recipe, samples, number)
        elif resume.from_scratch(number, job.recipe):
            _check_weights(job.recipe)
        init = _known_init(job, number)
        if init is not None:
            _check_init(job, number, init, record)


def read_results(job: Job) -> list[StageResult] | None:
    """The results of a job whose stages are all finished, which is logged; otherwise None."""
    known = [run_folder.read_result(stage_of(job, number).place) for number in job.stages]
    results = [result for result in known if result is not None]
    if len(results) < len(known):
        return None
    for result in results:
        log.info("stage %d is already finished", result.stage)
    return results


def train_stages(
    job: Job, samples: Samples, open_context: OpenContext, device: torch.device
) -> list[StageResult]:
    """Train the stages of a job; finished ones are left unchanged.

    Raises:
        StoppedError: a stop was requested.
        others: as :func:`aiaic.training.loop.train`.
    """
    return [_train_stage(job, number, samples, open_context, device) for number in job.stages]


def init_place(job: Job, number: int) -> str | None:
    """The checkpoint that a stage starts from; None if it starts from scratch.

    Raises:
        FileNotFoundError: it does not exist.
    """
    if job.init is not None and number == job.stages[0]:
        before = run_folder.stage_place(job.init, number - 1)
        return run_folder.resolve(before if run_folder.read_result(before) else job.init)
    if resume.from_scratch(number, job.recipe):
        return None
    before = run_folder.stage_place(job.out, number - 1)
    if run_folder.read_result(before) is None:
        raise FileNotFoundError(
            f"stage {number} starts from a finished stage {number - 1}, and '{before}' is not one: "
            f"train stage {number - 1} first, or pass a checkpoint of it by --init"
        )
    return run_folder.resolve(before)


def _train_stage(
    job: Job, number: int, samples: Samples, open_context: OpenContext, device: torch.device
) -> StageResult:
    stage = stage_of(job, number)
    result = run_folder.read_result(stage.place)
    if result is not None:
        log.info("stage %d is already finished: '%s'", number, stage.place)
        return result
    started_unix_s = run_folder.started_unix_s(stage.place)
    start = init_place(job, number)
    spec = StageSpec(
        stage=number,
        recipe=job.recipe,
        samples=samples,
        init=None if start is None else resume.Init(folder=run_folder.fetch(start), place=start),
        device=device,
        read_weights=pretrained_weights.read,
        started_unix_s=started_unix_s,
    )
    with open_context(stage) as context, _traces(stage, wanted=job.profile) as traces:
        trained = loop.train(spec, context, traces)
        if trained.step < stage.steps:
            raise StoppedError(number, trained.step)
        if context.rank == 0:
            _finish(stage, trained)
    result = run_folder.read_result(stage.place)
    assert result is not None, "rank 0 has written it"
    return result


@contextlib.contextmanager
def _traces(stage: Stage, *, wanted: bool) -> Iterator[Path | None]:
    """A local folder for traces, which are moved to the stage's folder at the end."""
    if not wanted:
        yield None
        return
    with tempfile.TemporaryDirectory(dir=scratch.folder()) as folder:
        place = storage.join(stage.place, "profile")
        try:
            yield Path(folder)
        except BaseException:
            with contextlib.suppress(OSError):  # the first error is the one to report
                storage.upload_folder(Path(folder), place)
            raise
        storage.upload_folder(Path(folder), place)


def _finish(stage: Stage, trained: TrainResult) -> None:
    checkpoints = PlaceStore(stage.place)
    best = store.best_whole(checkpoints)  # only this and the last are kept
    run_folder.finish(
        stage.place,
        StageResult(
            stage=stage.number,
            final=checkpoint.step_name(trained.step),
            best=best,
            steps=trained.step,
            seconds=trained.seconds,
            metrics=checkpoints.record(best).metrics,
            precision=trained.precision,
            samples_per_s=trained.samples_per_s,
            goodput=trained.goodput,
        ),
    )


def _newest_record(stage: str) -> checkpoint.Record | None:
    """The newest readable record among a stage's checkpoints."""
    for place in reversed(run_folder.steps(stage)):
        with contextlib.suppress(DamagedError):  # reported when the stage resumes
            return run_folder.read_record(place)
    return None


def _known_init(job: Job, number: int) -> str | None:
    """What a stage starts from; None also if the job has yet to train that, or is past it."""
    if number != job.stages[0]:
        before, own = (run_folder.stage_place(job.out, n) for n in (number - 1, number))
        if run_folder.read_result(before) is None or run_folder.read_result(own) is not None:
            return None
    return init_place(job, number)


def _check_weights(recipe: Recipe) -> None:
    model = recipe.model
    for name in (model.backbone.weights, model.scene.weights, model.sound.weights):
        if name is not None:
            pretrained_weights.check(name)


def _check_init(job: Job, number: int, init: str, started: checkpoint.Record | None) -> None:
    record = run_folder.read_record(init)
    resume.check_init(record, number, job.recipe, init)
    if started is not None:
        resume.check_same_init(started, record.files[checkpoint.MODEL])
