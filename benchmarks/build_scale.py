"""How long do 200,000 clips take on 20 nodes of 16 cores against S3, and what is the limit?

Three answers beside each other: the driver's own work, measured at full size; an estimate on paper
(`scale_paper.py`); a simulation (`scale_simulation.py`). The simulation is checked against real
builds through a slow proxy (`scale_check.py`). `docs/scale.md` says what came out.

    python benchmarks/build_scale.py --clips FOLDER --scratch FOLDER
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import scale_check
import scale_driver
from clips import make_clips
from scale_paper import GBIT, Setup, estimate
from scale_simulation import simulate

from data_prep import storage
from data_prep.catalog import Clip
from data_prep.media.isolated_decoder import decode_clip
from data_prep.media.sample import MediaSettings
from fault_injection.s3_servers import serve_s3

CLIPS = 200_000
EIGHT = {"prefixes": 8}
TEN = {"pictures": 10, "decode_s": 0.080}
SPARE = {"attempts": 12}
VARIANTS: dict[str, dict[str, Any]] = {
    "one_prefix": {},
    "one_prefix_12_tries": SPARE,
    "one_prefix_half_the_rate": {"gets_per_s": 2750.0},
    "one_prefix_half_the_rate_12_tries": {"gets_per_s": 2750.0} | SPARE,
    "eight_prefixes": EIGHT,
    "eight_prefixes_30_ms": EIGHT | {"first_byte_s": 0.030},
    "eight_prefixes_100_ms": EIGHT | {"first_byte_s": 0.100},
    "eight_prefixes_100_ms_8_readers": EIGHT | {"first_byte_s": 0.100, "readers": 8},
    "eight_prefixes_10_gbit": EIGHT | {"node_bytes_per_s": 10 * GBIT},
    "eight_prefixes_64_clips_a_shard": EIGHT | {"clips_per_shard": 64},
    "eight_prefixes_slow_cores": EIGHT | {"decode_s": 0.050},
    "one_prefix_10_pictures": TEN,
    "eight_prefixes_10_pictures": EIGHT | TEN,
    "eight_prefixes_10_pictures_10_gbit": EIGHT | TEN | {"node_bytes_per_s": 10 * GBIT},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--clips", type=Path, help="folder for the generated clips, to keep them")
    parser.add_argument("--scratch", type=Path, help="folder for what the measurements write")
    parser.add_argument("--parts", default="costs,driver,dispatch,scale,check")
    options = parser.parse_args()
    parts = options.parts.split(",")
    report: dict[str, Any] = {"load": round(os.getloadavg()[0], 1)}
    with tempfile.TemporaryDirectory(dir=options.scratch) as name:
        folder = options.clips or Path(name) / "sources"
        if "costs" in parts:
            report["costs"] = _costs(folder, Path(name))
        if "driver" in parts or "dispatch" in parts:
            report["driver"] = _driver(Path(name), CLIPS, dispatch="dispatch" in parts)
        if "scale" in parts:
            report["scale"] = {name: _scale(own) for name, own in VARIANTS.items()}
        if "check" in parts:
            report["check"] = scale_check.check(count=160, shards=4)
    print(json.dumps(report))


def _costs(folder: Path, scratch: Path) -> dict[str, float]:
    """Processor milliseconds of one core; the least of several tries, as other work slows all."""
    paths = make_clips(folder, 12)
    clip = Clip(key="x", youtube_id="x", start_s=0, label="", split="train", uri="")

    def decode(pictures: int) -> float:
        media = MediaSettings(pictures=pictures)
        return median(
            _cpu_ms(lambda path=path: decode_clip(path, clip, media), 5) for path in paths
        )

    root, tar = scratch / "root", scratch / "tar"
    (root / "bucket").mkdir(parents=True)
    tar.write_bytes(os.urandom(int(Setup().shard_bytes[1])))
    with serve_s3(root) as server:
        os.environ.update(server.env)
        (root / "bucket" / "clip").write_bytes(os.urandom(int(Setup().source_bytes)))
        read = _cpu_ms(lambda: storage.read_bytes("s3://bucket/clip"), 40)
        publish = _cpu_ms(lambda: storage.publish(tar, "s3://bucket/tar"), 8)
    return {
        "decode_ms": round(decode(1), 1),
        "decode_10_ms": round(decode(10), 1),
        "read_ms": round(read, 2),
        "publish_ms": round(publish, 1),
    }


def _cpu_ms(work: Callable[[], object], tries: int) -> float:
    took = []
    for _ in range(tries):
        started = time.process_time()
        work()
        took.append(1e3 * (time.process_time() - started))
    return min(took)


def _driver(scratch: Path, count: int, *, dispatch: bool) -> dict[str, Any]:
    bucket = scratch / "stores" / "bucket"
    bucket.mkdir(parents=True)
    scale_driver.make_input(scratch, count)
    report = {
        "fresh": scale_driver.measured("fresh", str(scratch), str(bucket / "out")),
        "again": scale_driver.measured("again", str(scratch), str(bucket / "out")),
        "s3_names": scale_driver.measured("s3_names", str(scratch), ""),
    }
    with serve_s3(bucket.parent) as server:
        os.environ.update(server.env)
        report["again_s3"] = scale_driver.measured("again", str(scratch), "s3://bucket/out")
    if dispatch:
        report["dispatch"] = scale_driver.measured("dispatch", str(scratch), str(bucket / "out"))
    return report


def _scale(own: dict[str, Any]) -> dict[str, Any]:
    setup = Setup(**own)
    result = {"paper": estimate(setup), "simulation": simulate(setup)}
    print(own, result, file=sys.stderr, flush=True)
    return result


if __name__ == "__main__":
    main()
