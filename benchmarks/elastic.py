"""Who should restart and resize the workers: Ray Train itself, or our driver?

One training of a stage on a real cluster of two nodes in this machine, once with `--workers 1:2`
and once with Ray's own `ScalingConfig(num_workers=(1, 2))` and `max_failures=-1`; in both the
workers resume from the newest checkpoint in the run's folder. In turn a node is killed, one joins,
and the driver is killed and given again. Both look every two seconds whether the cluster has grown.

For each: seconds from the event to the next checkpoint by as many workers as there is room for, and
steps that had to be taken again.

    python benchmarks/elastic.py --rounds 3
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from fault_injection import train_kills, train_kills_ray
from fault_injection.clips import write_clip
from fault_injection.processes import Nodes, two_nodes, wait_for
from fault_injection.train_kills_ray import Driver, workers

SAVE_EVERY = 6
"""Steps, of 0.04 s and what they take."""
_PATIENCE_S = 400.0
_WHO = {"ours": ("1:2", {}), "rays_own": ("2", {"RAYS_OWN": "1"})}

Found = dict[str, list[tuple[float, int]]]
"""By event: seconds, and steps taken again, of each round."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    # Ray's sockets lie below, and their names are bounded.
    with tempfile.TemporaryDirectory(prefix="k-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        scratch = Path(folder)
        shards = train_kills.make_shards(scratch, write_clip)
        report = {}
        for who in _WHO:
            (scratch / who).mkdir()
            with two_nodes(scratch / who) as nodes:
                report[who] = _figures(_suffer(nodes, shards, scratch, who, options.rounds))
    print(json.dumps(report))


def _suffer(nodes: Nodes, shards: str, scratch: Path, who: str, rounds: int) -> Found:
    chosen = train_kills_ray.settings(
        stage1__steps=1_000_000,
        training__validate_every=SAVE_EVERY,
        training__save_every=SAVE_EVERY,
        training__collective_timeout_s=20,
    )
    count, environment = _WHO[who]
    driver = Driver(
        nodes=nodes,
        shards=shards,
        out=scratch / f"{who}-run",
        arguments=["--stage", "1", "--workers", count, "--set", *chosen],
        environment=environment,
    )
    found: Found = {}

    def event(name: str, happens: Callable[[], None], count: int) -> None:
        time.sleep(3.0)  # so that many steps lie between two events
        before, repeated = set(workers()), driver.repeated
        happens()
        started = time.monotonic()
        wait_for(lambda: len(workers()) == count and not before & set(workers()), name, _PATIENCE_S)
        newest = driver.newest(1)
        wait_for(lambda: driver.newest(1) > newest, "checkpoint", _PATIENCE_S)
        found.setdefault(name, []).append((time.monotonic() - started, driver.repeated - repeated))
        print(who, name, found[name][-1], file=sys.stderr, flush=True)

    def again() -> None:
        driver.kill()
        wait_for(lambda: not workers(), "end of the workers")
        driver.start()

    driver.start()
    try:
        driver.saved(1, SAVE_EVERY)
        for _ in range(rounds):
            event("a node dies", nodes.kill, 1)
            event("a node joins", nodes.restore, 2)
            event("the driver dies", again, 2)
    finally:
        driver.kill()
    return found


def _figures(found: Found) -> dict[str, dict[str, float]]:
    return {
        name: {
            "median_s": round(statistics.median(seconds for seconds, _ in rounds), 1),
            "most_s": round(max(seconds for seconds, _ in rounds), 1),
            "steps_again": round(statistics.mean(steps for _, steps in rounds), 1),
        }
        for name, rounds in found.items()
    }


if __name__ == "__main__":
    main()
