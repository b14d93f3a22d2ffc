"""Runs the trials of a search on Ray Tune.

A trial is one process that trains stages 2 and 3 by the very loop of ``aiaic train``, in a folder
of its own, so an interrupted trial resumes like any run. Tune places trials on the cluster and
stops bad ones early. What is kept is our own record, :mod:`workflows.tuning.trials`: Tune's state
is kept in scratch space, deleted with the process, and never read again.
"""

import dataclasses
import logging
import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from ray import tune
from ray.tune import Callback, TuneConfig, Tuner
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search import Searcher
from tqdm import tqdm

from aiaic import config
from aiaic.checkpointing.async_saver import Commit
from aiaic.training.meter import NonFiniteLossError
from workflows.artifacts import scratch
from workflows.artifacts.samples import open_samples
from workflows.cluster import environment, ray_internals, session
from workflows.cluster.retry_policy import is_user_error
from workflows.training import local
from workflows.training.job import Job
from workflows.tuning import draws
from workflows.tuning.search import OBJECTIVE, Search, trial_recipe
from workflows.tuning.search_space import Space
from workflows.tuning.trial_queue import TrialQueue
from workflows.tuning.trials import Trial, TrialStore

log = logging.getLogger(__name__)

_TRIAL, _SETTINGS = "trial", "settings"
_FAILURE, _KIND = "failure", "failure_kind"
_FAILED, _LOST, _LOST_FOR_NOW = "failed", "lost", "lost for now"


def run_trials(
    search: Search, space: Space, job: Job, trials: list[Trial], concurrent: int | None
) -> list[Trial]:
    """Run what a search lacks: interrupted and lost trials first, then new ones.

    Args:
        search: what is searched.
        space: its space.
        job: stages 2 and 3 from the stage-1 checkpoint, in the search's folder.
        trials: the record so far.
        concurrent: trials at the same time; None: one per GPU, or as many as the processors allow.

    Returns:
        All trials of the search.

    Raises:
        KeyboardInterrupt: Ctrl-C was received; trials that ran are resumed by the next call.
        OSError: the record cannot be written.
    """
    recipe = trial_recipe(job.recipe, search.steps, {})
    queue = TrialQueue(
        TrialStore(job.out),
        trials,
        wanted=search.trials,
        steps=recipe.stage3.steps,
        objective=OBJECTIVE,
        draw=lambda index, others: draws.draw(
            search.search, space, search.seed, index, others, OBJECTIVE
        ),
    )
    if not queue.over:
        with _quiet(), tempfile.TemporaryDirectory(dir=scratch.folder()) as folder:
            _tuner(search, job, queue, concurrent, folder).fit()
        if not queue.over:
            raise KeyboardInterrupt  # which Tune has swallowed
    return queue.trials


def _tuner(
    search: Search, job: Job, queue: TrialQueue, concurrent: int | None, folder: str
) -> Tuner:
    gpus = session.gpus()
    threads = min(job.recipe.training.threads, max(1, session.cpus_of_largest_node()))
    resources = {"CPU": 1.0, "GPU": 1.0} if gpus else {"CPU": float(threads)}
    trial = tune.with_parameters(_run_trial, job=config.to_json(job), steps=search.steps)
    return Tuner(
        tune.with_resources(trial, resources),
        tune_config=TuneConfig(
            num_samples=-1,  # the searcher says when there are enough
            max_concurrent_trials=concurrent or max(1, gpus or session.cpus() // threads),
            search_alg=_QueueSearcher(queue),
            scheduler=_scheduler(search, job, queue.trials),
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name="search", storage_path=folder, callbacks=[_Recorder(queue, search)], verbose=0
        ),
    )


def _scheduler(search: Search, job: Job, trials: list[Trial]) -> ASHAScheduler:
    """Successive halving that knows the scores of all earlier trials."""
    recipe = trial_recipe(job.recipe, search.steps, {})
    scheduler = ASHAScheduler(
        time_attr="step",
        metric=OBJECTIVE,
        mode="min",
        max_t=recipe.stage3.steps,
        grace_period=recipe.training.save_every,
        reduction_factor=2,
    )
    for trial in trials:
        known = cast(TuneTrial, SimpleNamespace(trial_id=trial.id))
        scheduler.on_trial_add(cast(Any, None), known)
        for row in trial.scores:
            scheduler.on_trial_result(cast(Any, None), known, row)
        if trial.scores:
            scheduler.on_trial_complete(cast(Any, None), known, trial.scores[-1])
    return scheduler


def _run_trial(values: dict[str, Any], *, job: dict[str, Any], steps: int | None) -> None:
    """One trial, in a process of its own; its failure is reported like a score."""
    try:
        _train_trial(values, config.from_json(Job, job), steps)
    except NonFiniteLossError as error:
        _report_failure(error, _FAILED)
    except Exception as error:  # noqa: BLE001 (the driver decides what it means)
        passing = isinstance(error, OSError) and not is_user_error(error)
        _report_failure(error, _LOST_FOR_NOW if passing else _LOST)


def _train_trial(values: dict[str, Any], search: Job, steps: int | None) -> None:
    recipe = trial_recipe(search.recipe, steps, values[_SETTINGS])
    folder = TrialStore(search.out).folder(values[_TRIAL])
    job = dataclasses.replace(search, recipe=recipe, out=folder)

    def report(commit: Commit) -> None:
        record = commit.record
        if record.stage == 3 and record.step < recipe.stage3.steps:
            tune.report({"step": record.step, OBJECTIVE: record.metrics[OBJECTIVE]})

    samples = open_samples(job.shards, job.split)
    *_, last = local.fit(job, samples, lambda *_: None, report)
    tune.report({"step": recipe.stage3.steps, OBJECTIVE: last.metrics[OBJECTIVE]})


def _report_failure(error: Exception, kind: str) -> None:
    reason = " ".join(str(error).split()) or type(error).__name__
    tune.report({"step": 0, OBJECTIVE: math.nan, _FAILURE: reason, _KIND: kind})


class _QueueSearcher(Searcher):
    """Hands the queue's trials to Tune."""

    def __init__(self, queue: TrialQueue) -> None:
        super().__init__(metric=OBJECTIVE, mode="min")
        self._queue = queue

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        trial = self._queue.next()
        if trial is not None:
            return {_TRIAL: trial.id, _SETTINGS: trial.settings}
        return cast(Any, Searcher.FINISHED) if self._queue.over else None

    def set_search_properties(self, metric: Any, mode: Any, config: Any, **spec: Any) -> bool:
        return True

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """Nothing: the recorder is called as well."""

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Nothing: see the module."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _Recorder(Callback):
    """Reports what happens to each trial to the queue, and shows a progress bar."""

    def __init__(self, queue: TrialQueue, search: Search) -> None:
        self._queue = queue
        self._bar: tqdm[Any] | None = None
        self._wanted = search.trials

    def setup(
        self, stop: Any = None, num_samples: Any = None, total_num_samples: Any = None, **info: Any
    ) -> None:
        self._bar = tqdm(
            total=self._wanted,
            initial=self._queue.settled,
            desc="tune",
            unit="trial",
            dynamic_ncols=True,
        )

    def on_trial_result(
        self, iteration: int, trials: Any, trial: TuneTrial, result: dict[str, Any], **info: Any
    ) -> None:
        name = trial.config[_TRIAL]
        if _FAILURE not in result:
            self._queue.scored(name, result["step"], result[OBJECTIVE])
        elif result[_KIND] == _FAILED:
            self._queue.failed(name, result[_FAILURE])
        else:
            self._queue.lost(name, result[_FAILURE], retry=result[_KIND] == _LOST_FOR_NOW)

    def on_trial_complete(self, iteration: int, trials: Any, trial: TuneTrial, **info: Any) -> None:
        self._queue.ended(trial.config[_TRIAL])
        self._show()

    def on_trial_error(self, iteration: int, trials: Any, trial: TuneTrial, **info: Any) -> None:
        """Its process died: what was raised in it is reported as a result."""
        self._queue.lost(trial.config[_TRIAL], _why_it_died(trial))
        self._queue.ended(trial.config[_TRIAL])
        self._show()

    def on_experiment_end(self, trials: Any, **info: Any) -> None:
        if self._bar is not None:
            self._bar.close()

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def _show(self) -> None:
        assert self._bar is not None, "shown from the start"
        scores = [
            trial.scored(OBJECTIVE)[trial.last_step] for trial in self._queue.trials if trial.scores
        ]
        if scores:
            self._bar.set_postfix(best=f"{min(scores):.5f}", refresh=False)
        self._bar.update(self._queue.settled - self._bar.n)


def _why_it_died(trial: TuneTrial) -> str:
    """The first line of what Ray says, below its own headline."""
    lines = Path(trial.error_file).read_text().splitlines()[1:] if trial.error_file else []
    return next((line.strip() for line in lines if line.strip()), "its process died")


@contextmanager
def _quiet() -> Iterator[None]:
    """Show our progress bar, and no tables, notes or tracebacks of Tune's unless debugging."""
    if not log.isEnabledFor(logging.DEBUG):
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # the queue logs what failed
    # The newer output ignores verbose=0.
    with environment.overridden(ray_internals.TUNE_OUTPUT, "0"):
        yield
