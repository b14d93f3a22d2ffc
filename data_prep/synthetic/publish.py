"""Makes all clips of a world in parallel and publishes them atomically."""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# (pyarrow ships no types)

import csv
import os
import shutil
import uuid
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from data_prep.synthetic import world
from data_prep.synthetic.clips import write_clip
from data_prep.synthetic.kinds import PLAIN, WorldKind
from data_prep.synthetic.world import PlannedClip

ANNOTATIONS_NAME = "vggsound.csv"
CLIPS_NAME = "clips"
RENDERINGS_NAME = "renderings"
TRUTH_NAME = "truth.parquet"
VERSION = "1"
"""Changes whenever the same seed would produce a different world."""


@dataclass(frozen=True, kw_only=True)
class World:
    """The folder of a finished world."""

    folder: Path
    clips: int
    reused: bool
    """Whether it already existed."""

    @property
    def annotations(self) -> Path:
        """Rows ``youtube id, start seconds, label, split``."""
        return self.folder / ANNOTATIONS_NAME

    @property
    def clips_folder(self) -> Path:
        """The MP4 files."""
        return self.folder / CLIPS_NAME

    @property
    def truth(self) -> Path:
        """The ground truth; ``renderings`` is in the same folder."""
        return self.folder / TRUTH_NAME


def synthesize(
    out: Path, clips: int, seed: int = 0, workers: int | None = None, kind: WorldKind = PLAIN
) -> World:
    """Makes a world of ``clips`` clips in the folder ``out``, or reuses it if it exists there.

    ``workers`` processes (default: one per core) share the work. An interrupted call leaves nothing
    under that name.

    Raises:
        ValueError: ``out`` contains something else, or an argument is out of range.
    """
    if clips < 1:
        raise ValueError(f"clips must be at least 1, got {clips}")
    if seed < 0:
        raise ValueError(f"seed must not be negative, got {seed}")
    identity = _identity(kind, clips, seed)
    if _exists(out, identity):
        return World(folder=out, clips=clips, reused=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    building = out.parent / f".{out.name}-{uuid.uuid4().hex[:12]}"
    building.mkdir()
    try:
        plan = world.plan_world(kind, clips, seed)
        _make_clips(plan, kind, seed, building, workers or os.cpu_count() or 1)
        _write_annotations(plan, building / ANNOTATIONS_NAME)
        _write_truth(plan, kind, building / TRUTH_NAME, identity)
        reused = _exists(out, identity)  # another call may have finished first
        if not reused:
            building.replace(out)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return World(folder=out, clips=clips, reused=reused)


def _identity(kind: WorldKind, clips: int, seed: int) -> dict[bytes, bytes]:
    """What determines a world. The plain kind is not recorded, for it is older than the field."""
    identity = {b"version": VERSION.encode(), b"clips": b"%d" % clips, b"seed": b"%d" % seed}
    return identity if kind.name == PLAIN.name else identity | {b"kind": kind.name.encode()}


def _make_clips(
    plan: list[PlannedClip], kind: WorldKind, seed: int, folder: Path, workers: int
) -> None:
    for name in (CLIPS_NAME, RENDERINGS_NAME):
        (folder / name).mkdir()
    write: Callable[[PlannedClip], None] = partial(write_clip, kind=kind, seed=seed, folder=folder)
    with tqdm(total=len(plan), desc="synthesize", unit="clip") as bar:
        if workers == 1 or len(plan) == 1:
            for clip in plan:
                write(clip)
                bar.update()
            return
        # A fork server would need a socket in TMPDIR, whose path may be too long for one.
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            for _ in pool.map(write, plan, chunksize=max(1, min(4, len(plan) // workers))):
                bar.update()


def _write_annotations(plan: list[PlannedClip], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerows([c.youtube_id, c.start_s, c.class_name, c.split] for c in plan)


def _write_truth(
    plan: list[PlannedClip], kind: WorldKind, path: Path, identity: dict[bytes, bytes]
) -> None:
    """One row per clip; ``sound_class`` is the class of its sound, null if it has none."""
    columns = {
        "key": [c.key for c in plan],
        "youtube_id": [c.youtube_id for c in plan],
        "start_s": [float(c.start_s) for c in plan],
        "split": [c.split for c in plan],
        "class": [c.class_name for c in plan],
        "appearance": [kind.by_name[c.class_name].appearance for c in plan],
        "fits": [c.fits for c in plan],
        "has_sound": [c.sound_class is not None for c in plan],
        "sound_class": pa.array([c.sound_class for c in plan], pa.string()),
    }
    pq.write_table(pa.table(columns).replace_schema_metadata(identity), path)


def _exists(out: Path, identity: dict[bytes, bytes]) -> bool:
    """Whether ``out`` is this world and complete; ValueError if it is anything else but empty."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    truth = out / TRUTH_NAME
    if truth.is_file() and pq.read_schema(truth).metadata == identity:
        keys = pq.read_table(truth, columns=["key"]).column("key").to_pylist()
        if {f"{key}.mp4" for key in keys} == {p.name for p in (out / CLIPS_NAME).iterdir()}:
            return True
    kind, clips, seed = (
        identity.get(name, PLAIN.name.encode()).decode() for name in (b"kind", b"clips", b"seed")
    )
    raise ValueError(
        f"{out} is not empty and is not the {kind} world of {clips} clips with seed {seed}: "
        "remove it or choose another folder"
    )
