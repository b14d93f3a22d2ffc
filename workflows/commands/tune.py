"""``aiaic tune``: searches hyperparameters of guidance and learning rates on Ray Tune."""

import dataclasses
import logging
from typing import Any

from aiaic import config, recipes
from aiaic.checkpointing import checkpoint
from aiaic.training.recipe import Recipe
from data_prep import storage
from data_prep.shards import manifest
from workflows.artifacts import run_folder
from workflows.artifacts.samples import open_samples
from workflows.cluster import session, tuner
from workflows.cluster.worker_range import Workers
from workflows.commands import train
from workflows.options import Outcome, Tune, flat
from workflows.tracking.tracker import open_tracker
from workflows.training.job import Job, check_job, init_place
from workflows.tuning import earlier_searches, search_space
from workflows.tuning import search as searches
from workflows.tuning.search import OBJECTIVE, Search
from workflows.tuning.search_space import Space
from workflows.tuning.trials import Trial, TrialStore

log = logging.getLogger(__name__)


def run(options: Tune) -> Outcome:
    """Carry out the command."""
    recipe = recipes.load(options.recipe, options.config, flat(options.overrides))
    chosen = search_space.read(options.space)
    space = search_space.parse(chosen, recipe)
    out, shards = storage.absolute(options.out), storage.absolute(options.shards)
    if options.trials < 1:
        raise ValueError(f"--trials is {options.trials}: give 1 or more")
    if options.concurrent is not None and options.concurrent < 1:
        raise ValueError(f"--concurrent is {options.concurrent}: give 1 or more")
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
        job = Job(
            stages=(2, 3), recipe=recipe, shards=shards, split=options.split, out=out, init=init
        )
        best = _search(search, space, job, options)
    found = config.describe(best["search"]["found"])
    place = searches.best_place(out)
    score = f"{OBJECTIVE} {best['score']:.5f}"
    return Outcome(
        values=best | {"best": place},
        text=f"best of {options.trials} trials: {score} with {found}\n{place}",
    )


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
        first = dataclasses.replace(job, stages=(1,))
        train.train(first, workers=Workers.exactly(0), tracking_uri=options.tracking_uri)
    place = init_place(dataclasses.replace(job, stages=(2,)), 2)
    assert place is not None, "stage 2 starts from something"
    return place


def _search(search: Search, space: Space, job: Job, options: Tune) -> dict[str, Any]:
    """Run the trials that are missing, and write the best; one that is complete is left."""
    with run_folder.exclusive_lock(job.out):
        trials: list[Trial] = []
        if searches.start(search, job.out):
            trials = _known_trials(search, job)
            best = searches.read_best(job.out)
            if best is not None and all(trial.settled for trial in trials):
                log.info("this search is finished already: '%s'", searches.best_place(job.out))
                return best
            log.info("%d of %d trials exist already", len(trials), search.trials)
        tracker = open_tracker(options.tracking_uri, job.out)
        settings = {"recipe": job.recipe.name, "search": search.search, "trials": search.trials}
        with tracker.log_run(settings | {"objective": OBJECTIVE}):
            trials = tuner.run_trials(search, space, job, trials, options.concurrent)
            for trial in trials:
                if scores := trial.scored(OBJECTIVE):
                    tracker.log_trial(trial.id, trial.settings, scores)
            return searches.write_best(job.recipe, trials, job.out)


def _known_trials(search: Search, job: Job) -> list[Trial]:
    """The record; that of a search by an earlier version is made from what it has left."""
    store = TrialStore(job.out)
    trials = store.load()
    if not trials:
        trials = earlier_searches.read_trials(search, job.recipe, job.out)
        for trial in trials:
            store.save(trial)
    return trials
