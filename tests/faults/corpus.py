"""Hostile, broken and unusual media files, each with its expected outcome."""

import gzip
import io
import pickle
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from tests.faults.media_files import (
    ONE,
    RGB,
    ROSE,
    Sound,
    bars,
    clip,
    cover_art,
    damaged,
    edited,
    fields,
    inside,
    moov_first,
    noise,
    patched,
    places,
    spliced,
    turned,
    with_data_elsewhere,
    with_parameters_for,
    with_subtitles,
)


@dataclass(frozen=True, kw_only=True)
class Expected:
    """The expected outcome; fields that are None are not checked."""

    fate: str = "written"
    """``written``, or the rejection reason."""
    detail: str = ""
    """Substring of the rejection's detail."""
    number: int | None = None
    """Frame number that the picture shows."""
    color: RGB | None = None
    """Mean colour of the picture."""
    size: tuple[int, int] | None = None
    """Width and height of the picture."""
    sound_fate: str = "kept"
    pitch_hz: float | None = 440.0
    sound_s: float | None = 2.0
    sound_start_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Case:
    """A file's content and its expected outcome."""

    make: Callable[[], bytes]
    expected: Expected


def _wave_with(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def edit(wave: np.ndarray) -> np.ndarray:
        changed = wave.copy()
        changed[len(wave) // 2] = value
        return changed

    return edit


def _sound(container: str = "mp4", **sound: Any) -> Callable[[], bytes]:
    return lambda: clip(container=container, sounds=[Sound(**sound)])


def _silent(**video: Any) -> Callable[[], bytes]:
    return lambda: clip(sounds=(), **video)


def _at(box: bytes, offset: int, layout: str, *values: int, number: int = 0) -> Callable[[], bytes]:
    """A good clip with one field of its header overwritten."""

    def make() -> bytes:
        content = clip()
        return patched(content, inside(content, box, number) + offset, layout, *values)

    return make


def _video_only_header() -> bytes:
    """An MP4 file with a video track that has no samples."""
    content = clip(sounds=(), options={"bf": "0"})
    for box, offset in ((b"stsz", 8), (b"stts", 4), (b"stsc", 4), (b"stco", 4), (b"stss", 4)):
        content = patched(content, inside(content, box) + offset, ">I", 0)
    return content


def _all_vp8_key_frames_claiming(side: int) -> bytes:
    content = bytearray(clip(container="webm", codec="libvpx", sounds=()))
    at = -1
    while (at := content.find(b"\x9d\x01\x2a", at + 1)) >= 0:
        struct.pack_into("<HH", content, at + 3, side, side)
    return bytes(content)


def _sound_rate(rate_hz: float) -> Callable[[], bytes]:
    """PCM in Matroska with a forged sample rate in its header."""

    def make() -> bytes:
        sound = Sound(codec="pcm_s16le", layout="mono", rate_hz=16000)
        content = clip(container="matroska", sounds=[sound])
        return patched(content, content.index(b"\xb5\x88") + 2, ">d", rate_hz)

    return make


def _unknown_sound() -> bytes:
    content = clip().replace(b"mp4a", b"zzzz")
    return patched(content, content.index(b"\x40\x15", content.index(b"esds")), ">B", 0xC5)


def _sound_packets_claiming(size: int) -> bytes:
    content = clip()
    at = inside(content, b"stsz", 1)
    (count,) = struct.unpack_from(">I", content, at + 8)
    return patched(content, at + 12, f">{count}I", *[size] * count)


def _cut(content: bytes, share: float) -> bytes:
    return content[: int(len(content) * share)]


def _cut_in_video() -> bytes:
    content = moov_first(clip(sounds=()))
    begin, size = places(content, "video")[15]
    return content[: begin + size // 2]


def _nested() -> bytes:
    return clip()[:28] + b"".join(struct.pack(">I4s", 90000 - 8 * n, b"moov") for n in range(9000))


def _ticks(seconds: float, content: bytes) -> int:
    """Seconds in ticks of the first track's clock."""
    (rate,) = struct.unpack_from(">I", content, inside(content, b"mdhd") + 12)
    return round(seconds * rate)


def _trimmed(key_interval: int) -> Callable[[], bytes]:
    """Four seconds, of which an edit list selects the second and third."""

    def make() -> bytes:
        whole = clip(times=range(40), key_interval=key_interval, options={"bf": "0"}, sounds=())
        return edited(whole, 2000, _ticks(1.0, whole))

    return make


def _gzip() -> bytes:
    return gzip.compress(clip())


def _zip() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as target:
        target.writestr("clip.mp4", clip())
    return stream.getvalue()


def _picture(kind: str) -> Callable[[], bytes]:
    def make() -> bytes:
        stream = io.BytesIO()
        frames = [Image.fromarray(bars(number, 96, 64)) for number in range(3)]
        many = {"save_all": True, "append_images": frames[1:]} if kind == "GIF" else {}
        frames[0].save(stream, kind, **many)
        return stream.getvalue()

    return make


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return __import__("os").mkdir, ("executed",)


def _wav_claiming(samples: int) -> bytes:
    size = 2 * samples
    head = struct.pack("<4sI4s", b"RIFF", size + 36, b"WAVE")
    head += struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, 16000, 32000, 2, 16)
    return head + struct.pack("<4sI", b"data", size) + bytes(4000)


def _bad(detail: str = "", fate: str = "undecodable") -> Expected:
    return Expected(fate=fate, detail=detail)


def _mute(fate: str = "absent", **expected: Any) -> Expected:
    return Expected(**{"number": 10} | expected, sound_fate=fate, pitch_hz=None, sound_s=None)


_NO_MEDIA = _bad("nvalid")
_GOOD = Expected(number=10, size=(96, 64))
_HDR = _bad("HDR or BT.2020", "wide_gamut")
_H265 = {"x265-params": "log-level=none"}
_PQ, _HLG, _BT709, _BT2020 = 16, 18, 1, 9


def _tagged(transfer: int, primaries: int, matrix: int, **video: Any) -> Callable[[], bytes]:
    tags = {"color_trc": transfer, "color_primaries": primaries, "colorspace": matrix}
    return _silent(tags=tags, **video)


def text_cases(canary: str, port: int) -> dict[str, Case]:
    """Files that make FFmpeg open other files or network addresses, unless that is prevented."""
    url = f"http://127.0.0.1:{port}/clip.mp4"
    playlist = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n"
    texts = {
        "hls-local": f"{playlist}#EXTINF:2,\n{canary}\n#EXT-X-ENDLIST\n",
        "hls-network": f"{playlist}#EXTINF:2,\n{url}\n#EXT-X-ENDLIST\n",
        "hls-key": f'{playlist}#EXT-X-KEY:METHOD=AES-128,URI="{url}"\n#EXTINF:2,\n{canary}\n',
        "hls-concat": f"{playlist}#EXTINF:2,\nconcat:{canary}|{canary}\n#EXT-X-ENDLIST\n",
        "ffconcat": f"ffconcat version 1.0\nfile '{canary}'\nfile '{url}'\n",
        "ffmetadata": f";FFMETADATA1\ntitle={canary}\n[CHAPTER]\nSTART=0\nEND=1\n",
        "sdp": f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
        f"m=video {port} RTP/AVP 96\na=rtpmap:96 H264/90000\n",
        "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        'mediaPresentationDuration="PT2S" profiles="urn:mpeg:dash:profile:isoff-on-demand:2011">'
        f'<Period><AdaptationSet><Representation id="1" bandwidth="1"><BaseURL>{url}</BaseURL>'
        "</Representation></AdaptationSet></Period></MPD>",
        "svg": '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
        f'><image xlink:href="{url}"/><image xlink:href="file://{canary}"/></svg>',
        "html": f'<!doctype html><video src="{url}"></video><script>fetch("{url}")</script>',
        "imf": '<?xml version="1.0"?><CompositionPlaylist xmlns="http://www.smpte-ra.org/'
        f'schemas/2067-3/2016"><Id>{url}</Id></CompositionPlaylist>',
        "pattern": f"{canary.replace('canary', '%06d')}\n{url}\n",
    }
    cases = {name: Case(make=text.encode, expected=_NO_MEDIA) for name, text in texts.items()}
    elsewhere = Case(
        make=lambda: with_data_elsewhere(canary), expected=_bad("no frames", "no_picture")
    )
    return cases | {"data-elsewhere": elsewhere}


CASES: dict[str, Case] = {
    name: Case(make=make, expected=expected)
    for name, (make, expected) in {
        # Not media at all.
        "empty": (lambda: b"", _NO_MEDIA),
        "one-byte": (lambda: b"\0", _NO_MEDIA),
        "random": (lambda: np.random.default_rng(0).bytes(20000), _NO_MEDIA),
        "zip": (_zip, _NO_MEDIA),
        "gzip": (_gzip, _NO_MEDIA),
        "pickle": (lambda: pickle.dumps(_Evil()), _NO_MEDIA),
        "elf": (lambda: b"\x7fELF\x02\x01\x01" + bytes(4000), _NO_MEDIA),
        "png": (_picture("PNG"), _NO_MEDIA),
        "gif": (_picture("GIF"), _NO_MEDIA),
        "jpeg": (_picture("JPEG"), _NO_MEDIA),
        "wav-of-1e9-samples": (lambda: _wav_claiming(10**9), _NO_MEDIA),
        "avi": (lambda: clip(container="avi", codec="mpeg4"), _NO_MEDIA),
        "mpeg-ts": (lambda: clip(container="mpegts"), _NO_MEDIA),
        # Broken.
        "cut-header-last": (lambda: _cut(clip(), 0.5), _NO_MEDIA),
        "cut-header-first": (lambda: _cut(moov_first(clip()), 0.5), _bad("cut off")),
        "cut-in-a-frame": (_cut_in_video, _bad("cut off at 1.")),
        "cut-in-the-last-sound": (lambda: moov_first(clip())[:-10], _GOOD),
        "header-alone": (lambda: clip()[:28], _NO_MEDIA),
        "header-and-garbage": (
            lambda: clip()[:28] + np.random.default_rng(0).bytes(5000),
            _NO_MEDIA,
        ),
        "boxes-nested-9000-deep": (_nested, _NO_MEDIA),
        "box-of-2^64-bytes": (
            lambda: clip()[:28] + struct.pack(">I4sQ", 1, b"moov", 2**64 - 1) + clip()[28:],
            _NO_MEDIA,
        ),
        "no-frames": (_video_only_header, _bad("no frames", "no_picture")),
        "no-streams": (lambda: clip(codec=None, sounds=(), container="matroska"), _NO_MEDIA),
        "frames-beyond-the-end": (_at(b"stco", 8, ">I", 0x7FFFFFFF), _bad("", "no_picture")),
        "frames-of-huge-size": (
            _at(b"stsz", 12, ">I", 0x7FFFFFF0),
            _bad("no frames", "no_picture"),
        ),
        "1e9-frames": (_at(b"stsz", 8, ">I", 10**9), _NO_MEDIA),
        "1e9-time-stamps": (_at(b"stts", 4, ">I", 10**9), _bad("memory", "too_large")),
        "zero-duration": (_silent(times=[0]), _bad("of 1 s", "too_short")),
        "damaged-frame": (
            lambda: damaged(clip(key_interval=250, options={"bf": "0"}, draw=noise), "video", [3]),
            _bad("a frame is damaged"),
        ),
        "damaged-frame-later": (
            lambda: damaged(clip(key_interval=250, options={"bf": "0"}), "video", [15]),
            _GOOD,
        ),
        # Oversized.
        "header-of-30000-px": (
            lambda: patched(
                _at(b"tkhd", 76, ">II", 30000 << 16, 30000 << 16)(),
                inside(clip(), b"avc1", 1) + 24,
                ">HH",
                30000,
                30000,
            ),
            _GOOD,
        ),
        "parameters-of-30000-px": (
            lambda: with_parameters_for(30000, 3200),
            _bad("30000x3200", "too_large"),
        ),
        "vp8-frames-of-16383-px": (
            lambda: _all_vp8_key_frames_claiming(16383),
            _bad("ArgumentError"),
        ),
        "many-streams": (
            lambda: clip(sounds=[Sound(seconds=0.1)] * 17),
            _bad("18 streams", "too_large"),
        ),
        "oblong": (_silent(size=(16, 2000)), _bad("too oblong", "no_picture")),
        "pixels-of-16-to-1": (
            _silent(options={"x264-params": "sar=16/1"}),
            _bad("too oblong", "no_picture"),
        ),
        "several-sizes": (
            lambda: spliced(
                [
                    clip(codec="libvpx", container="webm", times=range(10), sounds=(), size=size)
                    for size in ((96, 64), (64, 64))
                ]
            ),
            _mute(number=9),
        ),
        # Clocks.
        "negative-times": (
            _silent(
                times=range(-5, 25),
                container="matroska",
                muxer={"avoid_negative_ts": "disabled"},
            ),
            _mute(number=17),
        ),
        "absurd-times": (
            _silent(times=[0, 1, 2, 10**10], container="matroska"),
            _bad("at most 600 s", "too_long"),
        ),
        "absurd-frame-length": (_at(b"stts", 12, ">I", 0x7FFFFFFF), _bad("", "too_long")),
        "length-claimed-in-days": (_at(b"mvhd", 16, ">I", 0xFFFFFFF0), _GOOD),
        "clock-of-0-hz": (_at(b"mdhd", 12, ">I", 0), _bad("at most 600 s", "too_long")),
        "variable-rate": (
            _silent(times=[0, 1, 2, 3, 4, 30, 31, 32, 33, 60], container="matroska"),
            _mute(number=5),
        ),
        "trimmed-at-a-key-frame": (_trimmed(5), _mute(number=20)),
        "trimmed-between-key-frames": (_trimmed(250), _mute(number=20)),
        "edit-of-nothing": (lambda: edited(clip(), 2000, -1), _bad("no frames", "no_picture")),
        "edit-beyond-the-end": (
            lambda: edited(clip(), 2000, 0x7FFFFFFF),
            _bad("no frames", "no_picture"),
        ),
        # Orientation.
        "rotated-90": (lambda: turned(clip(), 0, ONE, -ONE, 0), Expected(size=(64, 96))),
        "rotated-180": (lambda: turned(clip(), -ONE, 0, 0, -ONE), Expected(number=80)),
        "rotated-270": (lambda: turned(clip(), 0, -ONE, ONE, 0), Expected(size=(64, 96))),
        "mirrored": (lambda: turned(clip(), -ONE, 0, 0, ONE), Expected(number=80)),
        "upside-down": (lambda: turned(clip(), ONE, 0, 0, -ONE), _GOOD),
        "matrix-of-zeros": (lambda: turned(clip(), 0, 0, 0, 0), _GOOD),
        # Sizes and colours.
        "97x53": (
            _silent(size=(97, 53), codec="mpeg4"),
            _mute(number=10, size=(97, 53)),
        ),
        "97x53-vp9": (
            _silent(size=(97, 53), codec="libvpx-vp9", container="webm"),
            _mute(number=10, size=(97, 53)),
        ),
        "2x2": (_silent(size=(2, 2), color=ROSE), _mute(number=None, color=ROSE, size=(2, 2))),
        "10-bit": (
            _silent(pixel_format="yuv420p10le", color=ROSE),
            _mute(number=None, color=ROSE),
        ),
        "4-2-2": (_silent(pixel_format="yuv422p", color=ROSE), _mute(number=None, color=ROSE)),
        "4-4-4": (_silent(pixel_format="yuv444p", color=ROSE), _mute(number=None, color=ROSE)),
        "rgb": (
            _silent(codec="libx264rgb", pixel_format="rgb24", color=ROSE),
            _mute(number=None, color=ROSE),
        ),
        "grey": (_silent(pixel_format="gray"), _mute()),
        "hevc": (_silent(codec="hevc", options=_H265), _mute()),
        "hevc-10-bit": (
            _silent(codec="hevc", options=_H265, pixel_format="yuv420p10le", color=ROSE),
            _mute(number=None, color=ROSE),
        ),
        "vp8": (_silent(codec="libvpx", container="webm"), _mute()),
        "vp9": (_silent(codec="libvpx-vp9", container="webm"), _mute()),
        "av1": (_silent(codec="libsvtav1", options={"preset": "12"}, container="webm"), _mute()),
        "mpeg4": (_silent(codec="mpeg4"), _mute()),
        "hdr-pq": (_tagged(_PQ, _BT2020, _BT2020, pixel_format="yuv420p10le"), _HDR),
        "hdr-hlg": (_tagged(_HLG, _BT2020, _BT2020, pixel_format="yuv420p10le"), _HDR),
        "hdr-hevc": (
            _tagged(_PQ, _BT709, _BT709, codec="hevc", options=_H265, pixel_format="yuv420p10le"),
            _HDR,
        ),
        "hdr-in-the-header-alone": (
            _tagged(_PQ, _BT2020, _BT2020, codec="libvpx-vp9", container="webm"),
            _HDR,
        ),
        "bt2020": (_tagged(_BT709, _BT2020, _BT2020), _HDR),
        "bt2020-matrix-alone": (_tagged(2, 2, _BT2020), _HDR),
        "interlaced": (
            _silent(draw=fields, options={"x264-params": "interlaced=1:tff=1"}),
            _mute(number=None, size=(96, 64)),
        ),
        # Codecs that are not allowed.
        "mpeg2": (lambda: clip(codec="mpeg2video"), _bad("mpeg2video is none of")),
        "mjpeg": (
            lambda: clip(codec="mjpeg", container="mov", pixel_format="yuvj420p"),
            _bad("mjpeg is none of"),
        ),
        "ffv1": (lambda: clip(codec="ffv1", container="matroska"), _bad("ffv1 is none of")),
        "gif-in-mov": (
            lambda: clip(codec="gif", container="mov", pixel_format="rgb8"),
            _bad("gif is none of"),
        ),
        "raw-video": (
            lambda: clip(codec="rawvideo", container="mov"),
            _bad("rawvideo is none of"),
        ),
        "unknown-video": (
            lambda: clip().replace(b"avc1", b"zzzz"),
            _bad("unknown is none of"),
        ),
        # Streams.
        "sound-alone": (lambda: clip(codec=None), _bad("no video", "no_picture")),
        "cover-alone": (lambda: cover_art(video=False), _bad("no video", "no_picture")),
        "cover-first": (lambda: cover_art(first=True), _GOOD),
        "cover-last": (cover_art, _GOOD),
        "two-sound-tracks": (
            lambda: clip(sounds=[Sound(hz=1000), Sound(hz=300)]),
            Expected(number=10, pitch_hz=1000),
        ),
        "subtitles-and-attachment": (with_subtitles, _mute()),
        # Sound.
        "mono-8-khz": (_sound(layout="mono", rate_hz=8000), Expected(sound_s=2.05)),
        "5.1-96-khz": (_sound(layout="5.1", rate_hz=96000), Expected()),
        "16-channels": (
            _sound("matroska", codec="pcm_s16le", layout="hexadecagonal", rate_hz=8000),
            Expected(),
        ),
        "longer-sound": (_sound(seconds=3.5), Expected(number=10, sound_s=3.5)),
        "shorter-sound": (_sound(seconds=1.0), Expected(number=10, sound_s=1.0)),
        "late-sound": (
            _sound(seconds=1.3, start_s=0.7),
            Expected(number=10, sound_s=1.3, sound_start_s=0.7),
        ),
        "late-video": (
            lambda: clip(times=range(5, 25), sounds=[Sound(seconds=2.5)]),
            Expected(number=7, sound_s=2.5),
        ),
        "few-damaged-sounds": (
            lambda: damaged(clip(), "audio", [20, 40]),
            Expected(number=10, sound_s=None),
        ),
        "many-damaged-sounds": (
            lambda: damaged(clip(), "audio", range(0, 80, 3)),
            _mute("undecodable"),
        ),
        "sound-packets-of-2-gb": (lambda: _sound_packets_claiming(0x7FFFFFF0), _mute("absent")),
        "sound-of-1e9-hz": (_sound_rate(1e9), _mute("undecodable")),
        "sound-of-1-hz": (_sound_rate(1.0), _mute("undecodable")),
        "stereo-then-mono": (
            lambda: spliced(
                [
                    clip(
                        times=range(10),
                        options={"bf": "0"},
                        sounds=[Sound(codec="libmp3lame", layout=layout, seconds=1.0)],
                    )
                    for layout in ("stereo", "mono")
                ],
                "mp4",
            ),
            Expected(sound_s=None),
        ),
        "nan-sample": (
            _sound("matroska", codec="pcm_f32le", edit=_wave_with(np.nan)),
            _mute("undecodable"),
        ),
        "infinite-sample": (
            _sound("mov", codec="pcm_f32le", edit=_wave_with(np.inf)),
            _mute("undecodable"),
        ),
        "sample-of-1e30": (
            _sound("matroska", codec="pcm_f32le", edit=_wave_with(1e30)),
            Expected(number=10),
        ),
        "mp3": (_sound(codec="libmp3lame"), Expected()),
        "opus": (_sound("matroska", codec="libopus", rate_hz=48000), Expected()),
        "vorbis": (_sound("matroska", codec="vorbis", options={"strict": "-2"}), Expected()),
        "flac": (_sound("matroska", codec="flac"), Expected()),
        "ac3": (_sound(codec="ac3", rate_hz=48000), Expected()),
        "alac": (_sound(codec="alac"), Expected()),
        "pcm-u8": (_sound("mov", codec="pcm_u8"), Expected()),
        "pcm-f64": (_sound("matroska", codec="pcm_f64le", rate_hz=8000), Expected()),
        "pcm-big-endian": (_sound("mov", codec="pcm_s16be"), Expected()),
        "mp2-sound": (_sound("matroska", codec="mp2"), Expected()),
        "adpcm-sound": (_sound("mov", codec="adpcm_ima_qt"), _mute("undecodable")),
        "unknown-sound": (_unknown_sound, _mute("undecodable")),
    }.items()
}
