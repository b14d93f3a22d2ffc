"""``aiaic evaluate``: measure a checkpoint under all sound conditions."""

import contextlib
import dataclasses
import importlib.metadata
import json
import platform
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from aiaic.evaluation import evaluator
from aiaic.evaluation.evaluator import Evaluation, Evaluator
from data_prep import storage
from workflows.artifacts import run_folder
from workflows.evaluation import measurements, video_scores, worker
from workflows.evaluation.job import EvaluationJob
from workflows.evaluation.target import EvaluationTarget, open_target, run_of
from workflows.media import images
from workflows.options import Evaluate, Outcome
from workflows.report import evaluation_page, examples, extremes, tables
from workflows.report.examples import Example
from workflows.report.extremes import ExtremeClip
from workflows.tracking.tracker import UNTRACKED, Tracker

_EXAMPLES = 8
_EXTREMES = 6
_PACKAGES = ("torch", "torchvision", "torchaudio", "numpy", "ray", "mlflow", "webdataset", "av")


def run(options: Evaluate, *, seconds: Mapping[str, float] | None = None) -> Outcome:
    """Carry out the command.

    Args:
        options: of the command.
        seconds: time of the steps before the evaluation, for the report; None: that of the run's
            stages.
    """
    started = time.perf_counter()
    if options.workers < 0:
        raise ValueError(f"--workers is {options.workers}: give 0 or more")
    if options.limit is not None and options.limit < 1:
        raise ValueError(f"--limit is {options.limit}: give 1 or more")
    job = _job(options)
    videos = {} if options.videos is None else video_scores.find(options.videos)
    # With Ray, the GPUs are the workers'.
    target = open_target(job, torch.device("cpu") if options.workers else None)
    torch.set_num_threads(target.recipe.training.threads)
    with _open_evaluator(job, target, options.workers) as opened:
        evaluation = evaluator.evaluate(
            opened, seed=worker.SEED, truth=target.truth, labels=target.labels
        )
    result = measurements.measure(job, target, evaluation, videos)
    stages = _stages(target)
    rows = _examples(target, evaluation)
    strips = _extremes(target, evaluation)
    before = seconds if seconds is not None else _seconds(stages)
    result["seconds"] = {**before, "evaluate": round(time.perf_counter() - started, 2)}
    result["versions"] = _versions()
    content = {"samples.png": images.encode(examples.grid(rows), ".png")} if rows else {}
    content |= {
        "report.html": evaluation_page.render(result, rows, stages, strips).encode(),
        "report.json": json.dumps(result, indent=1, allow_nan=False).encode(),
    }
    written = _write(content, options.out or default_out(target.place))
    if options.tracking_uri != UNTRACKED:
        _track(options.tracking_uri, target, result, content)
    return Outcome(
        values={**result, "written": written},
        text=f"{tables.evaluation(result)}\n\nreport: {written['report.html']}",
    )


def default_out(place: str) -> str:
    """``RUN/evaluation``, or a folder beside a checkpoint that belongs to no run."""
    return storage.join(run_of(place) or storage.parent_of(place), "evaluation")


def _job(options: Evaluate) -> EvaluationJob:
    return EvaluationJob(
        shards=options.shards,
        checkpoint=options.checkpoint,
        split=options.split,
        truth=options.truth,
        predictions=options.predictions,
        limit=options.limit,
        protocol=options.protocol,
        size_px=options.size_px,
        lpips_weights=options.lpips_weights,
        inception_weights=options.inception_weights,
    )


@contextlib.contextmanager
def _open_evaluator(
    job: EvaluationJob, target: EvaluationTarget, workers: int
) -> Iterator[Evaluator]:
    """The evaluator of this process or, with workers, of Ray; it shows progress bars."""
    perception = worker.open_perception(job)  # also with Ray: errors come before a cluster starts
    if workers == 0:
        local = worker.in_process(job, target, perception)
        yield worker.WithProgress(local, len(target.refs))
        return
    from workflows.cluster import evaluation_actors  # noqa: PLC0415 (one process needs no Ray)

    exact = dataclasses.replace(job, checkpoint=target.place).with_absolute_places()
    chunks = len(target.chunks())
    with evaluation_actors.started(exact, workers=workers, chunks=chunks) as actors:
        yield worker.WithProgress(actors, len(target.refs))


def _examples(target: EvaluationTarget, evaluation: Evaluation) -> list[Example]:
    if not target.networks.audio_trained:
        return []
    chosen = examples.choose(target.refs, evaluation.sounds, target.truth, _EXAMPLES)
    return examples.colorize(
        chosen,
        target.refs,
        evaluation.sounds,
        model=target.networks.model.cpu(),
        loader=target.loader(with_sound=True),
        truth=target.truth,
    )


def _extremes(target: EvaluationTarget, evaluation: Evaluation) -> dict[str, list[ExtremeClip]]:
    labels = {ref.key: ref.label for ref in target.refs}
    return extremes.colorize(
        extremes.choose(evaluation.scores, _EXTREMES),
        target.refs,
        evaluation.scores,
        names=labels if target.truth is None else target.truth.class_by_key,
        model=target.networks.model.cpu(),
        loader=target.loader(with_sound=target.networks.audio_trained),
    )


def _stages(target: EvaluationTarget) -> dict[int, dict[str, Any]]:
    """Curves and seconds of the run's stages up to the evaluated one, where they are known."""
    found: dict[int, dict[str, Any]] = {}
    run = run_of(target.place)
    for number in range(1, target.record.stage + 1):
        folder = None if run is None else run_folder.stage_place(run, number)
        finished = None if folder is None else run_folder.read_result(folder)
        if folder is not None and finished is not None:
            last = run_folder.read_record(storage.join(folder, finished.final))
            found[number] = {"curves": last.curves, "seconds": round(finished.seconds, 2)}
        elif number == target.record.stage:
            found[number] = {"curves": target.record.curves, "seconds": None}
    return found


def _seconds(stages: Mapping[int, Mapping[str, Any]]) -> dict[str, float]:
    seconds = {f"stage{number}": stage["seconds"] for number, stage in stages.items()}
    return {name: value for name, value in seconds.items() if value is not None}


def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in _PACKAGES},
    }


def _write(content: Mapping[str, bytes], out: str) -> dict[str, str]:
    """Write files into a folder; returns their places by name."""
    written = {name: storage.join(out, name) for name in content}
    for name, place in written.items():
        storage.write_bytes(place, content[name])
    return written


def _track(
    uri: str | None,
    target: EvaluationTarget,
    result: Mapping[str, Any],
    content: Mapping[str, bytes],
) -> None:
    """Log the evaluation to the MLflow run of the checkpoint's training, if it belongs to a run."""
    run = run_of(target.place)
    if run is None:
        return
    # Labels are many, and not all are valid names of metrics: only the report has them.
    metrics = {k: v for k, v in result.items() if k not in {"versions", "labels"}}
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, name) for name in content]
        for file in files:
            file.write_bytes(content[file.name])
        tracker = Tracker(uri, storage.absolute(run))
        tracker.log_evaluation(target.record.stage, metrics, files)
