"""``aiaic colorize``: pictures, videos, folders of both, and middle frames of clips."""

import dataclasses
import errno
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import PurePosixPath
from typing import TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from aiaic.inference.colorizer import Colorizer
from aiaic.networks.model import Model
from data_prep import storage
from data_prep.catalog import VIDEO_SUFFIXES, Clip
from data_prep.media.clip import read_clip
from data_prep.media.sample import MediaSettings, Rejection
from data_prep.media.sound import read_sound
from data_prep.storage.scratch import NoSpaceError
from workflows.artifacts import run_folder
from workflows.media import images, video, video_reader
from workflows.options import Colorize, Outcome

_LONGEST_SOUND_S = 600.0  # around the middle frame
_LONGEST_CLIP_S, _LARGEST_CLIP_BYTES, _MOST_CLIP_PACKETS = 14_400.0, 1 << 30, 4_000_000

Read: TypeAlias = tuple[images.Picture, NDArray[np.float32] | None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Painting:
    """One picture to colour."""

    source: str
    """Place of the picture or clip."""
    target: str
    """Place of the result."""

    @property
    def is_clip(self) -> bool:
        """Whether the source is a clip with its own sound."""
        return video_reader.is_video(self.source)

    @property
    def is_video(self) -> bool:
        """Whether all of a clip is coloured, not its middle frame alone."""
        return self.is_clip and video_reader.is_target(self.target)


def run(options: Colorize) -> Outcome:
    """Carry out the command."""
    paintings = plan(options.input, options.out)
    if options.audio is not None and any(painting.is_video for painting in paintings):
        raise ValueError("a video is guided by its own sound: leave --audio out")
    folder = run_folder.fetch(options.checkpoint)
    colorizer = Colorizer.load(folder, with_sound=options.audio is not None)
    if not colorizer.hears and any(painting.is_clip for painting in paintings):
        raise ValueError(
            f"checkpoint '{options.checkpoint}' is of stage 1, which knows no sound, but a video "
            "is guided by its own: give a checkpoint of stage 3"
        )
    sound = None if options.audio is None else _read_sound(options.audio, colorizer.model)
    done: list[dict[str, object]] = []
    failed: list[str] = []
    bar = tqdm(paintings, desc="colorize", unit="picture", disable=len(paintings) == 1)
    for painting, reading in zip(bar, _read_ahead(paintings, colorizer.model), strict=True):
        try:
            done.append(_paint(painting, reading.result(), colorizer, sound))
        except ValueError as error:
            if len(paintings) == 1:
                raise
            failed.append(str(error))
        except OSError as error:
            if len(paintings) == 1 or _is_full(error):
                raise
            failed.append(f"'{painting.source}': {error.strerror or error}")
    text = [_line(row) for row in done] + [f"not coloured: {reason}" for reason in failed]
    return Outcome(
        values={"checkpoint": options.checkpoint, "outputs": done, "failed": failed},
        text="\n".join(text),
        exit_code=1 if failed else 0,
    )


def plan(source: str, out: str) -> list[Painting]:
    """What is coloured, and where each result goes.

    Raises:
        FileNotFoundError: there is no such input.
        ValueError: a folder holds no picture, or the output is no picture's name, is one name for
            several pictures, would replace an input, or lies inside the input folder.
    """
    if storage.size_of(source) is None and not storage.exists(source):
        raise FileNotFoundError(f"no picture, folder or clip at '{source}'")
    if storage.size_of(source) is not None:
        into_file = _suffix(out) != "" and not _is_folder(out)
        known = [*images.SUFFIXES, *video_reader.TARGET_SUFFIXES * video_reader.is_video(source)]
        if into_file and _suffix(out) not in known:
            raise ValueError(
                f"cannot write '{out}': end it in one of {', '.join(known)}, or name a folder"
            )
        name = _result_name(storage.name_of(source))
        paintings = [Painting(source=source, target=out if into_file else storage.join(out, name))]
    else:
        if _suffix(out) in (*images.SUFFIXES, *video_reader.TARGET_SUFFIXES) and not _is_folder(
            out
        ):
            raise ValueError(f"'{source}' is a folder: let --out name a folder, not '{out}'")
        if _is_inside(out, source):
            raise ValueError(f"'{out}' lies inside the input '{source}': name another --out")
        paintings = _plan_folder(source, out)
    for painting in paintings:
        if _same(painting.source, painting.target):
            raise ValueError(f"'{painting.target}' would replace the input: name another --out")
    return paintings


def _plan_folder(source: str, out: str) -> list[Painting]:
    files = [
        file
        for file in storage.list_files(source)
        if images.is_picture(file.name) or video_reader.is_video(file.name)
    ]
    if not files:
        known = ", ".join((*images.SUFFIXES, *VIDEO_SUFFIXES))
        raise ValueError(f"folder '{source}' holds no picture and no video ({known})")
    paintings = [
        Painting(source=file.uri, target=storage.join(out, *_result_name(file.name).split("/")))
        for file in files
    ]
    by_target: dict[str, str] = {}
    for painting in paintings:
        other = by_target.setdefault(painting.target, painting.source)
        if other != painting.source:
            raise ValueError(f"'{other}' and '{painting.source}' would get one name: rename one")
    return paintings


def _read_ahead(paintings: Sequence[Painting], model: Model) -> Iterator[Future[Read | None]]:
    """Each picture, with its own sound if it has one; the next is decoded meanwhile."""
    with ThreadPoolExecutor(max_workers=1) as reader:
        coming = reader.submit(_read, paintings[0], model)
        for following in paintings[1:]:
            current, coming = coming, reader.submit(_read, following, model)
            yield current
        yield coming


def _read(painting: Painting, model: Model) -> Read | None:
    """A picture and its own sound; None for a video, which is read while it is coloured."""
    if painting.is_video:
        return None
    content = storage.read_bytes(painting.source)
    if painting.is_clip:
        return _read_clip(content, painting.source, model)
    return images.read(content, painting.source), None


def _paint(
    painting: Painting,
    read: Read | None,
    colorizer: Colorizer,
    sound: NDArray[np.float32] | None,
) -> dict[str, object]:
    if read is None:
        result = video.colorize(painting.source, painting.target, colorizer)
        return {
            "input": painting.source,
            "output": painting.target,
            "relevance": result.relevance_mean,
            **dataclasses.asdict(result),
        }
    picture, own_sound = read
    result = colorizer.colorize(picture.rgb, own_sound if sound is None else sound)
    content = images.write(result.rgb, picture, painting.target)
    storage.write_bytes(painting.target, content)
    return {
        "input": painting.source,
        "output": painting.target,
        "relevance": result.relevance,
        "notes": images.dropped(picture, _suffix(painting.target)),
    }


def _read_clip(content: bytes, place: str, model: Model) -> Read:
    """The middle frame at its own resolution, and the clip's sound where it has any."""
    rate = model.config.audio.sample_rate_hz
    clip = Clip(key="clip", youtube_id="clip", start_s=0.0, label="", split="test", uri=place)
    settings = MediaSettings(
        size_px=None, jpeg_quality=100, sample_rate_hz=rate, min_s=0, sound_s=_LONGEST_SOUND_S,
        max_s=_LONGEST_CLIP_S, max_bytes=_LARGEST_CLIP_BYTES, max_packets=_MOST_CLIP_PACKETS,
    )  # fmt: skip
    sample = read_clip(content, clip, settings)
    if isinstance(sample, Rejection):
        raise ValueError(f"clip '{place}' cannot be coloured: {sample.reason} ({sample.detail})")
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
    heard = "without sound" if relevance is None else f"relevance of the sound {relevance:.2f}"
    notes = cast("Sequence[str]", row["notes"])
    if "frames" in row:
        notes = [f"{row['frames']} frames, {row['frames_per_s']:.1f} per second", *notes]
    return f"{row['output']}  ({', '.join([heard, *notes])})"


def _result_name(name: str) -> str:
    """A picture or video keeps its name, if it can be written so; Matroska holds any sound."""
    if images.is_picture(name) or video_reader.is_target(name):
        return name
    return str(PurePosixPath(name).with_suffix(".mkv"))


def _suffix(place: str) -> str:
    return PurePosixPath(storage.name_of(place)).suffix.lower()


def _is_folder(place: str) -> bool:
    return storage.size_of(place) is None and storage.exists(place)


def _is_full(error: OSError) -> bool:
    return isinstance(error, NoSpaceError) or error.errno in (errno.ENOSPC, errno.EDQUOT)


def _is_inside(place: str, folder: str) -> bool:
    """Whether a place is a folder or lies in it."""
    if storage.is_local(place) and storage.is_local(folder):
        inner, outer = (storage.local_path(one).resolve() for one in (place, folder))
        return inner.is_relative_to(outer)
    return f"{place.rstrip('/')}/".startswith(f"{folder.rstrip('/')}/")


def _same(source: str, target: str) -> bool:
    if storage.is_local(source) and storage.is_local(target):
        return storage.local_path(source).resolve() == storage.local_path(target).resolve()
    return source == target
