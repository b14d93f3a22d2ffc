"""``aiaic reproduce``: takes a public data set from its clips to the report."""

import logging

from aiaic import recipes
from data_prep import storage
from workflows.cluster import session
from workflows.cluster.worker_range import Workers
from workflows.commands import evaluate, prepare, train
from workflows.options import Evaluate, Outcome, Prepare, Reproduce, Train, flat

log = logging.getLogger(__name__)

_FRAMES = 3
"""Pictures per clip where the semantics come from another frame than the coloured one."""


def run(options: Reproduce) -> Outcome:
    """Carry out the command."""
    recipe = recipes.load(options.recipe or options.dataset, settings=flat(options.overrides))
    most = Workers.parse(options.workers).most
    shards, out = storage.join(options.out, "shards"), storage.join(options.out, "run")
    prepared = Prepare(
        dataset=options.dataset,
        clips=options.clips,
        out=shards,
        annotations=options.annotations,
        splits=options.splits,
        size_px=recipe.view.size_px,
        pictures=_FRAMES if recipe.stage1.scene_view == "frame" else 1,
        workers=0 if most == 0 else None,
    )
    trained = Train(
        stage="all",
        shards=shards,
        out=out,
        recipe=options.recipe or options.dataset,
        overrides=options.overrides,
        split=options.train_split,
        workers=options.workers,
        tracking_uri=options.tracking_uri,
    )
    evaluated = Evaluate(
        shards=shards,
        checkpoint=out,
        split=options.test_split,
        workers=most,
        tracking_uri=options.tracking_uri,
    )
    if most == 0:
        return _run_parts(prepared, trained, evaluated)
    with session.connected(cpus=most):
        return _run_parts(prepared, trained, evaluated)


def _run_parts(prepared: Prepare, trained: Train, evaluated: Evaluate) -> Outcome:
    built = prepare.run(prepared)
    log.info("%s", built.text)
    stages = train.run(trained)
    log.info("%s", stages.text)
    report = evaluate.run(evaluated)
    values = {"prepare": built.values, "train": stages.values, "evaluate": report.values}
    return Outcome(values=values, text=report.text)
