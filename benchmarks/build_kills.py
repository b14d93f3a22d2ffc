"""What do kills cost a build, and does its shard set ever differ from an undisturbed build's?

Real builds of 12 shards, each with one SIGKILL at a random moment: of the decoding process, a Ray
worker, a node, the driver, or a build without Ray; see
`fault_injection/build_kills.py`. Kills on Ray share a cluster of two nodes on this machine.

    python benchmarks/build_kills.py --kills 50 --seed 0
"""

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from fault_injection import build_kills
from fault_injection.build_kills import Outcome, Stage, Undisturbed
from fault_injection.processes import two_nodes

WITHOUT_RAY = ("decoder", "process")
CLIPS = 144


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--clips", type=int, default=CLIPS, help="in 12 shards")
    options = parser.parse_args()
    started = time.monotonic()
    # Ray's sockets lie below, and their names are bounded.
    with tempfile.TemporaryDirectory(
        prefix="k-", dir="/tmp", ignore_cleanup_errors=True
    ) as scratch:
        world = build_kills.make_world(Path(scratch) / "world", clips=options.clips)
        outcomes, of = _kill(world, Path(scratch), options.kills, options.seed)
    report = {"kills": len(outcomes), "identical": sum(not outcome.faults for outcome in outcomes)}
    report |= _report(outcomes, of) | {"whole_s": round(time.monotonic() - started)}
    print(json.dumps(report))


def _kill(
    world: build_kills.World, scratch: Path, kills: int, seed: int
) -> tuple[list[Outcome], dict[str, Undisturbed]]:
    """Kinds without Ray first; they are so short that they take two of five kills."""
    rng = random.Random(seed)
    outcomes: list[Outcome] = []
    (scratch / "t").mkdir()
    stage = Stage(world=world, scratch=scratch / "t")
    plain = build_kills.undisturbed(stage, scratch / "plain", workers=0)
    _until(outcomes, kills * 2 // 5, stage, WITHOUT_RAY, plain, scratch, rng)
    with two_nodes(stage.scratch) as stage.nodes:
        on_ray = build_kills.undisturbed(stage, scratch / "on_ray", workers=2)
        assert on_ray.files == plain.files
        _until(outcomes, kills, stage, build_kills.RAY_KINDS, on_ray, scratch, rng)
    return outcomes, {"without_ray": plain, "on_ray": on_ray}


def _until(
    outcomes: list[Outcome],
    count: int,
    stage: Stage,
    kinds: tuple[str, ...],
    expected: Undisturbed,
    scratch: Path,
    rng: random.Random,
) -> None:
    """Kills until there are ``count``; a build that ended before its kill is no kill."""
    drawn = build_kills.draw(rng, kinds)
    for number in range(2 * count):
        if len(outcomes) >= count:
            return
        kind, share = next(drawn)
        out = scratch / f"{kind}{number}"
        outcome = build_kills.kill_and_resume(stage, kind, share, expected, out, rng)
        if outcome is not None:
            outcomes.append(outcome)
            print(outcome, file=sys.stderr, flush=True)


def _report(outcomes: list[Outcome], of: dict[str, Undisturbed]) -> dict[str, Any]:
    kinds = dict.fromkeys(outcome.kind for outcome in outcomes)
    by_kind = {kind: [outcome for outcome in outcomes if outcome.kind == kind] for kind in kinds}
    return {
        "not_identical": [
            f"{outcome.kind} at {outcome.share}: {outcome.faults}"
            for outcome in outcomes
            if outcome.faults
        ],
        "by_kind_and_third": {
            kind: dict(Counter(outcome.third for outcome in those))
            for kind, those in by_kind.items()
        },
        "undisturbed_s": {
            name: {"whole": round(one.whole_s, 1), "decoding": round(one.duration_s, 1)}
            for name, one in of.items()
        },
        "longest_to_end_s": {k: max(f.to_end_s for f in those) for k, those in by_kind.items()},
        "longest_extra_s": {
            k: max(outcome.extra_s for outcome in those) for k, those in by_kind.items()
        },
        "shards_begun_again_mean": {
            kind: round(statistics.mean(outcome.restarted for outcome in those), 2)
            for kind, those in by_kind.items()
        },
        "shards_begun_again_most": max(outcome.restarted for outcome in outcomes),
        "shards": 12,
        "left_over": dict(Counter(name for outcome in outcomes for name in outcome.left_over)),
        "scratch_folders_left": sum(outcome.scratch for outcome in outcomes),
    }


if __name__ == "__main__":
    main()
