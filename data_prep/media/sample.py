"""Settings of decoding, and its outcomes: a sample, or a rejection with its reason."""

from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

Reason: TypeAlias = Literal[
    "missing",
    "unreadable",
    "undecodable",
    "too_large",
    "too_long",
    "too_short",
    "no_picture",
    "no_sound",
    "wide_gamut",
    "grey",
    "still",
    "timed_out",
    "crashed",
    "leak",
    "excluded",
]
"""Why a clip yields no sample."""
SoundFate: TypeAlias = Literal["kept", "absent", "silent", "too_short", "undecodable"]
"""What happened to a clip's sound; only ``kept`` sound is in the shard."""


class Excerpt(Protocol):
    """The part of a file that makes a sample; a catalog's ``Clip`` is one."""

    @property
    def key(self) -> str:
        """Name of the sample."""
        ...

    @property
    def event_start_s(self) -> float:
        """Its start in the file."""
        ...

    @property
    def event_end_s(self) -> float | None:
        """Its end in the file; None: the end of the file."""
        ...


@dataclass(frozen=True, kw_only=True)
class MediaSettings:
    """What to take from a clip, and limits that protect against hostile files."""

    size_px: int | None = 96
    """Short side of the pictures; None: as in the source."""
    pictures: int = 1
    """Pictures per clip, taken at the middles of as many equal parts of the window."""
    frames: Literal["exact", "keyframe"] = "exact"
    """``exact``: the frame on screen at that time. ``keyframe``: the nearest key frame, which is
    faster; if that is more than a quarter of a part away, the exact frame."""
    cut_letterbox: bool = False
    """Crop black bars before scaling."""
    measure_motion: bool = False
    """Measure how much the picture changes over the clip; decodes up to two more key frames."""
    jpeg_quality: int = 90
    """Quality of the JPEG pictures, 1 to 100."""
    sound_s: float | None = None
    """Length of the sound, around the middle of the window; None: all of the window."""
    sample_rate_hz: int = 16000
    """Sample rate of the sound."""
    silence_dbfs: float = -60.0
    """Sound below this RMS level counts as silent."""
    min_s: float = 1.0
    """Shortest video or event."""
    min_sound_s: float = 0.5
    """Shorter sound is left out."""
    max_s: float = 600.0
    """Longest file."""
    max_pixels: int = 4096 * 2304
    """Largest frame."""
    max_aspect: float = 8.0
    """Largest ratio of a picture's sides."""
    max_bytes: int = 1 << 26
    """Largest file."""
    max_streams: int = 16
    """Largest number of streams in a file."""
    max_packets: int = 200_000
    """Largest number of packets in a file."""
    max_decode_s: float = 60.0
    """Longest time that decoding one clip may take."""
    max_memory_bytes: int = 400 << 20
    """Most memory that decoding one clip may take."""

    def __post_init__(self) -> None:
        if self.size_px is not None and not 16 <= self.size_px <= 4096:
            raise ValueError(f"size_px is {self.size_px}: give 16 to 4096")
        if not 1 <= self.pictures <= 100:
            raise ValueError(f"pictures is {self.pictures}: give 1 to 100")
        if not 1 <= self.jpeg_quality <= 100:
            raise ValueError(f"jpeg_quality is {self.jpeg_quality}: give 1 to 100")
        if not 4000 <= self.sample_rate_hz <= 192000:
            raise ValueError(f"sample_rate_hz is {self.sample_rate_hz}: give 4000 to 192000")
        if self.sound_s is not None and not self.min_sound_s <= self.sound_s <= self.max_s:
            raise ValueError(
                f"sound_s is {self.sound_s:g}: give {self.min_sound_s:g} to {self.max_s:g}"
            )


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One clip as stored in a shard."""

    key: str
    pictures: tuple[bytes, ...]
    """JPEG, 4:4:4."""
    requested_s: tuple[float, ...]
    """Requested times in the file, one per picture."""
    actual_s: tuple[float, ...]
    """Times of the frames that were taken."""
    width: int
    """Width of the pictures."""
    height: int
    """Height of the pictures."""
    source_width: int
    """Width of the frames in the file, before rotation."""
    source_height: int
    """Height of the frames in the file, before rotation."""
    source_s: float
    """Length of the file's video."""
    crop: tuple[int, ...]
    """Left, top, width and height kept of the frame, before rotation; empty: all of it."""
    colorfulness: float
    """Colourfulness of the most colourful picture (Hasler and Suesstrunk 2003); 0 if grey."""
    motion: float | None
    """Largest mean difference, in levels of 255, between frames of the clip; None: not measured."""
    picture_hash: tuple[str, ...]
    """Perceptual hash of each picture, 16 hexadecimal digits."""
    sound: bytes
    """16-bit mono WAV; empty: no usable sound."""
    sound_fate: SoundFate
    sound_start_s: float
    """Start of the sound in the file; 0 if none is kept."""
    sound_s: float
    """Length of the kept sound; 0 if there is none."""
    rms_dbfs: float
    """RMS level of the sound in the window, kept or not; at least -120."""
    peak_dbfs: float
    """Its peak level; at least -120."""


@dataclass(frozen=True, kw_only=True)
class Rejection:
    """A clip that yields no sample."""

    key: str
    reason: Reason
    detail: str
    """What was found, in words."""


class RejectedError(Exception):
    """Ends the decoding of a clip; becomes a ``Rejection``."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason: Reason = reason
        self.detail = detail
