"""How does `prepare` scale, what does Ray cost, how much memory does a worker take, how long does a
build take that has nothing to do?

Clips as in `build_speed.py`, linked under as many names as are asked for. Start-up is reported
apart: rates are those between the first finished shard and the last. One core means that all
processes, Ray's own too, are bound to it.

    python benchmarks/prepare_speed.py --clips FOLDER --scratch FOLDER
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clips import link_clips, make_clips

from data_prep import catalog
from data_prep.media.sample import MediaSettings
from data_prep.shards.plan import BuildSettings
from data_prep.shards.records import ShardRecord

SOURCES = 60
CLIPS_PER_SHARD = 50
SETTINGS = BuildSettings(media=MediaSettings(size_px=256), clips_per_shard=CLIPS_PER_SHARD)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--clips", type=Path, help="folder for the generated clips, to keep them")
    parser.add_argument("--scratch", type=Path, help="folder for links and shards")
    parser.add_argument("--steady", type=int, default=3000, help="clips for one core")
    parser.add_argument("--many", type=int, default=5000, help="clips for two cores and repetition")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(_measure(**json.loads(options.measure))))
        return
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        sources = make_clips(options.clips or Path(scratch) / "clips", SOURCES)
        print(json.dumps(_report(sources, Path(scratch), options.steady, options.many)))


def _report(sources: list[Path], scratch: Path, steady: int, many: int) -> dict[str, Any]:
    for count in (100, steady, many):
        link_clips(sources, scratch / f"links{count}", count)

    def measured(count: int, cores: int, workers: int, out: str = "") -> dict[str, Any]:
        asked = {
            "clips": str(scratch / f"links{count}"),
            "out": str(scratch / (out or f"out{count}-{cores}-{workers}")),
            "workers": workers,
        }
        command = [sys.executable, __file__, "--measure", json.dumps(asked)]
        bound = ["taskset", "-c", ",".join(map(str, range(cores)))]
        done = subprocess.run(bound + command, check=True, stdout=subprocess.PIPE)
        return json.loads(done.stdout.splitlines()[-1])

    one_bare = measured(steady, cores=1, workers=0)
    one_ray = measured(steady, cores=1, workers=1)
    few = measured(100, cores=2, workers=2)
    two_ray = measured(many, cores=2, workers=2, out="many")
    again = measured(many, cores=2, workers=2, out="many")
    return {
        "without_ray_one_core": one_bare,
        "ray_one_core": one_ray,
        "ray_two_cores": two_ray,
        "two_cores_over_one": round(two_ray["clips_per_s"] / one_ray["clips_per_s"], 3),
        "cost_of_ray": round(one_bare["clips_per_s"] / one_ray["clips_per_s"] - 1, 3),
        "worker_mb_at_100_clips": few["worker_mb"],
        f"worker_mb_at_{many}_clips": two_ray["worker_mb"],
        "driver_mb": two_ray["driver_mb"],
        f"nothing_to_do_at_{many}_clips_s": again["whole_s"],
    }


def _measure(clips: str, out: str, workers: int) -> dict[str, Any]:
    """One build in this process and its children."""
    from workflows.commands import prepare

    started = time.monotonic()
    peaks = _Peaks(with_ray=workers > 0)
    finished: list[tuple[float, int]] = []
    real = prepare._shown

    def noting(building: Iterator[ShardRecord], planned: Any) -> Iterator[ShardRecord]:
        for record in real(building, planned):
            finished.append((time.monotonic(), len(record.rows)))
            yield record

    prepare._shown = noting
    prepare.prepare(catalog.read_folder(clips), SETTINGS, out, workers)
    whole_s = time.monotonic() - started
    report: dict[str, Any] = {"whole_s": round(whole_s, 1), **peaks.stop()}
    if finished:
        first_s = finished[0][0]
        counted = sum(count for _, count in finished[1:])
        report["start_s"] = round(first_s - started, 1)
        report["clips_per_s"] = round(counted / (finished[-1][0] - first_s), 2)
    return report


class _Peaks:
    """Largest resident memory of a worker, its decoder included, and of the driver, in MB."""

    def __init__(self, *, with_ray: bool) -> None:
        self._with_ray = with_ray
        self._worker, self._driver, self._ended = 0, 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> dict[str, float]:
        self._ended.set()
        self._thread.join()
        return {
            "worker_mb": round(self._worker / 1e3, 1),
            "driver_mb": round(self._driver / 1e3, 1),
        }

    def _watch(self) -> None:
        while not self._ended.wait(0.5):
            self._look()

    def _look(self) -> None:
        parents, sizes, workers = {}, {}, []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                status = (folder / "status").read_text()
                name = (folder / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            pid = int(folder.name)
            fields = dict(re.findall(r"(PPid|VmRSS):\s+(\d+)", status))
            parents[pid], sizes[pid] = int(fields["PPid"]), int(fields.get("VmRSS", 0))
            if "ShardBuilder" in name:
                workers.append(pid)
        here = os.getpid()
        for worker in workers if self._with_ray else [here]:
            family = [worker, *(pid for pid, parent in parents.items() if parent == worker)]
            self._worker = max(self._worker, sum(sizes[pid] for pid in family))
        self._driver = max(self._driver, sizes[here])


if __name__ == "__main__":
    main()
