"""``aiaic evaluate``: a checkpoint under all sound conditions, as JSON, a table and a report."""

import importlib.metadata
import io
import json
import platform
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from aiaic.color import rgb_to_lab
from aiaic.evaluation import Evaluation, Prediction, evaluate
from aiaic.figures import figures
from aiaic.probe import sibling_probe_accuracy
from data_prep import storage
from workflows import (
    batches,
    checkpoints,
    examples,
    pictures,
    report,
    tables,
    tracking,
    truth,
)
from workflows.commands import Evaluate, Outcome
from workflows.examples import Example
from workflows.subject import Subject, open_subject, run_of
from workflows.truth import World

SEED = 0
"""Of partners and noise; part of the protocol."""

_ROWS = 8
_PACKAGES = ("torch", "torchvision", "torchaudio", "numpy", "ray", "mlflow", "webdataset", "av")


def run(options: Evaluate, *, seconds: Mapping[str, float] | None = None) -> Outcome:
    """Carry out the command.

    Args:
        options: the command's.
        seconds: time that earlier parts of a chain took, for the result and the report; where
            absent, that of the run's stages.
    """
    begun = time.perf_counter()
    world = None if options.truth is None else truth.read(options.truth)
    subject = open_subject(options)
    if world is not None:
        world.truth.require([ref.key for ref in subject.refs])
    torch.set_num_threads(subject.recipe.training.threads)
    evaluation, result = measure(subject, world, options)
    rows = _examples(subject, evaluation, world)
    stages = _stages(subject)
    spent = {f"stage{number}": stage["seconds"] for number, stage in stages.items()}
    spent = {name: s for name, s in spent.items() if s is not None} if seconds is None else seconds
    result["seconds"] = {**spent, "evaluate": round(time.perf_counter() - begun, 2)}
    result["versions"] = _versions()
    out = options.out or default_out(subject.place)
    content = {"samples.png": pictures.encode(examples.grid(rows), ".png")} if rows else {}
    content |= {
        "report.html": report.render(result, rows, stages).encode(),
        "report.json": json.dumps(result, indent=1, allow_nan=False).encode(),
    }
    written = {name: storage.join(out, name) for name in content}
    for name, place in written.items():
        storage.write_bytes(place, content[name])
    if options.tracking_uri != tracking.NOWHERE:
        _track(options.tracking_uri, subject, result, content)
    return Outcome(
        values={**result, "written": written},
        text=f"{tables.evaluation(result)}\n\nreport: {written['report.html']}",
    )


def measure(
    subject: Subject, world: World | None, options: Evaluate
) -> tuple[Evaluation, dict[str, Any]]:
    """All scores and figures; predictions are written where the options say so."""
    doing = iter(("listen and look", "colour"))
    hears = subject.networks.hears
    known = None if world is None else world.truth
    observe = None
    if options.predictions is not None:
        observe = prediction_writer(Path(options.predictions))
    evaluation = evaluate(
        subject.networks,
        lambda: subject.batches(subject.refs, next(doing), with_sound=hears),
        seed=SEED,
        truth=known,
        labels=subject.labels,
        observe=observe,
        device=subject.device,
    )
    result = figures(
        evaluation,
        subject.networks,
        truth=known,
        labels=subject.labels,
        trained_labels=_trained_labels(subject, options.shards),
    )
    if world is not None:
        _probe(subject, world, options.shards, result)
    return evaluation, {"protocol": _protocol(subject), **result}


def prediction_writer(folder: Path) -> Callable[[Prediction], None]:
    """Writes ``<condition>/<key>.npz`` with ``L``, ``ab_predicted`` and ``ab_true``, Lab units."""

    def write(prediction: Prediction) -> None:
        for row, key in enumerate(prediction.keys):
            content = io.BytesIO()
            np.savez(
                content,
                L=prediction.L[row, 0].cpu().numpy(),
                ab_predicted=prediction.ab_predicted[row].cpu().numpy(),
                ab_true=prediction.ab_true[row].cpu().numpy(),
            )
            name = folder / prediction.condition / f"{key}.npz"
            storage.write_bytes(str(name), content.getvalue())

    return write


def default_out(place: str) -> str:
    """``RUN/evaluation``, or a folder beside a checkpoint that stands alone."""
    return storage.join(run_of(place) or checkpoints.storage_parent(place), "evaluation")


def _probe(subject: Subject, world: World, shards: str, result: dict[str, Any]) -> None:
    """How well the decoded lightness alone tells siblings apart, over all clips of the world."""
    refs = [
        ref for split in world.splits for ref in batches.open_evaluation(shards, split).validation
    ]
    world.truth.require([ref.key for ref in refs])
    found = [
        (rgb_to_lab(batch.picture)[0][:, 0].numpy(), batch.keys)
        for batch in subject.batches(refs, "probe the grey", with_sound=False)
    ]
    keys = [key for _, part in found for key in part]
    try:
        result["probe_accuracy"] = sibling_probe_accuracy(
            np.concatenate([L for L, _ in found]),
            np.array([world.truth.appearance_by_key[key] for key in keys]),
            np.array([world.truth.class_by_key[key] for key in keys]),
        )
    except ValueError as error:
        result["absent"]["probe_accuracy"] = str(error)


def _protocol(subject: Subject) -> dict[str, Any]:
    return {
        "size": subject.recipe.view.size_px,
        "crop": "short side resized, centre square",
        "split": subject.split,
        "n": len(subject.refs),
        "manifest_digest": subject.manifest_digest,
        "same_shards_as_training": subject.manifest_digest == subject.record.manifest_digest,
        "seed": SEED,
        "weights": {
            "place": subject.place,
            "stage": subject.record.stage,
            "step": subject.record.step,
            "recipe": subject.recipe.name,
            "model_sha256": subject.model_sha256,
        },
    }


def _trained_labels(subject: Subject, shards: str) -> set[str] | None:
    """Labels of the training split, where these are the shards that were trained on."""
    if subject.record.manifest_digest != subject.manifest_digest:
        return None
    trained = batches.open_evaluation(shards, subject.record.split).validation
    return {ref.label for ref in trained}


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


def _stages(subject: Subject) -> dict[int, dict[str, Any]]:
    """Curves and time of the run's stages up to the evaluated one, as far as they are there."""
    found: dict[int, dict[str, Any]] = {}
    run = run_of(subject.place)
    for number in range(1, subject.record.stage + 1):
        folder = None if run is None else checkpoints.stage_place(run, number)
        finished = None if folder is None else checkpoints.read_finished(folder)
        if folder is not None and finished is not None:
            last = checkpoints.read_record(storage.join(folder, finished.final))
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
    figures_alone = {name: value for name, value in result.items() if name != "versions"}
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, name) for name in content]
        for file in files:
            file.write_bytes(content[file.name])
        tracker = tracking.Tracker(uri, storage.absolute(run))
        tracker.evaluated(subject.record.stage, figures_alone, files)
