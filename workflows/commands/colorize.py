"""``aiaic colorize``: colorize pictures, videos, folders of both, or middle frames of videos."""

import dataclasses
import errno
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import PurePosixPath
from typing import TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from aiaic.inference import Colorizer
from aiaic.networks.model import Model
from data_prep import storage
from data_prep.catalog import Clip
from data_prep.media.clip import read_clip
from data_prep.media.sample import MediaSettings, Rejection
from data_prep.media.sound import read_sound
from data_prep.storage.scratch import NoSpaceError
from workflows.artifacts import run_folder
from workflows.media import images, video
from workflows.media.video_reader import SOURCE_SUFFIXES, is_video
from workflows.media.video_writer import TARGET_SUFFIXES, is_target
from workflows.options import Colorize, Outcome

_MAX_SOUND_S = 600.0  # around the middle frame
_MAX_CLIP_S, _MAX_CLIP_BYTES, _MAX_CLIP_PACKETS = 14_400.0, 1 << 30, 4_000_000

Input: TypeAlias = tuple[images.Picture, NDArray[np.float32] | None]
"""A picture, and its own sound if it has one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """One picture or video to colorize."""

    source: str
    """Place of the picture or video."""
    target: str
    """Place of the result."""

    @property
    def from_video(self) -> bool:
        """Whether the source is a video."""
        return is_video(self.source)

    @property
    def to_video(self) -> bool:
        """Whether the whole video is colorized, not only its middle frame."""
        return self.from_video and is_target(self.target)


def run(options: Colorize) -> Outcome:
    """Carry out the command."""
    tasks, passed_over = plan(options.input, options.out)
    if options.audio is not None and any(task.to_video for task in tasks):
        raise ValueError("a video is guided by its own sound: omit --audio")
    folder = run_folder.fetch(options.checkpoint)
    colorizer = Colorizer.load(folder, with_sound=options.audio is not None)
    if not colorizer.audio_trained and any(task.from_video for task in tasks):
        raise ValueError(
            f"checkpoint '{options.checkpoint}' is from stage 1, before the audio encoder is "
            "trained, but videos are guided by their sound: use a stage-3 checkpoint"
        )
    sound = None if options.audio is None else _read_sound(options.audio, colorizer.model)
    done, failed = _colorize_all(tasks, colorizer, sound)
    text = [_line(row) for row in done] + [f"failed: {reason}" for reason in failed]
    text += [f"passed over: {reason}" for reason in passed_over]
    return Outcome(
        values={
            "checkpoint": options.checkpoint,
            "outputs": done,
            "failed": failed,
            "passed_over": passed_over,
        },
        text="\n".join(text),
        exit_code=1 if failed else 0,
    )


def plan(source: str, out: str) -> tuple[list[Task], list[str]]:
    """What to colorize and where each result goes; and which files are passed over, and why.

    Raises:
        FileNotFoundError: there is no such input.
        ValueError: the input folder has no picture or video; or the output has an unknown suffix,
            is the name of one file for several results, would replace an input, or is inside the
            input folder.
    """
    if storage.size_of(source) is None and not storage.exists(source):
        raise FileNotFoundError(f"no picture, video or folder at '{source}'")
    is_file = storage.size_of(source) is not None
    tasks, passed_over = ([_plan_file(source, out)], []) if is_file else _plan_folder(source, out)
    for task in tasks:
        if _same(task.source, task.target):
            raise ValueError(f"'{task.target}' would replace the input: use another --out")
    return tasks, passed_over


def _plan_file(source: str, out: str) -> Task:
    if storage.suffix_of(out) == "" or _is_folder(out):
        name = _result_name(storage.name_of(source))
        return Task(source=source, target=storage.join(out, name))
    known = [*images.SUFFIXES, *TARGET_SUFFIXES * is_video(source)]
    if storage.suffix_of(out) not in known:
        raise ValueError(f"cannot write '{out}': use one of {', '.join(known)}, or a folder")
    return Task(source=source, target=out)


def _plan_folder(source: str, out: str) -> tuple[list[Task], list[str]]:
    if storage.suffix_of(out) in (*images.SUFFIXES, *TARGET_SUFFIXES) and not _is_folder(out):
        raise ValueError(f"'{source}' is a folder: use a folder for --out, not '{out}'")
    if _is_inside(out, source):
        raise ValueError(f"'{out}' is inside the input '{source}': use another --out")
    listed = storage.list_files(source)
    files = [file for file in listed if images.is_picture(file.name) or is_video(file.name)]
    others = sorted({file.uri for file in listed} - {file.uri for file in files})
    if not files:
        known = ", ".join((*images.SOURCE_SUFFIXES, *SOURCE_SUFFIXES))
        raise ValueError(f"folder '{source}' has no picture or video ({known})")
    tasks = [
        Task(source=file.uri, target=storage.join(out, *_result_name(file.name).split("/")))
        for file in files
    ]
    by_target: dict[str, str] = {}
    for task in tasks:
        other = by_target.setdefault(task.target, task.source)
        if other != task.source:
            raise ValueError(f"'{other}' and '{task.source}' would get the same name: rename one")
    return tasks, [f"'{uri}' has no suffix of a picture or video" for uri in others]


def _colorize_all(
    tasks: Sequence[Task], colorizer: Colorizer, sound: NDArray[np.float32] | None
) -> tuple[list[dict[str, object]], list[str]]:
    """Carry out all tasks; one of several may fail. Returns results, and reasons of failures."""
    done: list[dict[str, object]] = []
    failed: list[str] = []
    bar = tqdm(tasks, desc="colorize", unit="picture", disable=len(tasks) == 1)
    for task, reading in zip(bar, _read_ahead(tasks, colorizer.model), strict=True):
        try:
            done.append(_colorize(task, reading.result(), colorizer, sound))
        except ValueError as error:
            if len(tasks) == 1:
                raise
            failed.append(str(error))
        except OSError as error:
            if len(tasks) == 1 or _is_full(error):
                raise
            failed.append(f"'{task.source}': {error.strerror or error}")
    return done, failed


def _read_ahead(tasks: Sequence[Task], model: Model) -> Iterator[Future[Input | None]]:
    """The inputs of all tasks; each is decoded while the one before is colorized."""
    with ThreadPoolExecutor(max_workers=1) as reader:
        coming = reader.submit(_read, tasks[0], model)
        for following in tasks[1:]:
            current, coming = coming, reader.submit(_read, following, model)
            yield current
        yield coming


def _read(task: Task, model: Model) -> Input | None:
    """A picture and its own sound; None for a video, which is read while it is colorized."""
    if task.to_video:
        return None
    content = storage.read_bytes(task.source)
    if task.from_video:
        return _read_clip(content, task.source, model)
    return images.read(content, task.source), None


def _colorize(
    task: Task,
    read: Input | None,
    colorizer: Colorizer,
    sound: NDArray[np.float32] | None,
) -> dict[str, object]:
    if read is None:
        result = video.colorize(task.source, task.target, colorizer)
        return {
            "input": task.source,
            "output": task.target,
            "relevance": result.relevance_mean,
            **dataclasses.asdict(result),
        }
    picture, own_sound = read
    result = colorizer.colorize(picture.rgb, own_sound if sound is None else sound)
    content = images.write(result.rgb, picture, task.target)
    storage.write_bytes(task.target, content)
    return {
        "input": task.source,
        "output": task.target,
        "relevance": result.relevance,
        "notes": images.dropped(picture, storage.suffix_of(task.target)),
    }


def _read_clip(content: bytes, place: str, model: Model) -> Input:
    """The middle frame of a video at its own resolution, and its sound if it has any."""
    rate = model.config.audio.sample_rate_hz
    clip = Clip(key="clip", youtube_id="clip", start_s=0.0, label="", split="test", uri=place)
    settings = MediaSettings(
        size_px=None, jpeg_quality=100, sample_rate_hz=rate, min_s=0, sound_s=_MAX_SOUND_S,
        max_s=_MAX_CLIP_S, max_bytes=_MAX_CLIP_BYTES, max_packets=_MAX_CLIP_PACKETS,
    )  # fmt: skip
    sample = read_clip(content, clip, settings, film=True)
    if isinstance(sample, Rejection):
        raise ValueError(f"cannot read video '{place}': {sample.reason} ({sample.detail})")
    sound = read_sound(sample.sound, rate) if sample.sound else None
    return images.read(sample.pictures[0], place), sound


def _read_sound(place: str, model: Model) -> NDArray[np.float32]:
    content = storage.read_bytes(place)
    try:
        return read_sound(content, model.config.audio.sample_rate_hz)
    except ValueError as error:
        raise ValueError(str(error).replace("this file", f"'{place}'")) from None


def _line(row: dict[str, object]) -> str:
    relevance = row["relevance"]
    sound = "without sound" if relevance is None else f"relevance of the sound {relevance:.2f}"
    notes = cast("Sequence[str]", row["notes"])
    if "frames" in row:
        notes = [f"{row['frames']} frames at {row['frames_per_s']:.1f} per second", *notes]
    return f"{row['output']}  ({', '.join([sound, *notes])})"


def _result_name(name: str) -> str:
    """The name of the input, if it can be written; else PNG, or Matroska with any sound."""
    if images.is_target(name) or is_target(name):
        return name
    return str(PurePosixPath(name).with_suffix(".png" if images.is_picture(name) else ".mkv"))


def _is_folder(place: str) -> bool:
    return storage.size_of(place) is None and storage.exists(place)


def _is_full(error: OSError) -> bool:
    return isinstance(error, NoSpaceError) or error.errno in (errno.ENOSPC, errno.EDQUOT)


def _is_inside(place: str, folder: str) -> bool:
    """Whether a place is a folder itself or inside of it."""
    if storage.is_local(place) and storage.is_local(folder):
        inner, outer = (storage.local_path(one).resolve() for one in (place, folder))
        return inner.is_relative_to(outer)
    return f"{place.rstrip('/')}/".startswith(f"{folder.rstrip('/')}/")


def _same(source: str, target: str) -> bool:
    if storage.is_local(source) and storage.is_local(target):
        return storage.local_path(source).resolve() == storage.local_path(target).resolve()
    return source == target
