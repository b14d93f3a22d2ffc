"""Colorizes videos by their own sound, in one pass and with bounded memory.

Frames and sound are streamed, so memory does not grow with the length. The result is written to a
scratch file and published when it is complete. Sound streams are copied packet by packet;
subtitles, chapters and attachments are left out.
"""

import contextlib
import dataclasses
import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from aiaic.color import ab_distance, rgb_to_lab
from aiaic.evaluation.metrics import psnr
from aiaic.inference import Colorizer
from aiaic.inference.temporal import SceneCuts
from aiaic.inference.video import FrameColorizer, SemanticsTrack, SoundCue, VideoConfig
from data_prep import storage
from data_prep.storage import scratch
from workflows.media.video_reader import DecodedFrame, VideoReader
from workflows.media.video_sound import SoundWindows
from workflows.media.video_writer import VideoWriter

_SILENT = "the sound is silent"
_DOWNLOAD_CHUNK_BYTES = 64 << 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class ColorizedVideo:
    """What happened when a video was colorized."""

    frames: int
    seconds: float
    """From the time of the first frame to that of the last."""
    scene_cuts: int
    flicker_ab: float | None
    """Mean chroma distance between consecutive frames of a scene, in Lab units, as predicted and at
    the size of prediction; None if no scene has two frames."""
    relevance_mean: float | None
    """Mean over the frames that were guided by sound; None if there were none."""
    frames_per_s: float
    """Speed of colorization, including reading and writing."""
    notes: tuple[str, ...]
    """What a person should know: what was not used or not decoded."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class VideoScores:
    """A colorized video compared with its colour original."""

    frames: int
    psnr_db: float
    """Mean over frames, on decoded 8-bit RGB."""
    flicker_ab: float
    """Mean chroma distance between consecutive frames of a scene, in Lab units, of the decoded
    result at full size."""
    original_flicker_ab: float
    """The same for the original, whose colours change because things move."""


def colorize(
    source: str, target: str, colorizer: Colorizer, settings: VideoConfig | None = None
) -> ColorizedVideo:
    """Colorize a video.

    Args:
        source: place of the video.
        target: place of the result; its suffix chooses the format.
        colorizer: colorizer of single pictures.
        settings: smoothing over time.

    Raises:
        FileNotFoundError: there is no such video.
        ValueError: it cannot be read, is truncated, or the format of ``target`` cannot contain its
            sound.
    """
    settings = settings or VideoConfig()
    with scratch.folder() as folder:
        part = folder / f"colorized{storage.suffix_of(target)}"
        with scratch.space_in(folder, "video"), contextlib.ExitStack() as opened:
            path = _local(source, folder)
            video = VideoReader(opened.enter_context(path.open("rb")), source)
            opened.callback(video.close)
            audio = colorizer.model.config.audio
            sound = SoundWindows(
                opened.enter_context(path.open("rb")), audio.sample_rate_hz, audio.clip_s
            )
            opened.callback(sound.close)
            track = SemanticsTrack(colorizer, sound.at, settings.hop_s)
            colorization = _Colorization(colorizer, settings)
            _colorize_frames(video, part, track, colorization)
            outcome = colorization.outcome(video, sound)
        storage.publish(part, target)
    return outcome


def measure(result: str, original: str) -> VideoScores:
    """Compare a colorized video with its colour original, frame by frame.

    Raises:
        ValueError: one cannot be read, they differ in length or size, or no scene has two frames.
    """
    cuts = SceneCuts()
    before: list[torch.Tensor] | None = None
    ratios: list[float] = []
    changes: list[list[float]] = []
    with scratch.folder() as folder, contextlib.ExitStack() as opened:
        videos = [_frames(place, folder, opened) for place in (result, original)]
        for pair in itertools.zip_longest(*videos):
            if None in pair:
                raise ValueError(f"'{result}' and '{original}' differ in length")
            height, width = pair[1].rgb.shape[:2]  # the result of an odd size has one more
            rows, columns = (r - o for r, o in zip(*(s.rgb.shape[:2] for s in pair), strict=True))
            if not (0 <= rows <= 1 and 0 <= columns <= 1):
                raise ValueError(f"'{result}' and '{original}' differ in size")
            both = [
                torch.from_numpy(frame.rgb[:height, :width]).permute(2, 0, 1)[None]
                for frame in pair
            ]
            ratios.append(psnr(both[0], both[1]).item())
            labs = [rgb_to_lab(picture) for picture in both]
            chroma = [ab for _, ab in labs]
            if not cuts.is_cut(labs[1][0]) and before is not None:
                changes.append(
                    [ab_distance(*steps).item() for steps in zip(chroma, before, strict=True)]
                )
            before = chroma
    if not changes:
        raise ValueError(f"no scene of '{original}' has two frames")
    flicker, original_flicker = np.mean(changes, axis=0).tolist()
    return VideoScores(
        frames=len(ratios),
        psnr_db=float(np.mean(ratios)),
        flicker_ab=flicker,
        original_flicker_ab=original_flicker,
    )


class _Colorization:
    """Colorizes the frames of one video and collects statistics."""

    def __init__(self, colorizer: Colorizer, settings: VideoConfig) -> None:
        self._colorizer = colorizer
        self._settings = settings
        self._frames: FrameColorizer | None = None
        self._started = time.monotonic()
        self._times_s: tuple[float, float] = (0.0, 0.0)
        self._count = self._cuts = 0
        self._changes, self._relevance = _Mean(), _Mean()

    def colorize(self, frame: DecodedFrame, cue: SoundCue, pixel_aspect: float) -> np.ndarray:
        if self._frames is None:
            self._frames = FrameColorizer(
                self._colorizer, pixel_aspect=pixel_aspect, settings=self._settings
            )
            self._times_s = frame.time_s, frame.time_s
        colorized = self._frames.colorize(frame.rgb, frame.time_s, cue)
        self._times_s = self._times_s[0], frame.time_s
        self._count += 1
        self._cuts += colorized.is_cut
        self._changes.add(colorized.ab_change)
        self._relevance.add(colorized.relevance)
        return colorized.rgb

    def outcome(self, video: VideoReader, sound: SoundWindows) -> ColorizedVideo:
        silent = [] if sound.notes or self._relevance.value is not None else [_SILENT]
        return ColorizedVideo(
            frames=self._count,
            seconds=round(self._times_s[1] - self._times_s[0], 6),
            scene_cuts=self._cuts,
            flicker_ab=self._changes.value,
            relevance_mean=self._relevance.value,
            frames_per_s=round(self._count / (time.monotonic() - self._started), 3),
            notes=(*sound.notes, *silent, *video.notes),
        )


class _Mean:
    """Running mean that ignores None."""

    def __init__(self) -> None:
        self._sum, self._count = 0.0, 0

    def add(self, value: float | None) -> None:
        if value is not None:
            self._sum, self._count = self._sum + value, self._count + 1

    @property
    def value(self) -> float | None:
        return self._sum / self._count if self._count else None


def _colorize_frames(
    video: VideoReader, part: Path, track: SemanticsTrack, colorization: _Colorization
) -> None:
    """Read, colorize and write, in the order of the file."""
    writer: VideoWriter | None = None
    early = []  # sound packets before the first frame, which the writer needs to start
    with tqdm(total=video.frames_declared, desc="colorize", unit="frame") as bar:
        for item in video.read():
            if not isinstance(item, DecodedFrame):
                early.append(item) if writer is None else writer.copy(item)
                continue
            if writer is None:
                writer = VideoWriter(part, video, item)
                for packet in early:
                    writer.copy(packet)
            cue = track.at(item.time_s)
            writer.write(colorization.colorize(item, cue, video.pixel_aspect), item)
            bar.update()
    if writer is None:
        raise ValueError(f"cannot read video '{video.name}': no frame can be decoded")
    writer.finish()


def _frames(place: str, folder: Path, opened: contextlib.ExitStack) -> Iterator[DecodedFrame]:
    path = _local(place, folder)
    video = VideoReader(opened.enter_context(path.open("rb")), place)
    opened.callback(video.close)
    return (item for item in video.read() if isinstance(item, DecodedFrame))


def _local(place: str, folder: Path) -> Path:
    """A video as a local file; a remote one is downloaded, because it is read twice at once."""
    if storage.is_local(place):
        return storage.local_path(place)
    size = storage.size_of(place)
    if size is None:
        raise FileNotFoundError(f"no video at '{place}': check the path")
    path = folder / f"{len(list(folder.iterdir()))}{storage.suffix_of(place)}"
    with path.open("wb") as file:
        for offset in range(0, size, _DOWNLOAD_CHUNK_BYTES):
            length = min(_DOWNLOAD_CHUNK_BYTES, size - offset)
            file.write(storage.read_range(place, offset, length))
    return path
