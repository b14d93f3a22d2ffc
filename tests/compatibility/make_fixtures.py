"""Writes the data of one version, for later versions to read: see README.md beside this file.

The version's own command line makes everything, in a neutral folder and in an environment that
makes results independent of the processor. The commands are recorded beside the data.
"""

import argparse
import contextlib
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

PLACE = Path("/tmp/aiaic-fixtures")
"""Working folder; absolute paths in the fixtures lie below it."""
ENVIRONMENT = {
    "ATEN_CPU_CAPABILITY": "default",
    "MKL_CBWR": "COMPATIBLE",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "OMP_NUM_THREADS": "1",
}
"""Makes a training in fp32 end in the same bytes on any x86-64 processor."""
VERSIONS_OF = ("av", "numpy", "pyarrow", "ray", "simplejpeg", "soundfile", "torch", "torchaudio")
STEPS = 60
SETTINGS = (
    *("model.backbone.width=1", "model.scene.width=1", "model.sound.width=1"),
    *("model.guidance.mlp_width=2", "model.guidance.score_width=2", "model.guidance.levels=[0]"),
    *("model.audio.mels=4", "model.audio.hop_ms=8", "model.audio.clip_s=0.25"),
    *("model.audio.sample_rate_hz=4000", "model.semantics=4", "model.scene_px=32"),
    *("view.size_px=32", "sampling.batch_size=4", "sampling.streams=2"),
    *("training.threads=1", "training.decode_threads=1", "training.precision=fp32"),
    *("training.report_every=10", "training.save_every=10", "training.validate_every=20"),
    *("training.keep=1", *(f"stage{stage}.steps={STEPS}" for stage in (1, 2, 3))),
)
SPACE = {
    "model.guidance.tau": {"low": 0.1, "high": 3.0, "log": True},
    "stage3.learning_rate": {"low": 1e-4, "high": 2e-3, "log": True},
    "stage3.p_missing": {"choices": [0.1, 0.3]},
}
TRIALS = 4
CLIPS, SEED = 24, 48
"""In this world three training videos are held out for validation, and three have no sound."""
TRAIN = ("--set", *SETTINGS, "--tracking-uri", "none")
COMMANDS = {
    "prepare": (
        *("prepare", "--dataset", "vggsound", "--annotations", "clips.csv", "--clips", "clips"),
        *("--out", "shards", "--size-px", "32", "--clips-per-shard", "8", "--workers", "0"),
        *("--set", "media.sample_rate_hz=4000", "media.min_sound_s=0.25", "media.sound_s=0.25"),
    ),
    "train": ("train", "--stage", "all", "--shards", "shards", "--out", "run", *TRAIN),
    "stopped1": ("train", "--stage", "all", "--shards", "shards", "--out", "stopped1", *TRAIN),
    "stopped2": (
        *("train", "--stage", "2", "--shards", "shards", "--out", "stopped2"),
        *("--init", "run/stage1", *TRAIN),
    ),
    "stopped3": (
        *("train", "--stage", "3", "--shards", "shards", "--out", "stopped3"),
        *("--init", "run/stage2", *TRAIN),
    ),
    "evaluate": (
        *("evaluate", "--shards", "shards", "--checkpoint", "run", "--out", "evaluation"),
        *("--tracking-uri", "none"),
    ),
    "export": ("export", "--checkpoint", "run", "--out", "model"),
    "tune": (
        *("tune", "--shards", "shards", "--out", "search", "--init", "run/stage1"),
        *("--space", "space.json", "--trials", str(TRIALS), "--steps", "24", "--seed", "1"),
        *("--concurrent", "1", *TRAIN),
    ),
}
"""By name; they run in the folder that holds the unpacked archives."""
ARCHIVES = {
    "clips": ("clips", "clips.csv"),
    "shards": ("shards",),
    "run": ("run",),
    "stopped1": ("stopped1",),
    "stopped2": ("stopped2",),
    "stopped3": ("stopped3",),
    "model": ("model", "coloured"),
    "search": ("search", "space.json", "best.json"),
}
"""What each archive holds."""
_DATE = 1_700_000_000  # of all files: shards record the times of their clips


def main() -> None:
    """Make the fixtures of the version that ``workflows`` is imported from."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="name for the version, such as its commit")
    name = parser.parse_args().name
    target = Path(__file__).parent / "fixtures" / name
    if PLACE.exists() or target.exists():
        sys.exit(f"{PLACE} or {target} exists: remove it first")
    PLACE.mkdir()
    try:
        os.chdir(PLACE)
        made = make()
        target.mkdir(parents=True)
        for archive, members in ARCHIVES.items():
            pack(target / f"{archive}.tar.xz", members)
        text = json.dumps({"version": name} | made, indent=1, sort_keys=True)
        (target / "made.json").write_text(f"{text}\n")
    finally:
        os.chdir("/")
        shutil.rmtree(PLACE)


def make() -> dict[str, Any]:
    """Make everything in the current folder; returns what later versions are compared with."""
    aiaic("synthesize", "--out", "world", "--clips", str(CLIPS), "--seed", str(SEED))
    shutil.copy("world/vggsound.csv", "clips.csv")
    for clip in sorted(Path("world/clips").iterdir()):
        shrink(clip, Path("clips", clip.name))
    aiaic(*COMMANDS["prepare"])
    aiaic(*COMMANDS["train"])
    interrupt("stopped1", lambda: has_checkpoint("stopped1/stage1"), signal.SIGKILL)
    interrupt("stopped2", lambda: has_checkpoint("stopped2/stage2"), signal.SIGTERM)
    interrupt("stopped3", lambda: has_checkpoint("stopped3/stage3"), signal.SIGTERM)
    steps = {run: newest_step(run) for run in ("stopped1", "stopped2", "stopped3")}
    sha256 = {run: resumed(run) for run in steps}
    evaluation = json.loads(aiaic(*COMMANDS["evaluate"], "--json").splitlines()[-1])
    aiaic(*COMMANDS["export"])
    colorize = colorized()
    Path("space.json").write_text(json.dumps(SPACE))
    interrupt("tune", lambda: len(list(Path("search/trials").glob("*/stage3"))) >= 3, signal.SIGINT)
    interrupted = trials()
    with kept("search"):
        aiaic(*COMMANDS["tune"])
        shutil.copy("search/best.json", "best.json")
    best = json.loads(Path("best.json").read_text())["search"]["trial"]
    if interrupted.get(best) != "finished":
        sys.exit("the best trial is not the finished one: try again, or with another seed")
    return {
        "environment": ENVIRONMENT,
        "versions": {package: importlib.metadata.version(package) for package in VERSIONS_OF}
        | {"python": platform.python_version(), "machine": platform.machine()},
        "commands": COMMANDS | colorize,
        "stopped_at": steps,
        "sha256": sha256,
        "evaluation": {key: evaluation[key] for key in ("protocol", "conditions")},
        "trials": interrupted,
    }


def aiaic(*arguments: str) -> str:
    """Run a command to its end; returns its output."""
    done = subprocess.run(command(arguments), env=environment(), stdout=subprocess.PIPE, check=True)
    return done.stdout.decode()


def interrupt(name: str, due: Callable[[], bool], number: signal.Signals) -> None:
    """Start a command, and send it a signal as soon as ``due`` says so."""
    with subprocess.Popen(command(COMMANDS[name]), env=environment()) as process:
        while not due():
            if process.poll() is not None:
                sys.exit(f"{name} ended before it was interrupted: try again")
            time.sleep(0.01)
        process.send_signal(number)
        code = process.wait()
    if code == 0:
        sys.exit(f"{name} ended before it was interrupted: try again")


def command(arguments: Iterable[str]) -> list[str]:
    return [sys.executable, "-m", "workflows.cli", *arguments]


def environment() -> dict[str, str]:
    return os.environ | ENVIRONMENT


def has_checkpoint(stage: str) -> bool:
    return any(Path(stage).glob("step-*/checkpoint.json"))


def newest_step(run: str) -> int:
    return max(int(path.name[5:]) for path in Path(run).glob("stage?/step-*"))


def resumed(run: str) -> dict[str, str]:
    """SHA-256 of the weights in which a stopped run ends."""
    with kept(run):
        aiaic(*COMMANDS[run])
        digests = weights(Path(run))
    expected = weights(Path("run"))
    if any(digest != expected[name] for name, digest in digests.items()):
        sys.exit(f"{run} does not end in the bytes of an undisturbed run")
    return digests


@contextlib.contextmanager
def kept(folder: str) -> Iterator[None]:
    """Restores a folder's content at the end of the context."""
    shutil.copytree(folder, f"kept/{folder}")
    yield
    shutil.rmtree(folder)
    shutil.move(f"kept/{folder}", folder)


def weights(run: Path) -> dict[str, str]:
    """SHA-256 of each file of weights in a run's folder."""
    return {
        str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(run.glob("stage?/step-*/*.safetensors"))
    }


def colorized() -> dict[str, tuple[str, ...]]:
    """A clip's middle frame, coloured by its sound by the run and by what was exported of it."""
    clip = min(Path("clips").iterdir())
    made = {
        f"colorize_{checkpoint}": (
            *("colorize", str(clip), "--checkpoint", checkpoint),
            *("--out", f"coloured/{checkpoint}.png"),
        )
        for checkpoint in ("run", "model")
    }
    for arguments in made.values():
        aiaic(*arguments)
    return made


def trials() -> dict[str, str]:
    """The state of each trial that the search has started: one in each state, or it is no use."""
    (file,) = Path("search/search").glob("experiment_state-*.json")
    found = {}
    for text, _ in json.loads(file.read_text())["trial_data"]:
        trial = json.loads(text)
        name, over = trial["trial_id"], trial["status"] == "TERMINATED"
        through = Path("search/trials", name, "stage3/stage.json").exists()
        found[name] = "finished" if through else "stopped early" if over else "interrupted"
    if sorted(found.values()) != ["finished", "interrupted", "stopped early"]:
        sys.exit(f"the search has trials {found}: try again, or with another seed")
    return found


def shrink(source: Path, target: Path) -> None:
    """A second of a synthetic clip, as a still picture of 48 pixels with its sound in 8 kHz."""
    with av.open(source) as clip:
        frame = next(f for f in clip.decode(video=0) if f.time == 1.0)
    picture = frame.reformat(48, 48, "yuv420p")
    target.parent.mkdir(exist_ok=True)
    with av.open(target, "w", format="mp4", options={"fflags": "+bitexact"}) as out:
        options = {"preset": "veryslow", "crf": "28", "threads": "1", "g": "4"}
        video = out.add_stream("libx264", rate=4, options=options)
        video.width, video.height, video.pix_fmt = 48, 48, "yuv420p"
        wave = waveform(source, rate_hz=8000)
        audio = None if wave is None else out.add_stream("aac", rate=8000, layout="mono")
        if audio is not None:
            audio.bit_rate = 8000
        for number in range(4):
            picture.pts, picture.time_base = number, Fraction(1, 4)
            out.mux(video.encode(picture))
        out.mux(video.encode(None))
        if wave is not None and audio is not None:
            sound = av.AudioFrame.from_ndarray(wave[None, :8000], format="fltp", layout="mono")
            sound.sample_rate, sound.pts = 8000, 0
            out.mux(audio.encode(sound))
            out.mux(audio.encode(None))
    os.utime(target, (_DATE, _DATE))


def waveform(source: Path, rate_hz: int) -> np.ndarray | None:
    """The sound of a clip; None where it has none."""
    resampler = av.AudioResampler(format="fltp", layout="mono", rate=rate_hz)
    with av.open(source) as clip:
        if not clip.streams.audio:
            return None
        frames = [*clip.decode(audio=0), None]
        parts = [part.to_ndarray()[0] for frame in frames for part in resampler.resample(frame)]
    return np.ascontiguousarray(np.concatenate(parts), dtype=np.float32)


def pack(archive: Path, members: Iterable[str]) -> None:
    """Files and folders as an archive without owners and times."""

    def anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        member.mode = 0o755 if member.isdir() else 0o644
        member.mtime = _DATE
        return member

    with tarfile.open(archive, "w:xz", format=tarfile.PAX_FORMAT) as tar:
        for member in members:
            for path in sorted([Path(member), *Path(member).rglob("*")]):
                with contextlib.suppress(FileNotFoundError):
                    tar.add(path, recursive=False, filter=anonymous)


if __name__ == "__main__":
    main()
