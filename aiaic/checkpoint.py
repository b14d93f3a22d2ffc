"""Checkpoints: folders that explain themselves and are safe to load.

A checkpoint is ``checkpoint.json`` (:class:`Record`), ``model.safetensors`` (the whole model with
averaged weights: what evaluation and the next stage read) and ``training.safetensors`` (raw weights
and optimizer moments: what a resume reads besides). No file is a pickle.
"""

import dataclasses
import hashlib
import json
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from aiaic import config

FORMAT_VERSION = 2
RECORD = "checkpoint.json"
"""File that makes a folder a checkpoint; written last."""
MODEL = "model.safetensors"
"""File of the averaged weights of the whole model."""
_TRAINING = "training.safetensors"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Origin:
    """The checkpoint that a stage started from."""

    place: str
    """Path or URI as the user gave it."""
    stage: int
    model_sha256: str
    """SHA-256 of its ``model.safetensors``."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """What a checkpoint is, beside its weights."""

    stage: int
    step: int
    recipe: dict[str, Any]
    """The whole configuration as plain JSON."""
    manifest_digest: str
    """SHA-256 of the manifest of the shards it was trained on."""
    split: str
    init: Origin | None
    metrics: dict[str, float]
    """Validation metrics at this step."""
    curves: list[dict[str, float]]
    """All metrics reported so far, one object per reported step."""
    versions: dict[str, str]
    files: dict[str, str] = dataclasses.field(default_factory=dict)
    """SHA-256 of each weight file."""
    format_version: int = FORMAT_VERSION


def step_name(step: int) -> str:
    """The folder name of a checkpoint, which sorts by step."""
    return f"step-{step:07d}"


def steps(stage_folder: Path) -> list[Path]:
    """The committed checkpoints of a stage, oldest first."""
    return sorted(stage_folder.glob("step-*"))


def write(
    folder: Path, record: Record, model: Mapping[str, Tensor], training: Mapping[str, Tensor]
) -> None:
    """Write a checkpoint into ``folder``, the record last."""
    save_file(_contiguous(model), folder / MODEL)
    save_file(_contiguous(training), folder / _TRAINING)
    write_record(folder, record, (MODEL, _TRAINING))


def write_record(folder: Path, record: Record, names: Sequence[str]) -> None:
    """Write the record of a folder that holds the files ``names``: last, with their checksums."""
    whole = dataclasses.replace(record, files={name: _sha256(folder / name) for name in names})
    (folder / RECORD).write_text(json.dumps(config.to_json(whole), indent=1, sort_keys=True))


def read_record(folder: Path) -> Record:
    """Read what a checkpoint says of itself.

    Raises:
        FileNotFoundError: ``folder`` is no checkpoint.
        ValueError: the record is damaged or of another format version.
    """
    path = folder / RECORD
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at '{folder}': it has no {RECORD}")
    try:
        values = json.loads(path.read_text())
        version = values.get("format_version")
    except (json.JSONDecodeError, AttributeError, UnicodeDecodeError):
        raise ValueError(f"checkpoint '{folder}': {RECORD} is damaged") from None
    if version != FORMAT_VERSION:
        raise ValueError(
            f"checkpoint '{folder}' has format {version}, this program reads {FORMAT_VERSION}"
        )
    return config.from_json(Record, values)


def read_model(folder: Path) -> dict[str, Tensor]:
    """The model weights (averaged), checked against their checksum.

    Raises:
        ValueError: the file is missing or damaged.
    """
    return _read_weights(folder, MODEL)


def read_training(folder: Path) -> dict[str, Tensor]:
    """Raw weights and optimizer moments, checked against their checksum.

    Raises:
        ValueError: the file is missing or damaged.
    """
    return _read_weights(folder, _TRAINING)


def model_sha256(folder: Path) -> str:
    """The recorded checksum of the model weights."""
    return read_record(folder).files[MODEL]


def commit(final: Path, fill: Callable[[Path], None]) -> Path:
    """Fill a temporary folder and rename it to ``final``: it is there whole or not at all."""
    final.parent.mkdir(parents=True, exist_ok=True)
    partial = final.with_name(f".{final.name}-{secrets.token_hex(4)}")
    partial.mkdir()  # not mkdtemp: others who share the storage may read it
    try:
        fill(partial)
        if final.exists():  # the same step, saved once more after a restart
            shutil.rmtree(final)
        partial.replace(final)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return final


def best(stage_folder: Path) -> Path:
    """The checkpoint with the lowest ``validation_loss``; the newest where none was validated.

    Raises:
        FileNotFoundError: the folder holds no checkpoint.
    """
    found = steps(stage_folder)
    if not found:
        raise FileNotFoundError(f"no checkpoint in '{stage_folder}'")
    losses = [read_record(folder).metrics.get("validation_loss", float("inf")) for folder in found]
    lowest = min(losses)
    return found[-1] if lowest == float("inf") else found[losses.index(lowest)]


def prune(stage_folder: Path) -> None:
    """Delete all checkpoints but the newest and the best."""
    found = steps(stage_folder)
    keep = {found[-1], best(stage_folder)}
    for folder in found:
        if folder not in keep:
            shutil.rmtree(folder)


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    return {"torch": torch.__version__, "cuda": str(torch.version.cuda)}


def _read_weights(folder: Path, name: str) -> dict[str, Tensor]:
    record = read_record(folder)
    path = folder / name
    if not path.is_file() or _sha256(path) != record.files.get(name):
        raise ValueError(f"checkpoint '{folder}': {name} is missing or damaged (checksum differs)")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"checkpoint '{folder}': {name} cannot be read: {error}") from None


def _contiguous(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in weights.items()}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
