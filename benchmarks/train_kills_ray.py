"""What do kills cost a training run on Ray, and are any samples skipped or repeated?

One run of three stages by two workers on two Ray nodes on this machine, which is killed repeatedly:
a worker, a node (replaced at once) or the driver (rerun), each during a step, while a checkpoint is
written, and while the workers start; see `fault_injection/train_kills_ray.py`. At the end, the
ledgers of its checkpoints must match the sampling plan, and its curves must have no gaps.

    python benchmarks/train_kills_ray.py --kills 18 --seed 0
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from fault_injection import train_kills, train_kills_ray
from fault_injection.clips import write_clip
from fault_injection.processes import two_nodes
from fault_injection.train_kills_ray import KINDS, MOMENTS, Driver, Outcome

STEPS, SAVE_EVERY = 80, 5


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=18)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    # Ray's sockets lie below, and their names are bounded.
    with tempfile.TemporaryDirectory(prefix="k-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        report = _run(Path(folder), options.kills, options.seed)
    print(json.dumps(report))
    sys.exit(bool(report["faults"]))


def _run(scratch: Path, kills: int, seed: int) -> dict[str, object]:
    shards = train_kills.make_shards(scratch, write_clip)
    chosen = train_kills_ray.settings(
        stage1__steps=STEPS,
        stage2__steps=STEPS,
        stage3__steps=STEPS,
        training__validate_every=STEPS // 2,
        training__save_every=SAVE_EVERY,
        training__collective_timeout_s=20,
    )
    drawn = list(train_kills_ray.draw(seed, kills, STEPS, SAVE_EVERY))
    (scratch / "t").mkdir()
    with two_nodes(scratch / "t") as nodes:
        arguments = ["--stage", "all", "--workers", "2", "--set", *chosen]
        driver = Driver(nodes=nodes, shards=shards, out=scratch / "run", arguments=arguments)
        started = time.monotonic()
        try:
            outcomes = train_kills_ray.kill_and_resume(driver, drawn)
            code = driver.wait()
        finally:
            driver.kill()
        faults = train_kills_ray.faults(shards, driver.out, chosen, (1, 2, 3))
        if code:
            faults.append(f"the driver ended with {code}: {driver.log_lines[-1]}")
        return {
            "kills": len(outcomes),
            "faults": faults,
            "attempts": len(driver.sizes),
            "whole_s": round(time.monotonic() - started),
            "back_s": {kind: _back(outcomes, "kind", kind) for kind in KINDS}
            | {moment: _back(outcomes, "moment", moment) for moment in MOMENTS},
            "each": [asdict(outcome) for outcome in outcomes],
        }


def _back(outcomes: list[Outcome], key: str, value: str) -> dict[str, float]:
    """Time from a kill to the next checkpoint, for kills with no other kill in between."""
    found = [f.back_s for f in outcomes if f.back_s and getattr(f.kill, key) == value]
    if not found:
        return {"kills": 0}
    return {"kills": len(found), "median": statistics.median(found), "most": max(found)}


if __name__ == "__main__":
    main()
