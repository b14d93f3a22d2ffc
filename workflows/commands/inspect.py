"""``aiaic inspect``: show a shard set as a page, with samples to look at and listen to."""

import dataclasses
import hashlib
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_prep import storage
from data_prep.shards.manifest import (
    WRITTEN,
    Manifest,
    load_index,
    load_manifest,
    picture_place,
    sound_place,
)
from workflows.commands import verify
from workflows.options import Inspect, Outcome
from workflows.report import shard_statistics, templating

PAGE = "index.html"
SAMPLES_FOLDER = "samples"
_SAMPLE_FILE = re.compile(r"\d{4}(-\d+)?\.(jpg|wav|flac)")
_SOUND_SUFFIXES = {b"RIFF": ".wav", b"fLaC": ".flac"}
_SAMPLE_COLUMNS = (
    "key", "label", "split", "shard", "has_sound", "sound_fate", "sound_start_s", "sound_s",
    "rms_dbfs", "requested_s", "actual_s", "width", "height", "colorfulness",
    "picture_offsets", "picture_sizes", "sound_offset", "sound_size",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShownSample:
    """A sample on the contact sheet."""

    row: dict[str, Any]
    """Its row of the index."""
    pictures: tuple[str, ...]
    """Files of its pictures, relative to the page."""
    sound: str | None
    """File of its sound, relative to the page; None without usable sound."""


def run(options: Inspect) -> Outcome:
    """Carry out the command.

    Raises:
        ValueError: the shards are damaged, the folder is not local, or the number of samples is
            negative.
        OSError: there are no shards, or the page cannot be written.
    """
    if options.samples < 0:
        raise ValueError(f"--samples is {options.samples}: give 0 or more")
    folder = storage.local_path(options.out)
    manifest = load_manifest(options.shards)
    index = load_index(options.shards, manifest)
    order = _shuffled(index.column("key").to_pylist(), options.seed)
    rows = choose(index, order, options.samples)
    shown = _write_samples(options.shards, rows, folder / SAMPLES_FOLDER)
    page = folder / PAGE
    storage.write_bytes(str(page), render(options.shards, manifest, index, shown, order).encode())
    counts = verify.counts(manifest)
    values = {"shards": options.shards, "page": str(page), "samples": len(shown)} | counts
    return Outcome(values=values, text=f"{verify.in_words(manifest)}\npage: {page}")


def choose(index: Any, order: Sequence[int], limit: int) -> list[dict[str, Any]]:
    """Choose the samples to show: spread evenly over the labels, and sorted by label.

    Args:
        index: index of the shard set.
        order: row numbers of the index, in random order.
        limit: number of samples.
    """
    labels, fates = (index.column(name).to_pylist() for name in ("label", "fate"))
    drawn: defaultdict[str, int] = defaultdict(int)
    turns: list[tuple[int, int, int]] = []
    for position, row in enumerate(order):
        if fates[row] == WRITTEN:
            turns.append((drawn[labels[row]], position, row))
            drawn[labels[row]] += 1
    chosen = [row for *_, row in sorted(turns)[:limit]]
    rows = index.select(list(_SAMPLE_COLUMNS)).take(np.array(chosen, np.int64)).to_pylist()
    return sorted(rows, key=lambda row: (row["label"], row["key"]))


def render(
    shards: str,
    manifest: Manifest,
    index: Any,
    shown: Sequence[ShownSample],
    order: Sequence[int],
) -> str:
    """The page as HTML.

    Args:
        shards: place of the shards.
        manifest: manifest of the shards.
        index: index of the shards.
        shown: samples of the contact sheet.
        order: row numbers of the index, in the order in which examples are chosen.
    """
    labels = shard_statistics.label_rows(index)
    return (
        templating.environment()
        .get_template("inspect.html.j2")
        .render(
            shards=shards,
            manifest=manifest,
            digest=manifest.digest,
            shown=shown,
            splits=shard_statistics.split_rows(index),
            labels=labels[: shard_statistics.MAX_LABELS],
            more_labels=labels[shard_statistics.MAX_LABELS :],
            histograms=shard_statistics.histograms(index),
            frame_sizes=shard_statistics.frame_sizes(index),
            sound_fates=shard_statistics.sound_fates(index),
            cropped=shard_statistics.cropped(index),
            rejections=shard_statistics.rejection_rows(index, order),
            settings=shard_statistics.settings(manifest),
            picture_bytes=sum(entry.picture.bytes for entry in manifest.shards),
            sound_bytes=sum(entry.sound.bytes for entry in manifest.shards),
        )
    )


def _shuffled(keys: Sequence[str], seed: int) -> list[int]:
    """Indices of the keys in an order given by a hash of seed and key."""
    return sorted(
        range(len(keys)),
        key=lambda index: hashlib.sha256(f"{seed}/{keys[index]}".encode()).digest(),
    )


def _write_samples(shards: str, rows: Sequence[dict[str, Any]], folder: Path) -> list[ShownSample]:
    """Replace the samples beside the page; files are numbered, since keys may not be file names."""
    if folder.is_dir():
        for old in folder.iterdir():
            if _SAMPLE_FILE.fullmatch(old.name):
                old.unlink()
    shown: list[ShownSample] = []
    for number, row in enumerate(rows, start=1):
        pictures: list[str] = []
        ranges = zip(row["picture_offsets"], row["picture_sizes"], strict=True)
        for position, (offset, size) in enumerate(ranges):
            picture = storage.read_range(picture_place(shards, row["shard"]), offset, size)
            pictures.append(_write(folder, f"{number:04d}-{position}.jpg", picture))
        sound = None
        if row["has_sound"]:
            place = sound_place(shards, row["shard"])
            content = storage.read_range(place, row["sound_offset"], row["sound_size"])
            sound = _write(folder, f"{number:04d}{_sound_suffix(content, row['key'])}", content)
        shown.append(ShownSample(row=row, pictures=tuple(pictures), sound=sound))
    return shown


def _write(folder: Path, name: str, content: bytes) -> str:
    storage.write_bytes(str(folder / name), content)
    return f"{SAMPLES_FOLDER}/{name}"


def _sound_suffix(content: bytes, key: str) -> str:
    suffix = _SOUND_SUFFIXES.get(content[:4])
    if suffix is None:
        raise ValueError(f"the sound of {key} is neither WAV nor FLAC: run 'aiaic verify'")
    return suffix
