"""What the driver does alone, measured at full scale: catalog, plan, records, manifest, dispatch.

The clips do not exist: files of no bytes stand for them, files with holes for the tars, and records
are made that a build of such clips would have left. All that the driver runs is the real code.
"""

import hashlib
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from pyarrow import fs as arrow_fs

from data_prep import storage
from data_prep.catalog import Catalog, Clip, read_vggsound
from data_prep.shards import records
from data_prep.shards.manifest import WRITTEN, ShardEntry, picture_place, sound_place
from data_prep.shards.plan import BuildSettings, PlannedShard, choose_shard_count, plan
from data_prep.shards.publish import publish_manifest, read_manifest_bytes
from data_prep.shards.records import ClipRow, ShardRecord
from data_prep.shards.tar import TarRecord
from data_prep.storage import s3

SETTINGS = BuildSettings()
LABELS = 309
SOUND_BYTES, SOURCE_BYTES = 320_044, 1_000_000


def main() -> None:
    """A process of its own for each measurement: its peak is then its memory."""
    steps = {"fresh": fresh, "again": again, "dispatch": dispatch, "s3_names": s3_names}
    step, *places = sys.argv[1:]
    print(json.dumps(steps[step](*places)))


def measured(step: str, *places: str) -> dict[str, Any]:
    """What ``main`` prints."""
    command = [sys.executable, __file__, step, *places]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout.splitlines()[-1])


def make_input(folder: Path, count: int) -> None:
    """``vggsound.csv``, and a file of no bytes for each of its rows under ``clips``."""
    names = [hashlib.sha256(str(n).encode()).hexdigest()[:11] for n in range(count)]
    (folder / "clips").mkdir()
    rows = []
    for number, name in enumerate(names):
        (folder / "clips" / f"{name}_{30:06d}.mp4").touch()
        split = "test" if number % 13 == 0 else "train"
        rows.append(f'{name},30,"label, number {number % LABELS}",{split}\n')
    (folder / "vggsound.csv").write_text("".join(rows))


def fresh(folder: str, out: str) -> dict[str, Any]:
    """The driver of a first build, whose workers need no time; its records are left in ``out``."""
    watch = _Watch()
    found, shards = _planned(watch, folder, out)
    made = [_record(shard) for shard in shards]
    watch.lap("made_records")
    built = [records.decode(records.encode(record)) for record in made]
    watch.lap("records_from_workers")
    del made
    manifest = publish_manifest(found, built, SETTINGS, out, expected=None)
    watch.lap("publish_manifest")
    report = watch.report()
    for record in built:
        records.store(record, out)
        _stand(record, out)
    return report | {
        "clips": len(found.clips),
        "shards": len(shards),
        "index_bytes": storage.size_of(storage.join(out, manifest.index.name)),
        "manifest_bytes": len(manifest.to_bytes()),
        "record_bytes_mean": sum(len(records.encode(record)) for record in built) // len(built),
    }


def again(folder: str, out: str) -> dict[str, Any]:
    """The driver of a second build, which finds all shards standing."""
    watch = _Watch()
    found, shards = _planned(watch, folder, out)
    expected = read_manifest_bytes(out)
    watch.lap("standing_manifest")
    standing = records.find_reusable(shards, SETTINGS, out)
    watch.lap("find_standing")
    assert len(standing) == len(shards)
    publish_manifest(found, standing.values(), SETTINGS, out, expected=expected)
    watch.lap("publish_manifest")
    return watch.report()


def dispatch(folder: str, out: str) -> dict[str, Any]:
    """Ray Data hands out all shards to workers that send made records back at once."""
    from workflows.commands import prepare

    _, shards = _planned(_Watch(), folder, out)
    prepare.ShardBuilder = _Instant
    finished: list[tuple[float, float]] = []
    for _ in prepare._build_on_ray(shards, SETTINGS, out, workers=2):
        finished.append((time.monotonic(), time.process_time()))
    # The first ones wait for the workers to start. Beside the driver's own processor time, the
    # elapsed time holds that of the two workers, of Ray's other processes and of all else here.
    (began, cpu_began), (ended, cpu_ended) = finished[9], finished[-1]
    per_shard = 1e3 / (len(finished) - 10)
    return {
        "dispatch_cpu_ms": round(per_shard * (cpu_ended - cpu_began), 2),
        "dispatch_elapsed_ms": round(per_shard * (ended - began), 2),
    }


def s3_names(folder: str, _out: str) -> dict[str, Any]:
    """The driver's share in listing a bucket of clips: names are taken apart."""
    infos = arrow_fs.LocalFileSystem().get_file_info(arrow_fs.FileSelector(f"{folder}/clips"))
    s3.list_infos = lambda place: infos
    storage.filesystem = lambda place: (None, f"{folder}/clips")
    began = time.process_time()
    count = len(storage.list_files("s3://bucket/clips?endpoint_override=127.0.0.1:1&scheme=http"))
    return {"names_cpu_s": round(time.process_time() - began, 2), "names": count}


class _Instant:
    def __init__(self, settings: BuildSettings, out: str) -> None:
        self.content = b""

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        if not self.content:
            clips = tuple(Clip(**clip) for clip in row["clips"])
            shard = PlannedShard(index=row["index"], shard_count=row["shard_count"], clips=clips)
            self.content = records.encode(_record(shard))
        return {"record": self.content, "failure": ""}


class _Watch:
    """Seconds of each step, of the clock and of processors, and the peak of memory after it."""

    def __init__(self) -> None:
        self._since, self._laps = (time.monotonic(), time.process_time()), dict[str, Any]()

    def lap(self, step: str) -> None:
        now = time.monotonic(), time.process_time()
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        self._laps[step] = {
            "elapsed_s": round(now[0] - self._since[0], 2),
            "cpu_s": round(now[1] - self._since[1], 2),
            "peak_mb": round(peak_mb),
        }
        self._since = time.monotonic(), time.process_time()

    def report(self) -> dict[str, Any]:
        return dict(self._laps)


def _planned(watch: _Watch, folder: str, out: str) -> tuple[Catalog, tuple[PlannedShard, ...]]:
    found = read_vggsound(str(Path(folder, "vggsound.csv")), str(Path(folder, "clips")))
    watch.lap("catalog")
    shards = plan(found.clips, choose_shard_count(len(found.clips), SETTINGS, out))
    watch.lap("plan")
    return found, shards


def _record(planned: PlannedShard) -> ShardRecord:
    """As a build of clips of ten seconds leaves it."""
    draw = np.random.default_rng(planned.index)
    name = f"shard-{planned.index:05d}-{draw.bytes(6).hex()}"
    count = len(planned.clips)
    pictures = _tar(draw, count)
    sounds = _tar(draw, count)
    return ShardRecord(
        index=planned.index,
        shard_count=planned.shard_count,
        fingerprint=records.fingerprint(planned, SETTINGS),
        stamps=records.stamps(planned),
        entry=ShardEntry(name=name, clips=count, picture=pictures, sound=sounds),
        rows=tuple(_row(draw, name, number, clip) for number, clip in enumerate(planned.clips)),
    )


def _row(draw: np.random.Generator, shard: str, number: int, clip: Clip) -> ClipRow:
    size = int(draw.integers(20_000, 32_000))
    return ClipRow(
        key=clip.key,
        fate=WRITTEN,
        shard=shard,
        has_sound=True,
        sound_fate="kept",
        sound_s=10.0,
        rms_dbfs=float(draw.uniform(-40, -10)),
        peak_dbfs=float(draw.uniform(-10, 0)),
        requested_s=(5.0,),
        actual_s=(float(draw.uniform(4.96, 5.0)),),
        width=171,
        height=96,
        source_width=640,
        source_height=360,
        source_bytes=int(draw.integers(SOURCE_BYTES // 2, SOURCE_BYTES * 3 // 2)),
        source_sha256=draw.bytes(32).hex(),
        colorfulness=float(draw.uniform(5, 90)),
        picture_hash=(draw.bytes(8).hex(),),
        picture_offsets=(512 + number * 30_000,),
        picture_sizes=(size,),
        sound_offset=512 + number * 320_512,
        sound_size=SOUND_BYTES,
    )


def _tar(draw: np.random.Generator, clips: int) -> TarRecord:
    """Much smaller than a real one: it is never opened, but rclone reads what it lists."""
    return TarRecord(bytes=100 * clips, sha256=draw.bytes(32).hex())


def _stand(record: ShardRecord, out: str) -> None:
    """Files with holes in the place of the tars."""
    assert record.entry is not None
    for place, tar in (
        (picture_place(out, record.entry.name), record.entry.picture),
        (sound_place(out, record.entry.name), record.entry.sound),
    ):
        path = storage.local_path(place)
        path.parent.mkdir(exist_ok=True)
        with path.open("wb") as file:
            file.truncate(tar.bytes)


if __name__ == "__main__":
    main()
