"""Videos coloured frame by frame by their own sound, in one pass and bounded memory.

What is not read again and again is not held: frames and sound stream through, whatever the length.
The result is written beside and appears under its name when it is whole. Sound streams are copied
packet by packet; subtitles, chapters and attachments are left out.
"""

import contextlib
import dataclasses
import itertools
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from tqdm import tqdm

from aiaic.color import rgb_to_lab
from aiaic.evaluation.metrics import ab_distance, psnr
from aiaic.inference.colorizer import Colorizer
from aiaic.inference.temporal import SceneCuts
from aiaic.inference.video import FrameColorizer, Heard, SemanticsTrack, VideoConfig
from data_prep import storage
from data_prep.storage import scratch
from workflows.media.video_reader import Shown, VideoSource, VideoTarget
from workflows.media.video_sound import SoundWindows

_UNHEARD = "nothing to be heard in the sound"
_DOWNLOADED_BYTES = 64 << 20  # at a time


@dataclasses.dataclass(frozen=True, kw_only=True)
class ColorizedVideo:
    """What became of a video."""

    frames: int
    seconds: float
    """From the first frame's beginning to the last one's."""
    scene_cuts: int
    flicker_ab: float | None
    """Mean distance of chroma from frame to frame within scenes, Lab units, as predicted and at the
    size of prediction; None where no frame follows another."""
    relevance_mean: float | None
    """Over the frames in which sound took part; None where there are none."""
    frames_per_s: float
    """How fast it was coloured, all in all."""
    notes: tuple[str, ...]
    """What a person should know: what was not heard or not decoded."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class VideoScores:
    """A coloured video against its colour original."""

    frames: int
    psnr_db: float
    """Mean over frames, on 8-bit RGB as decoded."""
    flicker_ab: float
    """Of the result as decoded, full size, Lab units, within the original's scenes."""
    original_flicker_ab: float
    """Likewise of the original, whose colours move because things do."""


def colorize(
    source: str, target: str, colorizer: Colorizer, settings: VideoConfig | None = None
) -> ColorizedVideo:
    """Colour a video.

    Args:
        source: place of the video.
        target: place of the result; its suffix chooses the format.
        colorizer: by which frames are coloured.
        settings: how colours are held steady.

    Raises:
        ValueError: it is no video that can be read, is cut off, or ``target`` cannot hold it.
    """
    settings = settings or VideoConfig()
    with scratch.folder() as folder:
        part = folder / f"coloured{PurePosixPath(storage.name_of(target)).suffix.lower()}"
        with scratch.space_in(folder, "video"), contextlib.ExitStack() as opened:
            path = _local(source, folder)
            video = VideoSource(opened.enter_context(path.open("rb")), source)
            opened.callback(video.close)
            audio = colorizer.model.config.audio
            sound = SoundWindows(
                opened.enter_context(path.open("rb")), audio.sample_rate_hz, audio.clip_s
            )
            opened.callback(sound.close)
            track = SemanticsTrack(colorizer, sound.at, settings.hop_s)
            painter = _Painter(colorizer, settings)
            _paint(video, part, track, painter)
            outcome = painter.outcome(video, sound)
        storage.publish(part, target)
    return outcome


def measure(result: str, original: str) -> VideoScores:
    """Compare a coloured video with its colour original, frame by frame.

    Raises:
        ValueError: one is no video, they differ in length or size, or nothing moves on in a scene.
    """
    cuts = SceneCuts()
    before: list[torch.Tensor] | None = None
    ratios: list[float] = []
    changes: list[list[float]] = []
    with scratch.folder() as folder, contextlib.ExitStack() as opened:
        videos = [_frames(place, folder, opened) for place in (result, original)]
        for pair in itertools.zip_longest(*videos):
            if None in pair:
                raise ValueError(f"'{result}' is not as long as '{original}'")
            height, width = pair[1].rgb.shape[:2]  # a result of odd size has a row or column more
            rows, columns = (r - o for r, o in zip(*(s.rgb.shape[:2] for s in pair), strict=True))
            if not (0 <= rows <= 1 and 0 <= columns <= 1):
                raise ValueError(f"'{result}' is not as large as '{original}'")
            both = [
                torch.from_numpy(shown.rgb[:height, :width]).permute(2, 0, 1)[None]
                for shown in pair
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
        raise ValueError(f"'{original}' has no two frames of one scene")
    flicker, original_flicker = np.mean(changes, axis=0).tolist()
    return VideoScores(
        frames=len(ratios),
        psnr_db=float(np.mean(ratios)),
        flicker_ab=flicker,
        original_flicker_ab=original_flicker,
    )


class _Painter:
    """Colours frames and keeps the figures of it."""

    def __init__(self, colorizer: Colorizer, settings: VideoConfig) -> None:
        self._colorizer = colorizer
        self._settings = settings
        self._frames: FrameColorizer | None = None
        self._began = time.monotonic()
        self._times_s: tuple[float, float] = (0.0, 0.0)
        self._count = self._cuts = 0
        self._changes, self._relevance = _Mean(), _Mean()

    def paint(self, shown: Shown, heard: Heard, pixel_aspect: float) -> np.ndarray:
        if self._frames is None:
            self._frames = FrameColorizer(
                self._colorizer, pixel_aspect=pixel_aspect, settings=self._settings
            )
            self._times_s = shown.time_s, shown.time_s
        coloured = self._frames.colorize(shown.rgb, shown.time_s, heard)
        self._times_s = self._times_s[0], shown.time_s
        self._count += 1
        self._cuts += coloured.is_cut
        self._changes.add(coloured.ab_change)
        self._relevance.add(coloured.relevance)
        return coloured.rgb

    def outcome(self, video: VideoSource, sound: SoundWindows) -> ColorizedVideo:
        unheard = [] if sound.notes or self._relevance.value is not None else [_UNHEARD]
        return ColorizedVideo(
            frames=self._count,
            seconds=round(self._times_s[1] - self._times_s[0], 6),
            scene_cuts=self._cuts,
            flicker_ab=self._changes.value,
            relevance_mean=self._relevance.value,
            frames_per_s=round(self._count / (time.monotonic() - self._began), 3),
            notes=(*sound.notes, *unheard, *video.notes),
        )


class _Mean:
    """Of values that come one by one, without those that are None."""

    def __init__(self) -> None:
        self._sum, self._count = 0.0, 0

    def add(self, value: float | None) -> None:
        if value is not None:
            self._sum, self._count = self._sum + value, self._count + 1

    @property
    def value(self) -> float | None:
        return self._sum / self._count if self._count else None


def _paint(video: VideoSource, part: Path, track: SemanticsTrack, painter: _Painter) -> None:
    """Read, colour and write, in the order of the file."""
    target: VideoTarget | None = None
    early = []  # packets of sound before the first frame: the file's head needs that frame
    with tqdm(total=video.frames_declared, desc="colorize", unit="frame") as bar:
        for item in video.read():
            if not isinstance(item, Shown):
                early.append(item) if target is None else target.copy(item)
                continue
            if target is None:
                target = VideoTarget(part, video, item)
                for packet in early:
                    target.copy(packet)
            heard = track.at(item.time_s)
            target.write(painter.paint(item, heard, video.pixel_aspect), item)
            bar.update()
    if target is None:
        raise ValueError(f"video '{video.name}' cannot be coloured: no frame can be decoded")
    target.finish()


def _frames(place: str, folder: Path, opened: contextlib.ExitStack) -> Iterator[Shown]:
    path = _local(place, folder)
    video = VideoSource(opened.enter_context(path.open("rb")), place)
    opened.callback(video.close)
    return (item for item in video.read() if isinstance(item, Shown))


def _local(place: str, folder: Path) -> Path:
    """A video on this machine's disk: it is read at two places at once."""
    if storage.is_local(place):
        return storage.local_path(place)
    size = storage.size_of(place)
    if size is None:
        raise FileNotFoundError(f"{place} is not there: check the path")
    path = folder / f"{len(list(folder.iterdir()))}{PurePosixPath(storage.name_of(place)).suffix}"
    with path.open("wb") as file:
        for offset in range(0, size, _DOWNLOADED_BYTES):
            length = min(_DOWNLOADED_BYTES, size - offset)
            file.write(storage.read_range(place, offset, length))
    return path
