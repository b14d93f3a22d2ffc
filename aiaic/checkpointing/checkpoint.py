"""Checkpoints: self-describing folders that are safe to load.

A checkpoint consists of ``checkpoint.json`` (:class:`Record`), ``model.safetensors`` (the whole
model with averaged weights, read by evaluation and the next stage), ``training.safetensors`` (raw
weights and optimizer moments, also needed to resume) and ``timings.json`` (throughput; the only
file that differs between identical runs). No file is a pickle.
"""

import dataclasses
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from aiaic import config
from aiaic.checkpointing.timings import TIMINGS, Timings

FORMAT_VERSION = 3
_READABLE = (2, 3)
RECORD = "checkpoint.json"
"""The file whose presence makes a folder a checkpoint; written last."""
MODEL = "model.safetensors"
"""The file of the whole model with averaged weights."""
_TRAINING = "training.safetensors"
_DIGEST = "sha256"  # key of the record's own checksum


class DamagedError(ValueError):
    """A checkpoint's files are missing, or differ from what was written."""


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
    """The description of a checkpoint."""

    stage: int
    step: int
    recipe: dict[str, Any]
    """The whole configuration as plain JSON."""
    manifest_digest: str
    """SHA-256 of the manifest of the training shards."""
    split: str
    init: Origin | None
    metrics: dict[str, float]
    """Validation metrics at this step."""
    curves: list[dict[str, float]]
    """All metrics reported so far, one object per reported step."""
    versions: dict[str, str]
    precision: str = ""
    """``fp32`` or ``bf16``."""
    pending: dict[str, float] = dataclasses.field(default_factory=dict)
    """Sums of the loss terms since the last point of the curves, and the count of ``samples``."""
    ledger: int = 0
    """Sum of a hash of each (step, sample) trained on: see
    :func:`aiaic.loading.sampler.ledger`."""
    files: dict[str, str] = dataclasses.field(default_factory=dict)
    """SHA-256 of each weight file."""
    format_version: int = FORMAT_VERSION


Tensors = Mapping[str, Tensor]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A checkpoint that is still to be written."""

    record: Record
    timings: Timings
    tensors: Callable[[], tuple[Tensors, Tensors]]
    """Returns the model with averaged weights, and what a resume needs besides; called once for
    each attempt to write, in another thread."""

    @property
    def name(self) -> str:
        """The checkpoint's folder name."""
        return step_name(self.record.step)

    def write(self, folder: Path) -> None:
        """Write all files into an empty folder; see :func:`write`."""
        write(folder, self.record, *self.tensors(), self.timings)


def step_name(step: int) -> str:
    """The folder name of a checkpoint, which sorts by step."""
    return f"step-{step:07d}"


def steps(stage_folder: Path) -> list[Path]:
    """The committed checkpoints of a stage, oldest first."""
    return sorted(path.parent for path in stage_folder.glob(f"step-*/{RECORD}"))


def write(
    folder: Path,
    record: Record,
    model: Mapping[str, Tensor],
    training: Mapping[str, Tensor],
    timings: Timings | None = None,
) -> None:
    """Write a checkpoint into ``folder``, the record last.

    Raises:
        OSError: the disk is full, or fails.
    """
    for name, tensors in ((MODEL, model), (_TRAINING, training)):
        try:
            save_file(_contiguous(tensors), folder / name)
        except SafetensorError as error:  # which it also raises for a full disk
            raise OSError(f"checkpoint '{folder}': {name} cannot be written: {error}") from None
    if timings is not None:
        (folder / TIMINGS).write_text(json.dumps(config.to_json(timings)))
    write_record(folder, record, (MODEL, _TRAINING))


def write_record(folder: Path, record: Record, names: Sequence[str]) -> None:
    """Write the record with the checksums of the files ``names``; the last file to be written."""
    whole = dataclasses.replace(record, files={name: _sha256(folder / name) for name in names})
    values = config.to_json(whole)
    (folder / RECORD).write_text(_text(values | {_DIGEST: _digest(values)}))


def read_record(folder: Path) -> Record:
    """Read a checkpoint's record.

    Raises:
        FileNotFoundError: ``folder`` is not a checkpoint.
        DamagedError: the record is damaged.
        ValueError: it has another format version.
    """
    path = folder / RECORD
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at '{folder}': it has no {RECORD}")
    return parse_record(path.read_bytes(), str(folder))


def parse_record(content: bytes, place: str) -> Record:
    """A record from the content of its file; errors as of :func:`read_record` name ``place``."""
    try:
        values = json.loads(content)
        version = values.get("format_version")
    except (ValueError, AttributeError):
        raise DamagedError(f"checkpoint '{place}': {RECORD} is damaged") from None
    if version not in _READABLE:
        raise ValueError(
            f"checkpoint '{place}' has format {version}, this version reads {FORMAT_VERSION}"
        )
    digest = values.pop(_DIGEST, None)
    if version == FORMAT_VERSION and digest != _digest(values):
        raise DamagedError(f"checkpoint '{place}': {RECORD} is damaged (checksum differs)")
    return config.from_json(Record, values)


def verify(folder: Path) -> None:
    """Check a checkpoint's files against their checksums.

    Raises:
        DamagedError: the record cannot be read, or a file is missing or damaged; names the file.
        ValueError: the record has another format version.
    """
    try:
        record = read_record(folder)
    except FileNotFoundError as error:
        raise DamagedError(str(error)) from None
    for name, expected in record.files.items():
        _check(folder, name, expected)


def read_model(folder: Path) -> dict[str, Tensor]:
    """Read the averaged model weights, verified against their checksum.

    Raises:
        DamagedError: the file is missing or damaged.
    """
    return _read_weights(folder, MODEL)


def read_training(folder: Path) -> dict[str, Tensor]:
    """Read raw weights and optimizer moments, verified against their checksum.

    Raises:
        DamagedError: the file is missing or damaged.
    """
    return _read_weights(folder, _TRAINING)


def model_sha256(folder: Path) -> str:
    """The recorded checksum of the model weights."""
    return read_record(folder).files[MODEL]


def commit(final: Path, fill: Callable[[Path], object]) -> Path:
    """Fill a temporary folder and rename it to ``final``, atomically.

    Also safe against power failure: files are synced to disk before the rename.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    partial = final.with_name(f".{final.name}-{secrets.token_hex(4)}")
    partial.mkdir()  # not mkdtemp, which would keep other users from reading it
    try:
        fill(partial)
        for path in (*partial.iterdir(), partial):
            _sync(path)
        if final.exists():  # the same step, saved again after a restart
            (final / RECORD).unlink(missing_ok=True)
            shutil.rmtree(final)
        partial.replace(final)
        _sync(final.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return final


def sweep(stage_folder: Path) -> None:
    """Delete incomplete checkpoints that killed processes were writing or deleting."""
    for left in stage_folder.glob(".step-*"):
        shutil.rmtree(left, ignore_errors=True)
    for folder in stage_folder.glob("step-*"):
        if not (folder / RECORD).exists():
            shutil.rmtree(folder, ignore_errors=True)


def _read_weights(folder: Path, name: str) -> dict[str, Tensor]:
    _check(folder, name, read_record(folder).files.get(name))
    try:
        return load_file(folder / name)
    except SafetensorError as error:
        raise DamagedError(f"checkpoint '{folder}': {name} cannot be read: {error}") from None


def _check(folder: Path, name: str, expected: str | None) -> None:
    path = folder / name
    if not path.is_file() or _sha256(path) != expected:
        raise DamagedError(
            f"checkpoint '{folder}': {name} is missing or damaged (checksum differs)"
        )


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(_text(values).encode()).hexdigest()


def _text(values: Mapping[str, Any]) -> str:
    return json.dumps(values, indent=1, sort_keys=True)


def _contiguous(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in weights.items()}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
