"""How much time goes into steps that are not lost, when training is killed repeatedly?

Stage 1 of `compact` in a separate process that is killed by SIGKILL after every so many seconds and
restarted at once until the stage is finished. Two figures for each interval: the share of the steps
taken that are kept in the end (what TorchFT calls committed), and the share of the time that they
took undisturbed (which also counts a restart's start-up as lost).

    python benchmarks/goodput.py --intervals 15 30 60 120
"""

import argparse
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from train_speed import make_shards

from aiaic import recipes
from workflows.artifacts import run_folder, samples
from workflows.training import local
from workflows.training.job import Job

_SPAWN = multiprocessing.get_context("spawn")  # a restart loads everything again


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--intervals", type=float, nargs="+", default=[15.0, 30.0, 60.0, 120.0])
    parser.add_argument("--seconds", type=float, default=150.0, help="of undisturbed training")
    parser.add_argument("--save-every-s", type=float, default=5.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        shards = make_shards(folder)
        step_s = _probe(shards, folder)
        steps = round(options.seconds / step_s)
        save_every = max(1, round(options.save_every_s / step_s))
        rows = [
            _row(shards, folder / str(number), interval_s, steps, save_every, step_s)
            for number, interval_s in enumerate(options.intervals)
        ]
    report = {"steps": steps, "step_s": round(step_s, 4), "save_every_steps": save_every}
    print(json.dumps(report | {"by_interval": rows}))


def _probe(shards: str, folder: Path) -> float:
    """Seconds of an undisturbed step."""
    _train(shards, str(folder / "probe"), 80, 80, str(folder / "probe.log"))
    (last,) = run_folder.steps(run_folder.stage_place(str(folder / "probe"), 1))
    batch = recipes.load().sampling.batch_size
    timings = run_folder.read_timings(last)
    assert timings is not None
    return statistics.median(batch / row["samples_per_s"] for row in timings.rows[20:])


def _row(
    shards: str, folder: Path, interval_s: float, steps: int, save_every: int, step_s: float
) -> dict[str, Any]:
    folder.mkdir()
    log = folder / "steps"
    arguments = (shards, str(folder / "run"), steps, save_every, str(log))
    started, kills = time.monotonic(), 0
    while True:
        process = _SPAWN.Process(target=_train, args=arguments)
        process.start()
        process.join(interval_s)
        if process.exitcode is not None:
            assert process.exitcode == 0, "training fails by itself"
            break
        process.kill()
        process.join()
        kills += 1
    elapsed_s = time.monotonic() - started
    taken = len(log.read_text().splitlines())
    row = {
        "kill_every_s": interval_s,
        "kills": kills,
        "steps_that_stand": round(steps / taken, 3),
        "time_that_stands": round(steps * step_s / elapsed_s, 3),
    }
    print(row, file=sys.stderr, flush=True)
    return row


def _train(shards: str, out: str, steps: int, save_every: int, log: str) -> None:
    settings = (f"stage1.steps={steps}", f"training.save_every={save_every}")
    settings += ("training.report_every=1", "training.threads=1", "training.decode_threads=1")
    recipe = recipes.load(settings=(*settings, f"training.validate_every={steps}"))
    job = Job(stages=(1,), recipe=recipe, shards=shards, split="train", out=out)
    with Path(log).open("a") as taken:

        def note(stage: int, step: int, of: int, loss: float) -> None:
            taken.write(f"{step}\n")
            taken.flush()

        local.fit(job, samples.open_samples(shards, "train"), note, lambda _: None)


if __name__ == "__main__":
    main()
