"""Generates media files in memory, and truncates, patches and forges them byte by byte."""

import io
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from data_prep.catalog import Clip

FPS = 10
RGB = tuple[int, int, int]
ONE, W = 1 << 16, 1 << 30
ROSE: RGB = (200, 40, 60)


@dataclass(frozen=True, kw_only=True)
class Sound:
    """A sound track: a sine tone."""

    codec: str = "aac"
    hz: float = 440.0
    loudness: float = 0.3
    seconds: float = 2.0
    start_s: float = 0.0
    rate_hz: int = 44100
    layout: str = "stereo"
    options: Mapping[str, str] = field(default_factory=dict)
    edit: Callable[[np.ndarray], np.ndarray] = lambda wave: wave


TONE = (Sound(),)


def bars(number: int, width: int, height: int) -> np.ndarray:
    """A picture that encodes a number: bit k is the k-th of eight bars."""
    image = np.zeros((height, width, 3), np.uint8)
    for bit in range(8):
        image[:, bit * width // 8 : (bit + 1) * width // 8] = 230 if number >> bit & 1 else 25
    return image


def number_in(image: np.ndarray) -> int:
    """The number that ``bars`` drew."""
    height, width, _ = image.shape
    centres = [(2 * bit + 1) * width // 16 for bit in range(8)]
    return sum(int(image[height // 2, x, 1] > 128) << bit for bit, x in enumerate(centres))


def clip(
    *,
    container: str = "mp4",
    codec: str | None = "h264",
    pixel_format: str = "yuv420p",
    size: tuple[int, int] = (96, 64),
    times: Iterable[int] = range(2 * FPS),
    clock: Fraction = Fraction(1, FPS),
    key_interval: int = 6,
    color: RGB | None = None,
    options: Mapping[str, str] | None = None,
    tags: Mapping[str, int] | None = None,
    sounds: Iterable[Sound] = TONE,
    muxer: Mapping[str, str] | None = None,
    draw: Callable[[int, int, int], np.ndarray] = bars,
) -> bytes:
    """A clip whose n-th frame encodes n; ``times`` are the frames' times in ticks of ``clock``."""
    stream = io.BytesIO()
    with av.open(stream, "w", format=container, options=dict(muxer or {})) as target:
        tracks: list[tuple[Any, Iterator[Any]]] = []
        if codec is not None:
            fast = {"preset": "ultrafast", "bf": "2"} if codec == "h264" else {}
            video: Any = target.add_stream(codec, rate=FPS, options=fast | dict(options or {}))
            video.width, video.height, video.pix_fmt = *size, pixel_format
            video.gop_size, video.time_base = key_interval, clock
            video.codec_context.thread_count = 1
            for name, value in (tags or {}).items():
                setattr(video.codec_context, name, value)
            tracks.append((video, _frames(times, clock, size, color, draw)))
        for sound in sounds:
            audio = target.add_stream(
                sound.codec, rate=sound.rate_hz, layout=sound.layout, options=dict(sound.options)
            )
            tracks.append((audio, _tone(sound, audio.format.name)))
        for track, frames in tracks:
            for frame in frames:
                target.mux(track.encode(frame))
            target.mux(track.encode(None))
    return stream.getvalue()


def _frames(
    times: Iterable[int],
    clock: Fraction,
    size: tuple[int, int],
    color: RGB | None,
    draw: Callable[[int, int, int], np.ndarray],
) -> Iterator[av.VideoFrame]:
    for number, pts in enumerate(times):
        image = draw(number, *size)
        if color is not None:
            image[:] = color
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        frame.pts, frame.time_base = pts, clock
        yield frame


_SCALED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "flt": lambda wave: wave,
    "dbl": lambda wave: wave.astype(np.float64),
    "u8": lambda wave: (wave * 127 + 128).astype(np.uint8),
    "s16": lambda wave: (wave * 32767).astype(np.int16),
    "s32": lambda wave: (wave.astype(np.float64) * (2**31 - 1)).astype(np.int32),
}


def _tone(sound: Sound, sample_format: str) -> Iterator[av.AudioFrame]:
    channels = av.AudioLayout(sound.layout).nb_channels
    moments = np.arange(round(sound.seconds * sound.rate_hz)) / sound.rate_hz
    wave = sound.edit((sound.loudness * np.sin(2 * np.pi * sound.hz * moments)).astype(np.float32))
    planar = np.ascontiguousarray(np.tile(wave[None], (channels, 1)))
    base = sample_format.removesuffix("p")
    scaled = _SCALED[base](planar)
    for first in range(0, len(wave), 960):
        part = np.ascontiguousarray(scaled[:, first : first + 960])
        if sample_format == base:
            part = np.ascontiguousarray(part.T.reshape(1, -1))
        frame = av.AudioFrame.from_ndarray(part, format=sample_format, layout=sound.layout)
        frame.sample_rate, frame.time_base = sound.rate_hz, Fraction(1, sound.rate_hz)
        frame.pts = first + round(sound.start_s * sound.rate_hz)
        yield frame


def boxes(content: bytes) -> list[tuple[bytes, int, int]]:
    """Name, start and end of each top-level box of an MP4 file."""
    found, at = [], 0
    while at < len(content):
        size, name = struct.unpack_from(">I4s", content, at)
        found.append((name, at, at + size))
        at += size
    return found


def inside(content: bytes, box: bytes, number: int = 0) -> int:
    """Offset of the content of the n-th box with this name."""
    at = -1
    for _ in range(number + 1):
        at = content.index(box, at + 1)
    return at + 4


def patched(content: bytes, at: int, layout: str, *values: float) -> bytes:
    """The content with some bytes overwritten."""
    changed = bytearray(content)
    struct.pack_into(layout, changed, at, *values)
    return bytes(changed)


def moov_first(content: bytes) -> bytes:
    """An MP4 file with its header before its samples."""
    parts = {name: content[begin:end] for name, begin, end in boxes(content)}
    moov = bytearray(parts.pop(b"moov"))
    at = -1
    while (at := moov.find(b"stco", at + 1)) >= 0:
        (count,) = struct.unpack_from(">I", moov, at + 8)
        for n in range(count):
            (offset,) = struct.unpack_from(">I", moov, at + 12 + 4 * n)
            struct.pack_into(">I", moov, at + 12 + 4 * n, offset + len(moov))
    ftyp = parts.pop(b"ftyp")
    return ftyp + bytes(moov) + b"".join(parts.values())


def spliced(parts: Iterable[bytes], container: str = "matroska") -> bytes:
    """Clips of one second each, concatenated in the tracks of the first."""
    stream, tracks, last = io.BytesIO(), {}, {}
    with av.open(stream, "w", format=container) as target:
        for position, part in enumerate(parts):
            with av.open(io.BytesIO(part)) as source:
                for theirs in source.streams if not tracks else ():
                    tracks[theirs.index] = target.add_stream_from_template(theirs)
                for packet in [p for p in source.demux() if p.size]:
                    second = round(position / packet.time_base)
                    packet.pts, packet.dts = packet.pts + second, packet.dts + second
                    if packet.dts <= last.get(packet.stream.index, packet.dts - 1):
                        continue
                    last[packet.stream.index] = packet.dts
                    packet.stream = tracks[packet.stream.index]
                    target.mux(packet)
    return stream.getvalue()


def endless(frames: int, seconds: float) -> bytes:
    """A large frame, then many copies of one that changes nothing: small but slow to decode."""
    pair = clip(
        container="matroska",
        codec="mpeg4",
        sounds=(),
        times=range(2),
        size=(1920, 1088),
        color=ROSE,
    )
    stream = io.BytesIO()
    with av.open(stream, "w", format="matroska") as target, av.open(io.BytesIO(pair)) as source:
        track = target.add_stream_from_template(source.streams.video[0])
        key, change = (bytes(packet) for packet in source.demux(video=0) if packet.size)
        for number in range(frames):
            packet = av.Packet(change if number else key)
            packet.stream, packet.time_base = track, Fraction(1, 1000)
            packet.pts = packet.dts = round(number * 1000 * seconds / frames)
            packet.duration, packet.is_keyframe = round(1000 * seconds / frames), number == 0
            target.mux(packet)
    return stream.getvalue()


def places(content: bytes, kind: str) -> list[tuple[int, int]]:
    """Offset and size of each packet of a track in an MP4 file."""
    with av.open(io.BytesIO(content)) as source:
        return [(p.pos, p.size) for p in source.demux(**{kind: 0}) if p.size]


def damaged(content: bytes, kind: str, numbers: Iterable[int]) -> bytes:
    """The content with the middle of some packets overwritten."""
    changed = bytearray(content)
    packets = places(content, kind)
    for number in numbers:
        begin, size = packets[number]
        at = begin + size // 3
        changed[at : at + size // 3] = bytes(255 - byte for byte in changed[at : at + size // 3])
    return bytes(changed)


def turned(content: bytes, *matrix: int) -> bytes:
    """The content with another display matrix: x of x, y of x, x of y, y of y."""
    x_of_x, y_of_x, x_of_y, y_of_y = matrix
    whole = (x_of_x, y_of_x, 0, x_of_y, y_of_y, 0, 0, 0, W)
    return patched(content, inside(content, b"tkhd") + 40, ">9i", *whole)


def edited(content: bytes, length_ms: int, first_tick: int) -> bytes:
    """The content with another first entry in the edit list of the first track."""
    return patched(content, inside(content, b"elst") + 8, ">Ii", length_ms, first_tick)


def with_data_elsewhere(path: str) -> bytes:
    """A clip whose header says that its video samples are in another file."""
    content = clip(options={"bf": "0"})  # the video's header comes first
    alias = bytearray(150)
    struct.pack_into(">H", alias, 2, 150)
    name = path.rpartition("/")[2].encode()
    alias[50] = len(name)
    alias[51 : 51 + len(name)] = name
    records = struct.pack(">hh", 2, len(path)) + path.encode() + b"\0" * (len(path) % 2)
    records += struct.pack(">hh", 0, 2) + b"\0/" + struct.pack(">hh", -1, 0)
    body = bytes(4) + bytes(alias) + records
    entry = struct.pack(">I4s", 8 + len(body), b"alis") + body
    here = struct.pack(">I4sI", 12, b"url ", 1)
    parents = (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref")
    return resized(content, here, entry, parents)


def cover_art(*, first: bool = False, video: bool = True) -> bytes:
    """A clip with cover art, whose stream comes first or last."""
    stream, jpeg = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (64, 64), ROSE).save(jpeg, "JPEG")
    played = clip() if video else clip(codec=None)
    with av.open(io.BytesIO(played)) as source, av.open(stream, "w", format="mp4") as target:
        tracks = {s.index: target.add_stream_from_template(s) for s in source.streams}
        cover: Any = target.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 64, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        packet = av.Packet(jpeg.getvalue())
        packet.stream, packet.pts, packet.dts, packet.is_keyframe = cover, 0, 0, True
        packet.time_base = Fraction(1, 10)
        target.mux(packet)
        for packet in [p for p in source.demux() if p.size]:
            packet.stream = tracks[packet.stream.index]
            target.mux(packet)
    content = stream.getvalue()
    if not first:
        return content
    # The cover's box is the last of the header; streams are numbered in the order of their boxes.
    tracks_at, cover_at = content.index(b"trak") - 4, content.index(b"udta") - 4
    (size,) = struct.unpack_from(">I", content, cover_at)
    box, after = content[cover_at : cover_at + size], content[cover_at + size :]
    return content[:tracks_at] + box + content[tracks_at:cover_at] + after


def with_subtitles() -> bytes:
    """A clip with a subtitle track and an attached file."""
    stream = io.BytesIO()
    played = clip(sounds=())
    with av.open(io.BytesIO(played)) as source, av.open(stream, "w", format="matroska") as target:
        target.add_attachment("evil.ttf", "application/x-truetype-font", b"evil" * 100)
        text = target.add_stream("ass")
        tracks = {s.index: target.add_stream_from_template(s) for s in source.streams}
        packet = av.Packet(b"0,0,Default,,0,0,0,,words")
        packet.stream, packet.pts, packet.dts, packet.duration = text, 0, 0, 1000
        packet.time_base = Fraction(1, 1000)
        target.mux(packet)
        for packet in [p for p in source.demux() if p.size]:
            packet.stream = tracks[packet.stream.index]
            target.mux(packet)
    return stream.getvalue()


def fields(number: int, width: int, height: int) -> np.ndarray:
    """A bar that moves 16 pixels per field: combing artifacts if both fields are shown."""
    image = np.full((height, width, 3), 40, np.uint8)
    for row in (0, 1):
        left = (32 * number + 16 * row) % width
        image[row::2, left : left + 8] = 230
    return image


def noise(number: int, width: int, height: int) -> np.ndarray:
    """A random picture, which cannot be predicted from any other."""
    return np.random.default_rng(number).integers(0, 255, (height, width, 3), np.uint8)


def with_parameters_for(width: int, height: int) -> bytes:
    """A clip whose H.264 parameter set and header claim another frame size."""
    content = clip(options={"bf": "0"})
    at = inside(content, b"avcC")
    (size,) = struct.unpack_from(">I", content, at - 8)
    (old,) = struct.unpack_from(">H", content, at + 6)
    new = _parameters(width // 16, height // 16)
    box = content[at : at + 6] + struct.pack(">H", len(new)) + new
    box += content[at + 8 + old : at - 8 + size]
    whole = struct.pack(">I4s", len(box) + 8, b"avcC") + box
    grown = resized(content, content[at - 8 : at - 8 + size], whole, _TO_SAMPLE_ENTRY)
    return patched(grown, inside(grown, b"avc1", 1) + 24, ">HH", width, height)


_TO_SAMPLE_ENTRY = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd")


def resized(content: bytes, old: bytes, new: bytes, parents: Iterable[bytes]) -> bytes:
    """The content with a part of the header, which is at its end, replaced, and the sizes of its
    parent boxes adjusted."""
    at = content.index(old)
    grown = bytearray(content[:at] + new + content[at + len(old) :])
    entry = grown.rindex(b"avc1", 0, at) if b"stsd" in parents else None
    begins = [grown.index(box) for box in parents] + ([entry] if entry else [])
    for begin in begins:
        (size,) = struct.unpack_from(">I", grown, begin - 4)
        struct.pack_into(">I", grown, begin - 4, size + len(new) - len(old))
    return bytes(grown)


def _parameters(blocks_wide: int, blocks_high: int) -> bytes:
    """An H.264 sequence parameter set, baseline profile."""

    def number(value: int) -> str:
        code = f"{value + 1:b}"
        return "0" * (len(code) - 1) + code

    bits = f"{66:08b}{0:08b}{30:08b}"  # profile, constraints, level
    bits += number(0) + number(0) + number(2) + number(1) + "0"
    bits += number(blocks_wide - 1) + number(blocks_high - 1) + "11001"
    bits += "0" * (-len(bits) % 8)
    return b"\x67" + int(bits, 2).to_bytes(len(bits) // 8, "big")


def clip_of(path: Path | str, key: str = "") -> Clip:
    stem = Path(path).stem
    return Clip(
        key=key or stem,
        youtube_id=key or stem,
        start_s=0.0,
        label="",
        split="train",
        uri=str(path),
        stamp="1:1",
        event_start_s=0.0,
        event_end_s=None,
    )
