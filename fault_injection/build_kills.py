"""Kills real builds with SIGKILL at random moments and checks the resulting shard set.

Kinds of kill, and how the build recovers:

    decoder      the decoding process of a build without Ray           recovers by itself
    ray_decoder  the decoding process of a Ray worker                  recovers by itself
    worker       a Ray worker that builds shards                       recovers by itself
    node         the second of two nodes, with its workers; replaced   recovers by itself
                 at once, or only after the build
    driver       ``aiaic prepare`` on Ray, its whole process group     command is rerun
    process      ``aiaic prepare`` without Ray, that process alone     command is rerun

Only descendants of this process are ever killed.
"""

import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_prep.shards import records
from data_prep.shards.manifest import MANIFEST_NAME
from data_prep.shards.verify import verify
from data_prep.storage.scratch import PREFIX
from fault_injection.clips import write_clip
from fault_injection.processes import (
    TIMEOUT_S,
    Nodes,
    builders,
    decoders,
    still_decoding,
    wait_for,
)

RAY_KINDS = ("ray_decoder", "worker", "node", "driver")
SELF_HEALING = ("decoder", "ray_decoder", "worker", "node")
REJECTED = {"missing": 3, "too_short": 2, "undecodable": 3}
THIRDS = ("early", "middle", "late")


@dataclass(frozen=True, kw_only=True)
class World:
    """Source clips and the command that builds them."""

    folder: Path
    shards: int
    clips_per_shard: int

    def command(self, out: Path, workers: int, *more: str) -> list[str]:
        """The ``aiaic prepare`` command line."""
        clips, rows = self.folder / "clips", self.folder / "clips.csv"
        command = [sys.executable, "-m", "workflows.cli", "prepare", "--dataset", "vggsound"]
        command += ["--clips", str(clips), "--annotations", str(rows), "--out", str(out), "--json"]
        command += ["--clips-per-shard", str(self.clips_per_shard), "--workers", str(workers)]
        return [*command, "--size-px", "48", "--pictures", "2", *more]


def make_world(folder: Path, *, clips: int, files: int = 40, shards: int = 12) -> World:
    """Makes ``clips`` clips that are hard links to ``files`` distinct ones, and eight more that are
    missing, undecodable or too short."""
    source, linked = folder / "files", folder / "clips"
    linked.mkdir(parents=True)
    for number in range(files):
        tone_hz = None if number % 9 == 8 else 300.0 + 17 * number
        write_clip(source / f"{number}.mp4", seconds=1.0 + number % 3 / 10, tone_hz=tone_hz)
    write_clip(source / "short.mp4", seconds=0.5)
    (source / "text.mp4").write_bytes(b"no video at all" * 9)
    rows = []
    for number in range(clips):
        rows.append((f"scene{number:06d}", "train" if number % 5 else "test"))
        linked.joinpath(f"{rows[-1][0]}_000001.mp4").hardlink_to(source / f"{number % files}.mp4")
    for reason, count in REJECTED.items():
        for number in range(count):
            rows.append((f"{reason[:5]}{number:06d}", "train"))
            if reason != "missing":
                file = source / ("short.mp4" if reason == "too_short" else "text.mp4")
                linked.joinpath(f"{rows[-1][0]}_000001.mp4").hardlink_to(file)
    lines = [f'{youtube_id},1,"dog, barking",{split}\n' for youtube_id, split in rows]
    (folder / "clips.csv").write_text("".join(lines))
    return World(folder=folder, shards=shards, clips_per_shard=round(len(rows) / shards))


class Watch:
    """Watches a build: shards started and finished, and when the manifest appeared."""

    def __init__(self, out: Path, scratch: Path) -> None:
        self._out, self._scratch, self._stopped = out, scratch, threading.Event()
        self.starts: set[str] = set()
        """Names of scratch folders: one for each start of a shard."""
        self.manifest_at: float | None = None
        self.finished_at_manifest = 0
        self._thread = threading.Thread(target=self._poll_until_stopped, daemon=True)
        self._thread.start()

    @property
    def finished(self) -> int:
        """Number of shards that have a record now."""
        return len(list((self._out / "records").glob("shard-*.json")))

    def stop(self) -> None:
        """Stops after a final poll."""
        self._stopped.set()
        self._thread.join()
        self._poll()

    def _poll_until_stopped(self) -> None:
        while not self._stopped.wait(0.005):
            self._poll()

    def _poll(self) -> None:
        self.starts.update(path.name for path in self._scratch.glob(f"{PREFIX}*"))
        if self.manifest_at is None and (self._out / MANIFEST_NAME).exists():
            self.manifest_at = time.monotonic()
            self.finished_at_manifest = self.finished


@dataclass(kw_only=True)
class Stage:
    """What builds run in: the world, a scratch folder, and a cluster if one is needed."""

    world: World
    scratch: Path
    nodes: Nodes | None = None

    def start(self, out: Path, workers: int, *more: str) -> "subprocess.Popen[str]":
        """Starts a build in its own process group."""
        env = os.environ | {"TMPDIR": str(self.scratch), "OMP_NUM_THREADS": "1"}
        env.pop("RAY_ADDRESS", None)
        if workers:
            assert self.nodes is not None
            env["RAY_ADDRESS"] = self.nodes.cluster.address
        with out.with_suffix(".err").open("a") as errors:
            return subprocess.Popen(
                self.world.command(out, workers, *more),
                env=env,
                cwd=Path(__file__).parents[1],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            )

    def root(self, build: "subprocess.Popen[str]", workers: int) -> int:
        """The process whose descendants include the decoders of a build."""
        return os.getpid() if workers else build.pid

    def scratch_left(self) -> int:
        """Number of scratch folders left behind."""
        return len(list(self.scratch.glob(f"{PREFIX}*")))


def wait_for_report(build: "subprocess.Popen[str]", out: Path) -> dict[str, Any]:
    """Waits for a build and returns its report; RuntimeError if it fails or times out."""
    try:
        report, _ = build.communicate(timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        os.killpg(build.pid, signal.SIGKILL)
        build.communicate()
        raise RuntimeError(f"the build did not end within {TIMEOUT_S:g} s") from None
    if build.returncode:
        lines = out.with_suffix(".err").read_text().replace("\r", "\n").strip().splitlines()
        raise RuntimeError(
            f"the build failed with exit code {build.returncode}: {(lines or ['?'])[-1]}"
        )
    return json.loads(report.splitlines()[-1])


def files_of(out: Path) -> dict[str, str]:
    """SHA-256 of each file of a shard set, except records and hidden files."""
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in out.rglob("*")
        if path.is_file() and path.parent.name != "records" and not path.name.startswith(".")
    }


def left_over(out: Path) -> list[str]:
    """Names of partial files under a folder, without their random part."""
    hidden = (path.name for path in out.rglob(".*") if path.is_file())
    return sorted(re.sub(r"\.[0-9a-f]{12}\.part$", ".part", name) for name in hidden)


@dataclass(frozen=True, kw_only=True)
class Undisturbed:
    """An undisturbed build: the expected result, and its timing."""

    files: dict[str, str]
    report: dict[str, Any]
    duration_s: float
    """From the start of the first decoder to the manifest."""
    whole_s: float
    """From the command's start to its end."""
    start_s: float
    """From the command's start to the first decoder."""


def undisturbed(stage: Stage, out: Path, workers: int) -> Undisturbed:
    """Runs a build without a kill."""
    started, watch = time.monotonic(), Watch(out, stage.scratch)
    build = stage.start(out, workers)
    root = stage.root(build, workers)
    wait_for(lambda: decoders(root) or build.poll() is not None, "decoder")
    building_from = time.monotonic()
    report = wait_for_report(build, out)
    whole_s = time.monotonic() - started
    watch.stop()
    assert watch.manifest_at is not None  # the build has succeeded
    assert watch.finished_at_manifest == stage.world.shards, (
        "the manifest was published before its shards"
    )
    verify(str(out))
    return Undisturbed(
        files=files_of(out),
        report=report,
        duration_s=watch.manifest_at - building_from,
        whole_s=whole_s,
        start_s=building_from - started,
    )


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The outcome of a killed build."""

    kind: str
    share: float
    """Requested moment of the kill: 0.25 is when a quarter of the shards are finished. Fractions of
    a shard are timed by the undisturbed build's mean duration of a shard."""
    finished: int
    """Shards finished at that moment."""
    third: str
    """Third of the build in which the kill happened, by finished shards."""
    faults: list[str] = field(default_factory=list)
    """What is wrong with the set; empty if it equals the undisturbed one."""
    left_over: list[str] = field(default_factory=list)
    """Partial files left in the output folder."""
    scratch: int = 0
    """Scratch folders left behind."""
    restarted: int = 0
    """Shards that were started more than once."""
    to_end_s: float = 0.0
    """From the kill to the build's end."""
    extra_s: float = 0.0
    """How much longer the whole took than an undisturbed build."""


def draw(rng: random.Random, kinds: Sequence[str]) -> Iterator[tuple[str, float]]:
    """Yields kinds and moments (shares of the build): round-robin over the kinds, and for each kind
    over the early, middle and late third."""
    seen = dict.fromkeys(kinds, rng.randrange(3))
    while True:
        for kind in kinds:
            yield kind, (seen[kind] % 3 + rng.random()) / 3
            seen[kind] += 1


def kill_and_resume(
    stage: Stage, kind: str, share: float, expected: Undisturbed, out: Path, rng: random.Random
) -> Outcome | None:
    """Kills one build and lets it finish; None if the build finished before the kill."""
    workers = 2 if kind in RAY_KINDS else 0
    started, watch = time.monotonic(), Watch(out, stage.scratch)
    build = stage.start(out, workers)
    root = stage.root(build, workers)
    try:
        wait_for(lambda: decoders(root) or build.poll() is not None, "decoder")
        step = share * stage.world.shards
        wait_for(lambda: watch.finished >= int(step) or build.poll() is not None, "shard")
        time.sleep(step % 1 * expected.duration_s / stage.world.shards)
        decoding, finished = decoders(root), watch.finished
        hit = _hit(stage, build, kind, rng)
        if not hit or watch.manifest_at is not None:
            if hit and kind not in SELF_HEALING:
                build.communicate()  # killed after the manifest was published
            else:
                wait_for_report(build, out)
            return None
        killed = time.monotonic()
        faults: list[str] = []
        if kind not in SELF_HEALING:
            build.communicate()
            wait_for(lambda: not still_decoding(decoding), "end of the killed build's decoders")
            faults = half_published(out, expected)
        faults += _finish(stage, build, kind, expected, out, at_once=rng.random() < 0.5)
        watch.stop()
        if watch.finished_at_manifest < stage.world.shards:
            faults.append(f"the manifest was published after {watch.finished_at_manifest} shards")
        return Outcome(
            kind=kind,
            share=round(share, 3),
            finished=finished,
            third=THIRDS[min(2, 3 * finished // stage.world.shards)],
            faults=faults,
            left_over=left_over(out),
            scratch=stage.scratch_left(),
            restarted=len(watch.starts) - stage.world.shards,
            to_end_s=round(time.monotonic() - killed, 2),
            extra_s=round(time.monotonic() - started - expected.whole_s, 2),
        )
    finally:
        if build.poll() is None:
            os.killpg(build.pid, signal.SIGKILL)
            build.communicate()
        watch.stop()
        if kind == "node":
            assert stage.nodes is not None
            stage.nodes.restore()
        for folder in stage.scratch.glob(f"{PREFIX}*"):
            shutil.rmtree(folder)


def _hit(stage: Stage, build: "subprocess.Popen[str]", kind: str, rng: random.Random) -> bool:
    """Kills a process of this kind; False if there is none."""
    if build.poll() is not None:
        return False
    if kind == "node":
        assert stage.nodes is not None
        stage.nodes.kill()
    elif kind == "driver":
        os.killpg(build.pid, signal.SIGKILL)
    elif kind == "process":
        build.kill()
    else:
        root = os.getpid() if kind in RAY_KINDS else build.pid
        found = builders(root) if kind == "worker" else decoders(root)
        if not found:
            return False
        try:
            os.kill(rng.choice(found), signal.SIGKILL)
        except ProcessLookupError:  # it has exited
            return False
    return True


def _finish(
    stage: Stage,
    build: "subprocess.Popen[str]",
    kind: str,
    expected: Undisturbed,
    out: Path,
    *,
    at_once: bool,
) -> list[str]:
    """Waits for the build or reruns it, then returns what is wrong with the set."""
    faults: list[str] = []
    try:
        if kind == "node" and at_once:
            assert stage.nodes is not None
            stage.nodes.restore()
        if kind not in SELF_HEALING:
            build = stage.start(out, 2 if kind in RAY_KINDS else 0)
        report = wait_for_report(build, out)
        verify(str(out))
    except (RuntimeError, TimeoutError, ValueError, OSError) as error:
        return [*faults, str(error)]
    if _counts(report) != _counts(expected.report):
        faults.append(f"the counts are {_counts(report)}, not {_counts(expected.report)}")
    files = files_of(out)
    if files != expected.files:
        different = sorted(name for name, _ in files.items() ^ expected.files.items())
        faults.append(
            f"files differ from the undisturbed build: {', '.join(dict.fromkeys(different))}"
        )
    return faults


def _counts(report: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in report.items() if name not in ("out", "reused_shards")}


def half_published(out: Path, expected: Undisturbed) -> list[str]:
    """What a folder contains right after a kill that must not exist under a final name."""
    files = files_of(out)
    wrong = [name for name, sha256 in files.items() if expected.files.get(name) != sha256]
    faults = [f"{name} is half-published" for name in wrong]
    if MANIFEST_NAME in files and len(files) < len(expected.files):
        faults.append("the manifest exists before its shards")
    sizes = {path.name: path.stat().st_size for path in (out / "shards").glob("[!.]*")}
    for path in (out / "records").glob("[!.]*"):
        if not records.tars_exist(records.decode(path.read_bytes()), sizes.get):
            faults.append(f"{path.name} refers to tars that do not exist")
    return faults
