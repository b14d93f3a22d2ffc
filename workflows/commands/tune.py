"""``aiaic tune``: a search over guidance and learning rates by Ray Tune.

A trial is one process that runs stages 2 and 3 by the very loop of ``aiaic train``, from one
stage-1 checkpoint, in a folder of its own; so a trial that was interrupted resumes like any run.
The score is the colour loss on held-out videos, which means the same whatever other terms weigh.
"""

import dataclasses
import json
import logging
import os
from collections.abc import Mapping
from typing import Any

import optuna
from ray import tune
from ray.tune import Callback, ResultGrid, TuneConfig, Tuner
from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search import ConcurrencyLimiter, SearchAlgorithm, Searcher
from ray.tune.search.basic_variant import BasicVariantGenerator
from ray.tune.search.optuna import OptunaSearch
from tqdm import tqdm

from aiaic import config, recipes
from aiaic.checkpointing import checkpoint
from aiaic.checkpointing.async_saver import Commit
from aiaic.training.recipe import Recipe
from data_prep import storage
from data_prep.shards import manifest
from workflows.artifacts import run_folder
from workflows.artifacts.samples import open_samples
from workflows.cluster import search_space as space
from workflows.cluster import session
from workflows.cluster.workers import Workers
from workflows.commands import train
from workflows.options import Outcome, Tune, flat
from workflows.tracking.tracker import open_tracker
from workflows.training import local
from workflows.training.job import Job, check_job, init_place

log = logging.getLogger(__name__)

SCORE = "validation_colour"
"""The objective: lower is better."""
_LOOKS = 4  # times that a trial is compared with others
_SEARCH = "search"
_BEGUN = "search.json"
_BEST = "best.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Search:
    """What is searched; a search that was begun goes on with the same alone."""

    recipe: dict[str, Any]
    """The configuration that trials vary, without their number of steps."""
    space: dict[str, dict[str, Any]]
    trials: int
    search: str
    seed: int
    steps: int | None
    split: str
    manifest_digest: str
    init_sha256: str
    """Of the stage-1 checkpoint's weights."""


def run(options: Tune) -> Outcome:
    """Carry out the command."""
    recipe = recipes.load(options.recipe, options.config, flat(options.overrides))
    chosen = space.read(options.space)
    domains = space.domains(chosen, recipe)
    out, shards = storage.absolute(options.out), storage.absolute(options.shards)
    if options.trials < 1:
        raise ValueError(f"{options.trials} trials: give at least 1")
    if not open_samples(shards, options.split).validation:
        raise ValueError(f"split '{options.split}' holds out no videos: tune on split 'train'")
    with session.connected():
        init = _stage1(options, recipe, shards, out)
        search = Search(
            recipe=config.to_json(recipe),
            space=chosen,
            trials=options.trials,
            search=options.search,
            seed=options.seed,
            steps=options.steps,
            split=options.split,
            manifest_digest=manifest.load_manifest(shards).digest,
            init_sha256=run_folder.read_record(init).files[checkpoint.MODEL],
        )
        best = _standing(search, out)
        if best is None:
            job = Job(
                stages=(2, 3),
                recipe=recipe,
                shards=shards,
                split=options.split,
                out=out,
                init=init,
            )
            best = _search(search, job, domains, options)
    found = " ".join(f"{key}={value:.4g}" for key, value in best["search"]["found"].items())
    place = storage.join(out, _BEST)
    return Outcome(
        values=best | {"best": place},
        text=f"best of {options.trials} trials: {SCORE} {best['score']:.5f} with {found}\n{place}",
    )


def trial_recipe(recipe: Recipe, steps: int | None, found: Mapping[str, Any]) -> Recipe:
    """The recipe of a trial: with what was drawn, and with validation often enough to compare."""
    if steps is not None:
        recipe = config.override(recipe, {"stage2.steps": steps, "stage3.steps": steps})
    every = max(1, recipe.stage3.steps // _LOOKS)
    settings = {"training.validate_every": every, "training.save_every": every, **found}
    return config.override(recipe, settings)


def _stage1(options: Tune, recipe: Recipe, shards: str, out: str) -> str:
    """Place of the stage-1 checkpoint that all trials start from."""
    if options.init is not None:
        init = storage.absolute(options.init)
        job = Job(
            stages=(2,), recipe=recipe, shards=shards, split=options.split, out=out, init=init
        )
        check_job(job, open_samples(shards, options.split), workers=[1])
    else:
        job = Job(stages=(1, 2), recipe=recipe, shards=shards, split=options.split, out=out)
        alone = dataclasses.replace(job, stages=(1,))
        train.train(alone, workers=Workers.exactly(0), tracking_uri=options.tracking_uri)
    place = init_place(dataclasses.replace(job, stages=(2,)), 2)
    assert place is not None, "stage 2 starts from something"
    return place


def _search(search: Search, job: Job, domains: dict[str, Any], options: Tune) -> dict[str, Any]:
    """Run or continue the trials, and write the best."""
    storage.write_bytes(storage.join(job.out, _BEGUN), _json(config.to_json(search)))
    tracker = open_tracker(options.tracking_uri, job.out)
    settings = {"recipe": job.recipe.name, "search": search.search, "trials": search.trials}
    with tracker.log_run(settings | {"objective": SCORE}):
        results = _tuner(search, job, domains, options.concurrent).fit()
        if results.num_terminated + results.num_errors < search.trials:
            raise KeyboardInterrupt  # which Tune has swallowed
        for result in results:
            history = result.metrics_dataframe
            if result.metrics and history is not None and SCORE in history:
                scores = dict(zip(history["step"], history[SCORE], strict=True))
                tracker.log_trial(result.metrics["trial_id"], result.config or {}, scores)
        best = _best(search, job, results)
        storage.write_bytes(storage.join(job.out, _BEST), _json(best))
    return best


def _tuner(search: Search, job: Job, domains: dict[str, Any], concurrent: int | None) -> Tuner:
    """A new search, or the one in our own folder where it stopped."""
    gpus, cpus = session.gpus(), session.cpus()
    threads = min(job.recipe.training.threads, cpus)
    resources = {"CPU": 1.0, "GPU": 1.0} if gpus else {"CPU": float(threads)}
    trial = tune.with_resources(
        tune.with_parameters(_try, job=config.to_json(job), steps=search.steps), resources
    )
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # the new one talks, however silent it is asked to be
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    system, folder = storage.filesystem(job.out)
    begun = f"{folder}/{_SEARCH}"
    if Tuner.can_restore(begun, storage_filesystem=system):
        return Tuner.restore(
            begun,
            trial,
            restart_errored=True,
            param_space=domains,
            storage_filesystem=system,
        )
    steps = trial_recipe(job.recipe, search.steps, {})
    at_once = concurrent or max(1, gpus or cpus // threads)
    return Tuner(
        trial,
        param_space=domains,
        tune_config=TuneConfig(
            metric=SCORE,
            mode="min",
            num_samples=search.trials,
            search_alg=_algorithm(search, at_once),
            scheduler=ASHAScheduler(
                time_attr="step",
                max_t=steps.stage3.steps,
                grace_period=steps.training.save_every,
                reduction_factor=2,
            ),
            trial_dirname_creator=_trial_id,
        ),
        run_config=tune.RunConfig(
            name=_SEARCH,
            storage_path=folder,
            storage_filesystem=system,
            callbacks=[_Shown(search.trials)],
            verbose=0,
        ),
    )


def _algorithm(search: Search, at_once: int) -> SearchAlgorithm | Searcher:
    if search.search == "optuna":
        return ConcurrencyLimiter(OptunaSearch(seed=search.seed), max_concurrent=at_once)
    return BasicVariantGenerator(max_concurrent=at_once, random_state=search.seed)


def _trial_id(trial: Trial) -> str:
    return trial.trial_id


def _try(settings: dict[str, Any], *, job: dict[str, Any], steps: int | None) -> None:
    """One trial, in its own process: stages 2 and 3 in its own folder."""
    search = config.from_json(Job, job)
    recipe = trial_recipe(search.recipe, steps, settings)
    name = tune.get_context().get_trial_id()
    own = dataclasses.replace(search, recipe=recipe, out=storage.join(search.out, "trials", name))

    def report(commit: Commit) -> None:
        record = commit.record
        if record.stage == 3 and record.step < recipe.stage3.steps:
            tune.report({SCORE: record.metrics[SCORE], "step": record.step})

    samples = open_samples(own.shards, own.split)
    *_, last = local.fit(own, samples, lambda *_: None, report)
    tune.report({SCORE: last.metrics[SCORE], "step": recipe.stage3.steps})


class _Shown(Callback):
    """A progress bar over trials; Tune keeps a copy of it beside the search, without the bar."""

    def __init__(self, trials: int) -> None:
        self._trials = trials
        self._bar: tqdm[Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_bar": None}

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        self._show(trials)

    def on_trial_error(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        self._show(trials)

    def on_experiment_end(self, trials: list[Trial], **info: Any) -> None:
        self._show(trials)
        if self._bar is not None:
            self._bar.close()

    def _show(self, trials: list[Trial]) -> None:
        if self._bar is None:
            self._bar = tqdm(total=self._trials, desc="tune", unit="trial", dynamic_ncols=True)
        over = [trial for trial in trials if trial.is_finished()]
        scores = [trial.last_result[SCORE] for trial in over if SCORE in trial.last_result]
        if scores:
            self._bar.set_postfix(best=f"{min(scores):.5f}", refresh=False)
        self._bar.update(len(over) - self._bar.n)


def _best(search: Search, job: Job, results: ResultGrid) -> dict[str, Any]:
    """What best.json holds: the best of the trials that ran to their end.

    Raises:
        ChildProcessError: no trial did.
    """
    steps = trial_recipe(job.recipe, search.steps, {}).stage3.steps
    scored = [
        (result.metrics[SCORE], result.metrics["trial_id"], result.config or {})
        for result in results
        if result.error is None and result.metrics and result.metrics.get("step") == steps
    ]
    if not scored:
        told = str(results.errors[0]).strip().splitlines()[-1] if results.errors else "no result"
        raise ChildProcessError(f"no trial came to its end: {told}; see '{job.out}/{_SEARCH}'")
    if results.errors:
        log.warning("%d of %d trials failed", len(results.errors), len(results))
    score, trial, found = min(scored, key=lambda row: row[0])
    return {
        "recipe": job.recipe.name,
        "overrides": recipes.difference(job.recipe) | found,
        "score": score,
        "search": {
            "objective": SCORE,
            "found": found,
            "trial": trial,
            "trials": len(results),
            "stopped_early": len(results) - len(scored) - len(results.errors),
            "failed": len(results.errors),
        },
    }


def _standing(search: Search, out: str) -> dict[str, Any] | None:
    """The result of the same search, if it ended; None where it has not, or has not begun.

    Raises:
        ValueError: another search was begun in this folder.
    """
    begun = storage.join(out, _BEGUN)
    if storage.size_of(begun) is None:
        return None
    theirs = config.dotted_keys(json.loads(storage.read_bytes(begun)))
    ours = config.dotted_keys(config.to_json(search))
    for key in (*ours, *theirs):
        if ours.get(key) != theirs.get(key):
            raise ValueError(
                f"another search was begun in '{out}': {key} was {theirs.get(key)!r} and is "
                f"{ours.get(key)!r} now; take another folder, or the former settings"
            )
    best = storage.join(out, _BEST)
    if storage.size_of(best) is None:
        return None
    log.info("this search is finished already: '%s'", best)
    return json.loads(storage.read_bytes(best))


def _json(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values, indent=1, sort_keys=True).encode()
