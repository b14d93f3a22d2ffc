"""``aiaic evaluate``: a checkpoint under all sound conditions, as JSON, a table and a report."""

import importlib.metadata
import json
import platform
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from aiaic.evaluation.evaluator import Evaluation
from data_prep import storage
from workflows.artifacts import run_folder
from workflows.evaluation import ground_truth, measurements
from workflows.evaluation.ground_truth import World
from workflows.evaluation.target import Subject, open_subject, run_of
from workflows.media import images
from workflows.options import Evaluate, Outcome
from workflows.report import evaluation_page, examples, extremes, tables
from workflows.report.examples import Example
from workflows.report.extremes import Case
from workflows.tracking.tracker import UNTRACKED, Tracker

_ROWS = 8
_CASES = 6
_PACKAGES = ("torch", "torchvision", "torchaudio", "numpy", "ray", "mlflow", "webdataset", "av")


def run(options: Evaluate, *, seconds: Mapping[str, float] | None = None) -> Outcome:
    """Carry out the command.

    Args:
        options: the command's.
        seconds: time that earlier parts of a chain took, for the result and the report; where
            absent, that of the run's stages.
    """
    begun = time.perf_counter()
    world = None if options.truth is None else ground_truth.read(options.truth)
    # Where workers of Ray do the work, the GPUs are theirs.
    subject = open_subject(options, torch.device("cpu") if options.workers else None)
    if world is not None:
        world.truth.require([ref.key for ref in subject.refs])
    torch.set_num_threads(subject.recipe.training.threads)
    evaluation, result = measurements.measure(subject, world, options)
    rows = _examples(subject, evaluation, world)
    strips = _cases(subject, evaluation, world)
    stages = _stages(subject)
    spent = {f"stage{number}": stage["seconds"] for number, stage in stages.items()}
    spent = {name: s for name, s in spent.items() if s is not None} if seconds is None else seconds
    result["seconds"] = {**spent, "evaluate": round(time.perf_counter() - begun, 2)}
    result["versions"] = _versions()
    out = options.out or default_out(subject.place)
    content = {"samples.png": images.encode(examples.grid(rows), ".png")} if rows else {}
    content |= {
        "report.html": evaluation_page.render(result, rows, stages, strips).encode(),
        "report.json": json.dumps(result, indent=1, allow_nan=False).encode(),
    }
    written = {name: storage.join(out, name) for name in content}
    for name, place in written.items():
        storage.write_bytes(place, content[name])
    if options.tracking_uri != UNTRACKED:
        _track(options.tracking_uri, subject, result, content)
    return Outcome(
        values={**result, "written": written},
        text=f"{tables.evaluation(result)}\n\nreport: {written['report.html']}",
    )


def default_out(place: str) -> str:
    """``RUN/evaluation``, or a folder beside a checkpoint that stands alone."""
    return storage.join(run_of(place) or run_folder.storage_parent(place), "evaluation")


def _examples(subject: Subject, evaluation: Evaluation, world: World | None) -> list[Example]:
    if not subject.networks.hears:
        return []
    known = None if world is None else world.truth
    chosen = examples.choose(subject.refs, evaluation.sounds, known, _ROWS)
    return examples.colour(
        chosen,
        subject.refs,
        evaluation.sounds,
        model=subject.networks.model.cpu(),
        loader=subject.loader(with_sound=True),
        truth=known,
    )


def _cases(subject: Subject, evaluation: Evaluation, world: World | None) -> dict[str, list[Case]]:
    """Extreme clips as pictures; none where the network does not hear."""
    labels = {ref.key: ref.label for ref in subject.refs}
    return extremes.colour(
        extremes.choose(evaluation.scores, _CASES),
        subject.refs,
        evaluation.scores,
        names=labels if world is None else world.truth.class_by_key,
        model=subject.networks.model.cpu(),
        loader=subject.loader(with_sound=subject.networks.hears),
    )


def _stages(subject: Subject) -> dict[int, dict[str, Any]]:
    """Curves and time of the run's stages up to the evaluated one, as far as they are there."""
    found: dict[int, dict[str, Any]] = {}
    run = run_of(subject.place)
    for number in range(1, subject.record.stage + 1):
        folder = None if run is None else run_folder.stage_place(run, number)
        finished = None if folder is None else run_folder.read_result(folder)
        if folder is not None and finished is not None:
            last = run_folder.read_record(storage.join(folder, finished.final))
            found[number] = {"curves": last.curves, "seconds": round(finished.seconds, 2)}
        elif number == subject.record.stage:
            found[number] = {"curves": subject.record.curves, "seconds": None}
    return found


def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in _PACKAGES},
    }


def _track(
    uri: str | None, subject: Subject, result: Mapping[str, Any], content: Mapping[str, bytes]
) -> None:
    """Log the evaluation beside the training of its checkpoint, where that is part of a run."""
    run = run_of(subject.place)
    if run is None:
        return
    # Labels may be named as no metric may, and there are hundreds: the report has them.
    figures_alone = {k: v for k, v in result.items() if k not in {"versions", "labels"}}
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, name) for name in content]
        for file in files:
            file.write_bytes(content[file.name])
        tracker = Tracker(uri, storage.absolute(run))
        tracker.log_evaluation(subject.record.stage, figures_alone, files)
