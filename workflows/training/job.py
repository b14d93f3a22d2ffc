"""Stages one after the other, each from the best checkpoint of the one before.

The same code runs in this process and in every worker of Ray Train; what differs is the port
through which the loop talks, :class:`aiaic.training.context.Run`.
"""

import contextlib
import dataclasses
import logging
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch

from aiaic.checkpointing import checkpoint
from aiaic.checkpointing import store as stores
from aiaic.checkpointing.checkpoint import DamagedError
from aiaic.loading import sampler
from aiaic.loading.loader import Samples
from aiaic.training import loop, resume
from aiaic.training.context import Run
from aiaic.training.recipe import Recipe
from data_prep import storage
from workflows.artifacts import pretrained_weights, run_folder, scratch
from workflows.artifacts.run_folder import Finished, PlaceStore
from workflows.training.signals import StoppedError

log = logging.getLogger(__name__)

OpenRun = Callable[["Stage"], contextlib.AbstractContextManager[Run]]
"""The port of one stage; leaving it waits for all workers."""


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
    """Checkpoint, or run, that the first stage starts from; None: the run's own stage before."""
    profile: bool = False
    """Whether each stage leaves a trace of a few steps, as ``RUN/stageN/profile``."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of a job."""

    number: int
    place: str
    """Its folder, ``RUN/stageN``."""
    steps: int
    """Optimizer steps in all."""


def check(job: Job, samples: Samples, workers: Iterable[int]) -> None:
    """Refuse what could not be trained or continued, before anything starts.

    Args:
        job: what to train.
        samples: on what.
        workers: numbers of workers, each of which may come to train; 1: this process.

    Raises:
        ValueError: the initial checkpoint does not fit, a stage was begun otherwise, there are no
            samples, or too many workers for them, or the run has no folder of its own.
        FileNotFoundError: there is no initial checkpoint.
    """
    run_folder.check_place(job.out)
    for number in job.stages:
        usable = [ref for ref in samples.train if number != 2 or ref.sound is not None]
        if not usable:
            raise ValueError(f"split '{job.split}' has no clips with sound for stage 2")
        resume.check_sound(number, job.recipe, samples)
        for count in workers:
            sampler.check(len(usable), job.recipe.sampling, count, job.recipe.training.accumulate)
    for number in job.stages:
        record = _begun(run_folder.stage_place(job.out, number))
        if record is not None:
            resume.check_same_run(record, job.recipe, samples, number)
        elif resume.from_scratch(number, job.recipe):
            _check_weights(job.recipe)
        init = _known_init(job, number)
        if init is not None:
            _check_init(job, number, init, record)


def finished(job: Job) -> list[Finished] | None:
    """What was trained, if all of it is; says so."""
    known = [run_folder.read_finished(describe(job, number).place) for number in job.stages]
    done = [stage for stage in known if stage is not None]
    if len(done) < len(known):
        return None
    for stage in done:
        log.info("stage %d is finished already", stage.stage)
    return done


def train_stages(
    job: Job, samples: Samples, open_run: OpenRun, device: torch.device
) -> list[Finished]:
    """Train the stages of a job; finished ones are left as they are.

    Raises:
        StoppedError: the run was told to leave.
        others: as :func:`aiaic.training.loop.train`.
    """
    return [_train_stage(job, number, samples, open_run, device) for number in job.stages]


def init_place(job: Job, number: int) -> str | None:
    """The exact checkpoint that a stage starts from.

    Raises:
        FileNotFoundError: it is not there.
    """
    if job.init is not None and number == job.stages[0]:
        before = run_folder.stage_place(job.init, number - 1)
        return run_folder.resolve(before if run_folder.read_finished(before) else job.init)
    if resume.from_scratch(number, job.recipe):
        return None
    before = run_folder.stage_place(job.out, number - 1)
    if run_folder.read_finished(before) is None:
        raise FileNotFoundError(
            f"stage {number} starts from a finished stage {number - 1}, and '{before}' is none: "
            f"train stage {number - 1} first, or name a checkpoint of it by --init"
        )
    return run_folder.resolve(before)


def describe(job: Job, number: int) -> Stage:
    """A stage's folder and length."""
    settings = (job.recipe.stage1, job.recipe.stage2, job.recipe.stage3)[number - 1]
    return Stage(number=number, place=run_folder.stage_place(job.out, number), steps=settings.steps)


def _train_stage(
    job: Job, number: int, samples: Samples, open_run: OpenRun, device: torch.device
) -> Finished:
    stage = describe(job, number)
    finished = run_folder.read_finished(stage.place)
    if finished is not None:
        log.info("stage %d is finished already: '%s'", number, stage.place)
        return finished
    begun = run_folder.begun_unix_s(stage.place)
    start = init_place(job, number)
    init = start and loop.Init(folder=run_folder.fetch(start), place=start)
    with open_run(stage) as run, _traces(stage, wanted=job.profile) as traces:
        result = loop.train(
            stage=number,
            recipe=job.recipe,
            samples=samples,
            run=run,
            init=init or None,
            device=device,
            read_weights=pretrained_weights.read,
            profile=traces,
            begun_unix_s=begun,
        )
        if result.step < stage.steps:
            raise StoppedError(number, result.step)
        if run.rank == 0:
            _finish(stage, result)
    finished = run_folder.read_finished(stage.place)
    assert finished is not None, "rank 0 has written it"
    return finished


@contextlib.contextmanager
def _traces(stage: Stage, *, wanted: bool) -> Iterator[Path | None]:
    """A local folder for traces, which go to the stage's folder at the end."""
    if not wanted:
        yield None
        return
    with tempfile.TemporaryDirectory(dir=scratch.folder()) as folder:
        place = storage.join(stage.place, "profile")
        try:
            yield Path(folder)
        except BaseException:
            with contextlib.suppress(OSError):  # what has gone wrong first is told
                storage.upload_folder(Path(folder), place)
            raise
        storage.upload_folder(Path(folder), place)


def _finish(stage: Stage, result: loop.Result) -> None:
    store = PlaceStore(stage.place)
    best = stores.best_whole(store)  # the others go, and the next stage begins from it
    run_folder.finish(
        stage.place,
        Finished(
            stage=stage.number,
            final=checkpoint.step_name(result.step),
            best=best,
            steps=result.step,
            seconds=result.seconds,
            metrics=store.record(best).metrics,
            precision=result.precision,
            samples_per_s=result.samples_per_s,
            goodput=result.goodput,
        ),
    )


def _begun(stage: str) -> checkpoint.Record | None:
    """What the newest checkpoint of a stage tells whose record can be read."""
    for place in reversed(run_folder.steps(stage)):
        with contextlib.suppress(DamagedError):  # told when the stage goes on
            return run_folder.read_record(place)
    return None


def _known_init(job: Job, number: int) -> str | None:
    """What a stage starts from; None too where the job has yet to train it, or is through."""
    if number != job.stages[0]:
        before, own = (run_folder.stage_place(job.out, n) for n in (number - 1, number))
        if run_folder.read_finished(before) is None or run_folder.read_finished(own) is not None:
            return None
    return init_place(job, number)


def _check_weights(recipe: Recipe) -> None:
    model = recipe.model
    for name in (model.backbone.weights, model.scene.weights, model.sound.weights):
        if name is not None:
            pretrained_weights.check(name)


def _check_init(job: Job, number: int, init: str, begun: checkpoint.Record | None) -> None:
    record = run_folder.read_record(init)
    resume.check_init(record, number, job.recipe, init)
    if begun is not None:
        resume.check_same_init(begun, record.files[checkpoint.MODEL])
