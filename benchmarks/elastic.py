"""What should restart and resize the workers: Ray Train itself, or our driver?

One run of a stage on a real cluster of two nodes on this machine, once with `--workers 1:2`
and once with Ray's own `ScalingConfig(num_workers=(1, 2))` and `max_failures=-1`; in both the
workers resume from the newest checkpoint in the run's folder. In turn a node is killed, one joins,
and the driver is killed and rerun. Both check every two seconds whether the cluster has grown.

Reports for each the seconds from the event to the next checkpoint by as many workers as the cluster
has room for, and the number of repeated steps.

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
"""In steps, which are slowed down by 0.04 s each."""
_TIMEOUT_S = 400.0
_WHO = {"ours": ("1:2", {}), "rays_own": ("2", {"RAYS_OWN": "1"})}

Found = dict[str, list[tuple[float, int]]]
"""By event: seconds and repeated steps of each round."""


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
                report[who] = _figures(
                    _kill_and_measure(nodes, shards, scratch, who, options.rounds)
                )
    print(json.dumps(report))


def _kill_and_measure(nodes: Nodes, shards: str, scratch: Path, who: str, rounds: int) -> Found:
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
        time.sleep(3.0)  # so that there are many steps between two events
        before, repeated = set(workers()), driver.repeated
        happens()
        started = time.monotonic()
        wait_for(lambda: len(workers()) == count and not before & set(workers()), name, _TIMEOUT_S)
        newest = driver.newest(1)
        wait_for(lambda: driver.newest(1) > newest, "checkpoint", _TIMEOUT_S)
        found.setdefault(name, []).append((time.monotonic() - started, driver.repeated - repeated))
        print(who, name, found[name][-1], file=sys.stderr, flush=True)

    def rerun() -> None:
        driver.kill()
        wait_for(lambda: not workers(), "end of the workers")
        driver.start()

    driver.start()
    try:
        driver.wait_for_checkpoint(1, SAVE_EVERY)
        for _ in range(rounds):
            event("a node dies", nodes.kill, 1)
            event("a node joins", nodes.restore, 2)
            event("the driver dies", rerun, 2)
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
