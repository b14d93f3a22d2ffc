"""Does a killed training run end in the same bytes as an undisturbed one?

Real runs of each stage in separate processes, on a local path and on an S3 server, each killed with
SIGKILL at a randomly chosen function call (every third one twice) and then resumed:
see `fault_injection/train_kills.py`.

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
from fault_injection.train_kills import MOMENTS, POINTS, Outcome, Point, Trainings


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
        outcomes = _kill(on_path, in_store, options.kills, options.seed)
    print(json.dumps(_report(outcomes) | {"whole_s": round(time.monotonic() - started)}))
    sys.exit(any(outcome.faults for outcome in outcomes))


def _kill(on_path: Trainings, in_store: Trainings, kills: int, seed: int) -> list[Outcome]:
    """Runs cases until that many kills happened; uploads and every other case use the store."""
    outcomes: list[Outcome] = []
    for number, case in enumerate(train_kills.cases(seed)):
        if sum(outcome.killed for outcome in outcomes) >= kills:
            break
        stored = case.moment == "upload" or number % 2
        outcomes.append((in_store if stored else on_path).kill_and_resume(case, number))
        print(outcomes[-1], file=sys.stderr, flush=True)
    return outcomes


def _report(outcomes: list[Outcome]) -> dict[str, object]:
    killed = [outcome for outcome in outcomes if outcome.killed]
    return {
        "trainings": len(outcomes),
        "kills": sum(outcome.killed for outcome in outcomes),
        "identical": sum(not outcome.faults for outcome in outcomes),
        "not_identical": [str(outcome) for outcome in outcomes if outcome.faults],
        "trainings_killed_by_stage_and_moment": {
            moment: dict(Counter(f"stage{f.case.stage}" for f in killed if f.case.moment == moment))
            for moment in MOMENTS
        },
        "killed_twice": sum(outcome.killed > 1 for outcome in outcomes),
        "points": dict(
            Counter(
                _name(kill.point)
                for outcome in killed
                for kill in itertools.islice(outcome.case.kills, outcome.killed)
            )
        ),
        "kinds_of_points": sum(len(points) for points in POINTS.values()),
    }


def _name(point: Point) -> str:
    when = "half done" if point.half else "after" if point.after else "before"
    return f"{when} {point.name}"


if __name__ == "__main__":
    main()
