"""``aiaic train``: trains one stage or all three, in this process or on Ray; resumes a run."""

import contextlib
from collections.abc import Generator

from aiaic import config, recipes
from data_prep import storage
from workflows.artifacts import run_folder
from workflows.artifacts.run_folder import StageResult
from workflows.artifacts.samples import open_samples
from workflows.cluster.worker_range import Workers
from workflows.options import Outcome, Train, flat
from workflows.tracking.tracker import UNTRACKED, open_tracker, run_parameters
from workflows.training import local, signals
from workflows.training.job import Job, check_job, read_results
from workflows.training.progress import Bars

_GPU = {"auto": None, "yes": True, "no": False}


def run(options: Train) -> Outcome:
    """Carry out the command."""
    job = Job(
        stages=run_folder.STAGES if options.stage == "all" else (int(options.stage),),
        recipe=recipes.load(options.recipe, options.config, flat(options.overrides)),
        shards=storage.absolute(options.shards),
        split=options.split,
        out=storage.absolute(options.out),
        init=options.init and storage.absolute(options.init),
        profile=options.profile,
    )
    finished = train(job, Workers.parse(options.workers), _GPU[options.gpu], options.tracking_uri)
    values = {
        "out": options.out,
        "recipe": job.recipe.name,
        "stages": {str(stage.stage): config.to_json(stage) for stage in finished},
    }
    return Outcome(values=values, text="\n".join(_line(stage, options.out) for stage in finished))


def train(
    job: Job, workers: Workers, gpu: bool | None = None, tracking_uri: str | None = UNTRACKED
) -> list[StageResult]:
    """Train the stages of a job; started ones resume, finished ones are left as they are.

    Args:
        job: what to train, with places that mean the same on every machine.
        workers: workers of Ray Train; 0: this process.
        gpu: a GPU for each worker of Ray Train; None: if the cluster has that many.
        tracking_uri: MLflow; None: ``mlflow.db`` in this folder.

    Raises:
        ValueError, OSError: something for a user to fix, found before anything is written.
        StoppedError: SIGTERM or Ctrl-C was received, and a checkpoint was saved.
    """
    samples = open_samples(job.shards, job.split)
    check_job(job, samples, range(max(1, workers.least), max(1, workers.most) + 1))
    tracker = open_tracker(tracking_uri, job.out)
    if (results := read_results(job)) is not None:
        with tracker.log_run(run_parameters(job)):
            tracker.log_results(results)
        return results
    with (
        _ray(workers, gpu),  # before our signal handlers, since it installs its own
        run_folder.exclusive_lock(job.out),
        signals.graceful_shutdown() as stop,
        tracker.log_run(run_parameters(job)),
        Bars() as bars,
    ):
        if workers.most == 0:
            results = local.fit(job, samples, bars.show, tracker.log_checkpoint, stop)
        else:
            from workflows.cluster import train_driver  # noqa: PLC0415 (one process needs no Ray)

            results = train_driver.fit(job, workers, gpu, bars.show, tracker.log_checkpoint, stop)
        tracker.log_results(results)
    return results


@contextlib.contextmanager
def _ray(workers: Workers, gpu: bool | None) -> Generator[None, None, None]:
    """Connect to a cluster if there are workers to run on it."""
    if workers.most == 0:
        yield
        return
    from workflows.cluster import session  # noqa: PLC0415 (one process needs no Ray)

    with session.connected(cpus=workers.most):
        if gpu:
            session.check_gpus(workers)
        yield


def _line(stage: StageResult, out: str) -> str:
    folder = storage.join(run_folder.stage_place(out, stage.stage), stage.best)
    loss = stage.metrics.get("validation_loss")
    measured = "not validated" if loss is None else f"validation loss {loss:.5f}"
    return f"stage {stage.stage}: {stage.steps} steps, {stage.seconds:.1f} s, {measured}, {folder}"
