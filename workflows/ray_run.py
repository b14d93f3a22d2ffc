"""The training loop's port to Ray Train, and the trainer that runs it on any number of workers.

One run of Ray Train carries all stages of a job, since its start costs more than a small stage.
A checkpoint is committed to the run's folder before Ray hears of it, and restarts read that folder:
it is the truth, as for a run in one process, and either port may go on with the other's work.
"""

import contextlib
import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import ray.train
import ray.train.collective
import ray.train.torch
from ray.experimental import internal_kv
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.v2.api.config import LoggingConfig
from ray.train.v2.api.exceptions import WorkerGroupError

from aiaic import checkpoint, config, stores
from aiaic.saving import Saver
from aiaic.stores import Fill
from data_prep import storage
from workflows import batches, chain, checkpoints, cluster
from workflows.chain import Job, Stage
from workflows.checkpoints import Finished, PlaceStore
from workflows.local_run import Committed, Progress

log = logging.getLogger(__name__)

_RAYS_OWN_RECORD = "checkpoint_manager_snapshot.json"
_JOB = "job.json"
_RESTARTS = 3
_NEWS = "news"
_LOOK_EVERY_S = 0.5


class RayRun:
    """The run of one worker of Ray Train."""

    def __init__(self, stage: Stage, news: "News", keep: int) -> None:
        context = ray.train.get_context()
        self.rank = context.get_world_rank()
        self.world_size = context.get_world_size()
        self._stage = stage
        self._news = news
        self._store = PlaceStore(stage.place)
        self._saver = Saver(self._store, keep, self._committed)

    def progress(self, step: int, metrics: dict[str, float]) -> None:
        if self.rank == 0:
            stage = self._stage
            self._news.tell(stage=stage.number, step=step, steps=stage.steps, loss=metrics["loss"])

    def save(self, step: int, metrics: dict[str, float], write: Fill) -> None:
        if self.rank == 0:
            self._saver.save(checkpoint.step_name(step), write)
        ray.train.report({name: float(value) for name, value in metrics.items()} | {"step": step})

    def settle(self, *, patient: bool = True) -> None:
        self._saver.settle(patient=patient)

    def restore(self) -> Path | None:
        newest = stores.newest_whole(self._store) if self.rank == 0 else None
        newest = ray.train.collective.broadcast_from_rank_zero(newest)
        return None if newest is None else self._store.fetch(newest)

    def stop_requested(self) -> bool:
        return False

    def _committed(self, name: str) -> None:
        self._news.tell(committed=self._store.place(name))


class News:
    """Rank 0's latest progress and commit, for the driver to read; through Ray's own store."""

    def __init__(self, run: str) -> None:
        self._key = f"aiaic/{run}/{_NEWS}"
        self._latest: dict[str, Any] = {}

    def tell(self, **values: Any) -> None:
        """Add to what is told already."""
        self._latest |= values
        internal_kv._internal_kv_put(self._key, json.dumps(self._latest).encode(), overwrite=True)

    def read(self) -> dict[str, Any]:
        """The latest; empty where there is none."""
        content = internal_kv._internal_kv_get(self._key)
        return json.loads(content) if content else {}

    @contextlib.contextmanager
    def shown(self, progress: Progress, committed: Committed) -> Iterator[None]:
        """Within the context the driver passes on what rank 0 tells."""
        over = threading.Event()
        known: dict[str, Any] = {}

        def look() -> None:
            nonlocal known
            new = self.read()
            position = new.get("stage"), new.get("step")
            if "step" in new and position != (known.get("stage"), known.get("step")):
                progress(new["stage"], new["step"], new["steps"], new["loss"])
            if "committed" in new and new["committed"] != known.get("committed"):
                committed(new["committed"])
            known = new

        def keep_looking() -> None:
            while not over.wait(_LOOK_EVERY_S):
                look()

        thread = threading.Thread(target=keep_looking, name="news", daemon=True)
        self.tell()  # what a former command has left is no news
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            look()


def fit(
    job: Job, workers: int, gpu: bool | None, progress: Progress, committed: Committed
) -> list[Finished]:
    """Train the stages of a job with Ray Train, from their newest checkpoints.

    Args:
        job: what to train.
        workers: number of workers.
        gpu: a GPU for each worker; None: if the cluster has that many now.
        progress: called in this process.
        committed: likewise.

    Raises:
        ValueError: what the loop raises for a user's mistake.
        ChildProcessError: the workers failed more often than they are restarted.
    """
    _forget_rays_record(job.out)
    # Ray makes no folder of its own in a store where something lies already.
    content = json.dumps(config.to_json(job), indent=1, sort_keys=True)
    storage.write_bytes(storage.join(job.out, _JOB), content.encode())
    system, folder = storage.filesystem(checkpoints.storage_parent(job.out))
    trainer = ray.train.torch.TorchTrainer(
        _work,
        train_loop_config=config.to_json(job),
        scaling_config=ScalingConfig(
            num_workers=workers, use_gpu=cluster.gpus() >= workers if gpu is None else gpu
        ),
        run_config=RunConfig(
            name=storage.name_of(job.out),
            storage_path=folder,
            storage_filesystem=system,
            failure_config=FailureConfig(max_failures=_RESTARTS),
            checkpoint_config=CheckpointConfig(num_to_keep=None),  # the run's folder is pruned
            logging_config=LoggingConfig(log_level="WARNING"),
        ),
    )
    if cluster.cpus() < workers:
        log.warning("the cluster has %d CPUs now: Ray waits until it has more", cluster.cpus())
    log.info("Ray Train starts %d worker%s", workers, "s" if workers > 1 else "")
    try:
        with News(job.out).shown(progress, committed):
            returned = trainer.fit().return_value
    except WorkerGroupError as error:
        raise _cause(error) from error
    return cast(list[Finished], returned)


def _work(values: dict[str, Any]) -> list[Finished]:
    """What each worker does; rank 0's result is what Ray hands back."""
    job = config.from_json(Job, values)
    news = News(job.out)

    @contextlib.contextmanager
    def open_run(stage: Stage) -> Iterator[RayRun]:
        yield RayRun(stage, news, job.recipe.training.keep)
        ray.train.collective.barrier()

    samples = batches.open_samples(job.shards, job.split)
    return chain.train_stages(job, samples, open_run, ray.train.torch.get_device())


def _forget_rays_record(run: str) -> None:
    """Delete Ray's list of checkpoints of former commands.

    It names some that were pruned since, which Ray would refuse to start with.
    """
    storage.delete(storage.join(run, _RAYS_OWN_RECORD))


def _cause(error: WorkerGroupError) -> Exception:
    """What the first worker raised, if a user can mend it, or else that workers died."""
    rank, failure = min(error.worker_failures.items(), key=lambda item: item[0])
    raised = getattr(failure, "_base_exc", failure)
    if isinstance(raised, ValueError | OSError):
        return raised
    return ChildProcessError(
        f"training failed on worker {rank} after {_RESTARTS} restarts; the same command resumes "
        f"from the last checkpoint: {failure}"
    )
