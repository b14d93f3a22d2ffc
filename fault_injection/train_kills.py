"""Kills training runs at random moments, resumes them, and compares them with an undisturbed run.

A moment is a call of some function, before or after which the process kills itself with SIGKILL:
during a step, while a checkpoint is written or uploaded, around its commit, or while the stage
starts. Each run is a separate process; a resumed one may be killed again.
"""

import hashlib
import itertools
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

from fault_injection.tiny_recipe import TINY

MOMENTS = ("start", "step", "save", "upload", "commit")
STAGES = (1, 2, 3)
STEPS = 12
SETTINGS = (
    *TINY,
    *(f"stage{stage}.steps={STEPS}" for stage in STAGES),
    "training.report_every=2",
    "training.validate_every=6",
    "training.save_every=3",
)
"""Twelve steps of a quarter epoch each, with a checkpoint after every third step."""
_FILES = ("checkpoint.json", "model.safetensors", "training.safetensors", "stage.json")
_TIMES = ("seconds", "goodput", "samples_per_s")


@dataclass(frozen=True)
class Point:
    """A function at whose calls the process may be killed."""

    module: str
    name: str
    after: bool = False
    """Kill after it returns instead of before it is called."""
    half: bool = False
    """Kill after it returns, once the file of its second argument is truncated to half."""


POINTS: Mapping[str, Sequence[Point]] = {
    "start": (
        Point("aiaic.training.trainer", "load_init"),
        Point("aiaic.training.build_stage", "build", after=True),
        Point("aiaic.checkpointing.store", "newest_whole"),
        Point("aiaic.checkpointing.store", "newest_whole", after=True),
        Point("workflows.artifacts.run_folder", "fetch", after=True),
    ),
    "step": (
        Point("aiaic.training.loop", "train_step"),
        Point("aiaic.training.loop", "backward", after=True),
        Point("aiaic.training.loop", "train_step", after=True),
        Point("simplejpeg", "decode_jpeg"),
    ),
    "save": (
        Point("aiaic.checkpointing.checkpoint", "write"),
        Point("aiaic.checkpointing.checkpoint", "save_file", half=True),
        Point("aiaic.checkpointing.checkpoint", "save_file", after=True),
        Point("aiaic.checkpointing.checkpoint", "write_record"),
    ),
    "upload": (
        Point("data_prep.storage", "publish"),
        Point("data_prep.storage", "publish", after=True),
        Point("data_prep.storage.s3_objects", "put"),
        Point("data_prep.storage.s3_objects", "put", after=True),
    ),
    "commit": (
        Point("aiaic.checkpointing.checkpoint", "write_record", after=True),
        Point("aiaic.checkpointing.store", "prune"),
        Point("aiaic.checkpointing.store", "prune", after=True),
        Point("workflows.artifacts.run_folder", "finish"),
        Point("workflows.artifacts.run_folder", "finish", after=True),
        Point("data_prep.storage", "write_bytes"),
    ),
}


@dataclass(frozen=True, kw_only=True)
class Kill:
    """When a process kills itself."""

    point: Point
    call: int
    """Number of the call of the function, from 1."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One stage, and the kills that it must survive in turn."""

    stage: int
    moment: str
    kills: tuple[Kill, ...]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The outcome of a case."""

    case: Case
    killed: int
    """How many of its kills happened: the function may be called less often than was drawn."""
    faults: list[str] = field(default_factory=list)
    """Files that differ from the undisturbed run."""


def cases(seed: int, points: Mapping[str, Sequence[Point]] = POINTS) -> Iterator[Case]:
    """Yields cases: stages and moments in turn, kills at random; every third case has two kills."""
    rng = random.Random(seed)
    number = 0
    while True:
        for moment in points:
            for stage in STAGES:
                kills = tuple(
                    _draw(rng, points[moment]) for _ in range(2 if number % 3 == 2 else 1)
                )
                yield Case(stage=stage, moment=moment, kills=kills)
                number += 1


def _draw(rng: random.Random, points: Sequence[Point]) -> Kill:
    point = rng.choice(points)
    usual_calls = {
        "decode_jpeg": 40,
        "train_step": STEPS,
        "backward": STEPS,
        "save_file": 6,
        "publish": 9,
        "put": 9,
    }
    calls = usual_calls.get(
        point.name, 3 if point.name in ("write", "write_record", "prune") else 1
    )
    return Kill(point=point, call=rng.randint(1, calls))


def make_shards(folder: Path, make_clip: Callable[..., Path]) -> str:
    """Builds four shards of 36 clips in two colours; returns their place."""
    from data_prep import catalog
    from data_prep.media.sample import MediaSettings
    from data_prep.shards import build

    for number in range(36):
        make_clip(
            folder / "clips" / f"clip{number:07d}_000000.mp4",
            seconds=1.0,
            color=((200, 90, 60), (60, 90, 200))[number % 2],
            tone_hz=300.0 + 200 * (number % 2),
        )
    found = catalog.read_folder(str(folder / "clips"))
    settings = build.BuildSettings(media=MediaSettings(size_px=32), shards=4)
    build.build(found, settings, str(folder / "shards"))
    return str(folder / "shards")


class Trainings:
    """Training runs on the same shards, each in its own process.

    Args:
        shards: place of the shards.
        folder: place under which the runs are written.
        environment: environment variables for the processes, with which they reach the store.
    """

    def __init__(self, shards: str, folder: str, environment: Mapping[str, str]) -> None:
        self._shards, self._folder, self._environment = shards, folder, dict(environment)
        self._processes = multiprocessing.get_context("forkserver")
        self._processes.set_forkserver_preload(["fault_injection.forkserver_preload"])
        _start_server()
        self.undisturbed = f"{folder}/undisturbed"
        assert self._train(self.undisturbed, STAGES, None) == 0, "the undisturbed run failed"

    def kill_and_resume(self, case: Case, number: int) -> Outcome:
        """Runs a case: kills a run of its stage, resumes it until it finishes, and checks it."""
        out, killed = f"{self._folder}/{number}", 0
        for kill in (*case.kills, None):
            code = self._train(out, (case.stage,), kill)
            if code == -signal.SIGKILL:
                killed += 1
            elif code != 0:
                return Outcome(case=case, killed=killed, faults=[f"failed with exit code {code}"])
        ours, theirs = (content(run, case.stage) for run in (out, self.undisturbed))
        faults = [
            name
            for name in sorted(ours.keys() | theirs.keys())
            if ours.get(name) != theirs.get(name)
        ]
        return Outcome(case=case, killed=killed, faults=faults)

    def _train(self, out: str, stages: tuple[int, ...], kill: Kill | None) -> int:
        arguments = (self._shards, out, self.undisturbed, stages, kill, self._environment)
        process = self._processes.Process(target=train, args=arguments)
        process.start()
        process.join(300)
        if process.exitcode is None:
            process.kill()
            process.join()
            return 1
        return process.exitcode


def _start_server() -> None:
    """Starts the fork server in /tmp: its socket path must not exceed 107 bytes."""
    given, tempfile.tempdir = tempfile.tempdir, "/tmp"
    try:
        forkserver.ensure_running()
    finally:
        tempfile.tempdir = given


def train(
    shards: str, out: str, undisturbed: str, stages: tuple[int, ...], kill: Kill | None,
    environment: Mapping[str, str],
) -> None:  # fmt: skip
    """Entry point of a process: trains stages from the undisturbed run's previous stage."""
    os.environ.update(environment)
    from aiaic import recipes
    from workflows.artifacts import run_folder
    from workflows.artifacts.samples import open_samples
    from workflows.training import local
    from workflows.training.job import Job

    first = stages[0]
    job = Job(
        stages=stages,
        recipe=recipes.load(settings=SETTINGS),
        shards=shards,
        split="train",
        out=out,
        init=run_folder.stage_place(undisturbed, first - 1) if first > 1 else None,
    )
    samples = open_samples(shards, "train")
    if kill is not None:
        arm(kill)
    local.fit(job, samples, lambda *_: None, lambda _: None)


def arm(kill: Kill) -> None:
    """Replaces a function by one that kills this process at the chosen call."""
    module = sys.modules[kill.point.module]
    function: Callable[..., Any] = getattr(module, kill.point.name)
    calls, lock = itertools.count(1), threading.Lock()

    def wrapper(*arguments: Any, **named: Any) -> Any:
        with lock:
            due = next(calls) == kill.call
        if due and not (kill.point.after or kill.point.half):
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*arguments, **named)
        if due:
            if kill.point.half:
                path = Path(arguments[1])
                os.truncate(path, path.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(module, kill.point.name, wrapper)


def content(run: str, stage: int) -> dict[str, str]:
    """SHA-256 of each file of a finished stage, without timings."""
    from data_prep import storage
    from workflows.artifacts import run_folder

    place = run_folder.stage_place(run, stage)
    digests = {}
    if storage.is_local(place):  # listings omit hidden files
        digests |= {path.name: "left over" for path in Path(place).glob(".step-*")}
    for file in storage.list_files(place):
        name = Path(file.name).name
        if name in _FILES:
            digests[file.name] = _digest(storage.read_bytes(storage.join(place, file.name)), name)
    return digests


def _digest(stored: bytes, name: str) -> str:
    if name == "stage.json":
        values = {key: v for key, v in json.loads(stored).items() if key not in _TIMES}
        stored = json.dumps(values).encode()
    return hashlib.sha256(stored).hexdigest()
