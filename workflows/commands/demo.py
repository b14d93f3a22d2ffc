"""``aiaic demo``: runs the whole workflow on a synthetic world with a known answer."""

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from aiaic import recipes
from data_prep import catalog, storage, synthetic
from data_prep.catalog import Catalog
from data_prep.media.sample import MediaSettings
from data_prep.shards.plan import BuildSettings
from data_prep.synthetic import World
from workflows.artifacts import run_folder
from workflows.cluster import session
from workflows.cluster.worker_range import Workers
from workflows.commands import colorize, evaluate, prepare, train
from workflows.options import Colorize, Demo, Evaluate, Outcome, flat
from workflows.training.job import Job

log = logging.getLogger(__name__)

T = TypeVar("T")

_PICTURES = 4
_SECONDS = "seconds.json"


def run(options: Demo) -> Outcome:
    """Carry out the command."""
    out = Path(options.out).absolute()
    settings = (f"sampling.seed={options.seed}", *flat(options.overrides))
    recipe = recipes.load(settings=settings)
    timer = _Timer(out / _SECONDS)
    world = timer.time(
        "synthesize",
        lambda: synthetic.synthesize(out / "world", options.clips, options.seed),
        reused=lambda made: made.reused,
    )
    found = catalog.read_vggsound(str(world.annotations), str(world.clips_folder))
    building = BuildSettings(media=MediaSettings(size_px=recipe.view.size_px), clips_per_shard=64)
    with session.connected(cpus=options.workers):
        timer.time(
            "prepare",
            lambda: prepare.prepare(found, building, str(out / "shards")),
            reused=lambda built: built.reused_shards == len(built.manifest.shards),
        )
        job = Job(
            stages=run_folder.STAGES,
            recipe=recipe,
            shards=str(out / "shards"),
            split="train",
            out=str(out / "run"),
        )
        finished = train.train(job, Workers.exactly(options.workers), None, _tracking_uri(out))
    seconds = timer.seconds | {f"stage{s.stage}": round(s.seconds, 2) for s in finished}
    evaluated = evaluate.run(_evaluation(out, world), seconds=seconds)
    pictures = _colorize(found, out)
    text = (
        f"{evaluated.text}\npictures: {pictures}\n"
        f"tracking: mlflow ui --backend-store-uri {_tracking_uri(out)}\n"
        '          (choose "Model training" at the top left: MLflow opens on GenAI)'
    )
    return Outcome(values=evaluated.values | {"pictures": str(pictures)}, text=text)


class _Timer:
    """Seconds that each part took, kept in a file across interruptions."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.seconds: dict[str, float] = json.loads(file.read_text()) if file.is_file() else {}

    def time(self, part: str, work: Callable[[], T], reused: Callable[[T], bool]) -> T:
        """Run a part of the workflow; one whose result existed already keeps its earlier time."""
        start = time.perf_counter()
        result = work()
        if not reused(result) or part not in self.seconds:
            self.seconds[part] = round(time.perf_counter() - start, 2)
        storage.write_bytes(str(self._file), json.dumps(self.seconds).encode())
        return result


def _evaluation(out: Path, world: World) -> Evaluate:
    return Evaluate(
        shards=str(out / "shards"),
        checkpoint=str(out / "run"),
        truth=str(world.truth),
        out=str(out),
        tracking_uri=_tracking_uri(out),
    )


def _tracking_uri(out: Path) -> str:
    """A database beside the run, so that several demos do not share one."""
    return f"sqlite:///{out / 'mlflow.db'}"


def _colorize(found: Catalog, out: Path) -> Path:
    """Colorize the middle frames of some test clips of different classes, by their own sounds."""
    folder = out / "pictures"
    chosen = {clip.label: clip for clip in reversed(found.clips) if clip.split == "test"}
    for label in sorted(chosen)[:_PICTURES]:
        clip = chosen[label]
        target = folder / f"{label.replace(' ', '_')}.png"
        options = Colorize(input=clip.uri, checkpoint=str(out / "run"), out=str(target))
        log.info("%s", colorize.run(options).text)
    return folder
