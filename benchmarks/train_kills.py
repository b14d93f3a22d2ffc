"""Does a training that was killed end in the very bytes of an undisturbed one?

Real trainings of each stage in processes of their own, on a path and into an S3 server, each killed
by SIGKILL at a drawn call of a function of the program (every third one twice) and then resumed:
see `tests/faults/train_kills.py`.

    python benchmarks/train_kills.py --kills 100 --seed 0
"""

import argparse
import itertools
import json
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from fault_injection import train_kills
from fault_injection.clips import write_clip
from fault_injection.s3_servers import serve_s3
from fault_injection.train_kills import MOMENTS, POINTS, Fate, Point, Trainings


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch, serve_s3(Path(scratch)) as server:
        os.environ.update(server.env)
        shards = train_kills.make_shards(Path(scratch), write_clip)
        on_path = Trainings(shards, f"{scratch}/runs", {})
        in_store = Trainings(shards, f"{server.new_place()}/runs", server.env)
        fates = _kill(on_path, in_store, options.kills, options.seed)
    print(json.dumps(_report(fates) | {"whole_s": round(time.monotonic() - started)}))
    sys.exit(any(fate.faults for fate in fates))


def _kill(on_path: Trainings, in_store: Trainings, kills: int, seed: int) -> list[Fate]:
    """Cases until so many kills have happened; uploads, and every other case, into the store."""
    fates: list[Fate] = []
    for number, case in enumerate(train_kills.cases(seed)):
        if sum(fate.killed for fate in fates) >= kills:
            break
        stored = case.moment == "upload" or number % 2
        fates.append((in_store if stored else on_path).suffer(case, number))
        print(fates[-1], file=sys.stderr, flush=True)
    return fates


def _report(fates: list[Fate]) -> dict[str, object]:
    killed = [fate for fate in fates if fate.killed]
    return {
        "trainings": len(fates),
        "kills": sum(fate.killed for fate in fates),
        "identical": sum(not fate.faults for fate in fates),
        "not_identical": [str(fate) for fate in fates if fate.faults],
        "trainings_killed_by_stage_and_moment": {
            moment: dict(Counter(f"stage{f.case.stage}" for f in killed if f.case.moment == moment))
            for moment in MOMENTS
        },
        "killed_twice": sum(fate.killed > 1 for fate in fates),
        "points": dict(
            Counter(
                _name(kill.point)
                for fate in killed
                for kill in itertools.islice(fate.case.kills, fate.killed)
            )
        ),
        "kinds_of_points": sum(len(points) for points in POINTS.values()),
    }


def _name(point: Point) -> str:
    when = "half done" if point.half else "after" if point.after else "before"
    return f"{when} {point.name}"


if __name__ == "__main__":
    main()
