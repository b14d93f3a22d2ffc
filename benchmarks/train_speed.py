"""What does training lose to Ray, to its loader, and to checkpoints?

Stage 1 of `compact` on clips of the synthetic world, one worker, the same numbers of threads:

- Ray: the same job in this process and on one worker of Ray Train, in turn; time per step between
  reports, start-up not counted.
- loader: end to end against the same batch over and over.
- checkpoints: the time that a step is blocked by one, and what one costs in all (steps are slower
  while it is written), for `compact` and for the networks of `resnet34_unet`; the share at one
  checkpoint a minute follows from it.

    python benchmarks/train_speed.py [--rounds N] [--only ray]
"""

import argparse
import contextlib
import dataclasses
import functools
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from aiaic import config, recipes
from aiaic.checkpointing import checkpoint
from aiaic.loading.batch import Batch
from aiaic.loading.loader import Samples
from aiaic.training import loop
from aiaic.training.context import LocalContext
from aiaic.training.recipe import Recipe
from aiaic.training.spec import StageSpec
from aiaic.training.trainer import Trainer
from data_prep import catalog, synthetic
from data_prep.media.sample import MediaSettings
from data_prep.shards import build
from data_prep.shards.plan import BuildSettings
from workflows.artifacts import run_folder
from workflows.artifacts.samples import open_samples
from workflows.cluster import session, train_driver
from workflows.cluster.worker_range import Workers
from workflows.training import local
from workflows.training.job import Job

CPU = torch.device("cpu")
EVERY_S = 60.0
_PARTS = ("loader", "checkpoints", "ray")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=120, help="of a round")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=_PARTS, default=_PARTS)
    options = parser.parse_args()
    recipe = recipes.load(
        settings=[
            f"stage1.steps={options.steps}",
            f"training.threads={options.threads}",
            "training.decode_threads=1",
            "training.report_every=20",
        ]
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        samples = open_samples(make_shards(folder), "train")
        report: dict[str, Any] = {}
        if "loader" in options.only:
            report["loader"] = _loader(recipe, samples, folder, options.rounds)
        if "checkpoints" in options.only:
            large = recipes.named("resnet34_unet")
            report["checkpoints"] = {
                "compact": _checkpoints(recipe, samples, folder / "compact"),
                "resnet34_unet": _blocked(large, samples, folder / "resnet"),
            }
        if "ray" in options.only:
            report["ray"] = _ray(recipe, folder, options.rounds)
    print(json.dumps(report))


def make_shards(folder: Path) -> str:
    world = synthetic.synthesize(folder / "world", 400, seed=0)
    found = catalog.read_vggsound(str(world.annotations), str(world.clips_folder))
    settings = BuildSettings(media=MediaSettings(size_px=96), clips_per_shard=64)
    build.build(found, settings, str(folder / "shards"))
    return str(folder / "shards")


def _loader(recipe: Recipe, samples: Samples, folder: Path, rounds: int) -> dict[str, Any]:
    """Samples per second end to end, and with one batch that is there already."""
    found: dict[str, list[float]] = {"end_to_end": [], "synthetic": []}
    for number, name in itertools.product(range(rounds), found):
        trainer = _trainer(recipe, samples, folder / f"{name}{number}")
        if name == "synthetic":
            batch = next(trainer.batches.training(0))
            trainer.batches.__dict__["training"] = functools.partial(_same, batch)
        loop.fit(trainer)
        trainer.context.flush()
        found[name].append(_rate(trainer.history.timings().rows))
    ratios = [a / b for a, b in zip(found["end_to_end"], found["synthetic"], strict=True)]
    return {
        "samples_per_s": {name: round(statistics.median(r), 1) for name, r in found.items()},
        "end_to_end_over_synthetic": _spread(ratios),
    }


def _checkpoints(recipe: Recipe, samples: Samples, folder: Path) -> dict[str, Any]:
    """What a checkpoint costs training: with one after every tenth step, and with none."""
    settings: dict[bool, int] = {True: 10, False: recipe.stage1.steps}
    seconds: dict[bool, list[float]] = {True: [], False: []}
    blocked: list[float] = []
    for number, saving in itertools.product(range(3), settings):
        own = config.override(recipe, {"training.save_every": settings[saving]})
        trainer = _trainer(own, samples, folder / f"{number}{saving}")
        save = trainer.context.save

        def timed(*arguments: Any, save: Any = save) -> None:
            started = time.perf_counter()
            save(*arguments)
            blocked.append(time.perf_counter() - started)

        if saving:
            trainer.context.save = timed
        started = time.perf_counter()
        loop.fit(trainer)
        seconds[saving].append(time.perf_counter() - started)
        trainer.context.flush()
    saves = recipe.stage1.steps // 10 - 1  # the last step has one in any case
    cost_s = (min(seconds[True]) - min(seconds[False])) / saves
    return {
        "cost_s": round(cost_s, 4),
        "share_of_a_minute": round(cost_s / EVERY_S, 5),
        "handing_over_ms_max": round(1000 * max(blocked), 1),
    } | _blocked(recipe, samples, folder / "snapshot")


def _blocked(recipe: Recipe, samples: Samples, folder: Path) -> dict[str, Any]:
    """How long copying takes that a step waits for, and how long writing beside the steps."""
    small = config.override(
        recipe, {"sampling.batch_size": 2, "sampling.streams": 1, "stage1.scene_view": "crop"}
    )
    trainer = _trainer(small, samples, folder)
    with contextlib.closing(trainer.batches.training(0)) as made:
        loop.train_step(trainer, trainer.stage, [next(made)])
    copying, writing = [], []
    for _ in range(5):
        started = time.perf_counter()
        snapshot = trainer.snapshot({})
        assert snapshot is not None
        copied = time.perf_counter()
        checkpoint.commit(folder / "written", snapshot.write)
        copying.append(copied - started)
        writing.append(time.perf_counter() - copied)
    size = sum(path.stat().st_size for path in (folder / "written").iterdir())
    return {
        "snapshot_ms": round(1000 * statistics.median(copying), 1),
        "written_in_background_s": round(statistics.median(writing), 3),
        "megabytes": round(size / 1e6, 1),
    }


def _ray(recipe: Recipe, folder: Path, rounds: int) -> dict[str, Any]:
    """Seconds per step here and on one worker of Ray Train."""
    found: dict[str, list[float]] = {"local": [], "ray": []}
    with session.connected(cpus=1):
        for number, name in itertools.product(range(rounds), found):
            job = Job(
                stages=(1,),
                recipe=recipe,
                shards=str(folder / "shards"),
                split="train",
                out=str(folder / f"{name}-job{number}"),
            )
            if name == "local":
                samples = open_samples(job.shards, job.split)
                local.fit(job, samples, lambda *_: None, lambda _: None)
            else:
                train_driver.fit(job, Workers.exactly(1), False, lambda *_: None, lambda _: None)
            (last,) = run_folder.steps(run_folder.stage_place(job.out, 1))
            timings = run_folder.read_timings(last)
            assert timings is not None
            found[name].append(_rate(timings.rows))
    ratios = [ours / ray for ours, ray in zip(found["local"], found["ray"], strict=True)]
    return {
        "samples_per_s": {name: round(statistics.median(r), 1) for name, r in found.items()},
        "time_per_step_on_ray_over_local": _spread(ratios),
    }


def _trainer(recipe: Recipe, samples: Samples, folder: Path) -> Trainer:
    torch.set_num_threads(recipe.training.threads)
    unvalidated = dataclasses.replace(samples, validation=())
    spec = StageSpec(stage=1, recipe=recipe, samples=unvalidated, device=CPU)
    return Trainer(spec, LocalContext(folder))


def _same(batch: Batch, start: int) -> Generator[Batch, None, None]:
    del start
    while True:
        yield batch


def _rate(rows: list[dict[str, float]]) -> float:
    """Samples per second, from the second report on."""
    return statistics.median(row["samples_per_s"] for row in rows[1:])


def _spread(ratios: list[float]) -> dict[str, float]:
    figures = {"median": statistics.median(ratios), "least": min(ratios), "most": max(ratios)}
    return {name: round(value, 4) for name, value in figures.items()}


if __name__ == "__main__":
    main()
