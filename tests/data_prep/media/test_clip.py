"""Decoding compared with an independent full decode, and the reason for each rejection."""

import io
import struct
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from data_prep.media.clip import read_clip
from data_prep.media.quality import Filters, judge
from data_prep.media.sample import MediaSettings, Rejection
from tests.data_prep.reading import SETTINGS, clip_of, picture, read, rejection, sound_of


def number_of(content: bytes) -> int:
    """The number that ``make_clip`` drew into a frame."""
    image = picture(content)
    height, width, _ = image.shape
    centres = [(2 * bit + 1) * width // 16 for bit in range(8)]
    return sum(
        int(image[height // 2, centre, 1] > 128) << bit for bit, centre in enumerate(centres)
    )


@pytest.mark.parametrize("bframes", ["0", "3"])
@pytest.mark.parametrize("key_interval", [1, 7, 250])
def test_the_frame_is_the_one_on_screen_at_the_middle(make_clip, tmp_path, key_interval, bframes):
    path = make_clip(
        tmp_path / "a.mp4", seconds=4.3, key_interval=key_interval, video_options={"bf": bframes}
    )
    sample = read(path)
    assert sample.requested_s == (2.15,)
    assert sample.actual_s == (2.1,)
    assert number_of(sample.pictures[0]) == 21


@pytest.mark.parametrize("count", [2, 5, 12])
def test_uniform_pictures_equal_those_of_a_whole_decode(make_clip, tmp_path, count):
    path = make_clip(tmp_path / "a.mp4", seconds=3.0, key_interval=9, video_options={"bf": "3"})
    sample = read(path, MediaSettings(size_px=None, pictures=count))
    assert sample.requested_s == pytest.approx([(n + 0.5) * 3 / count for n in range(count)])
    with av.open(str(path)) as container:
        frames = [(float(f.time), f.to_ndarray(format="rgb24")) for f in container.decode(video=0)]
    for requested, actual, content in zip(
        sample.requested_s, sample.actual_s, sample.pictures, strict=True
    ):
        time_s, image = [(t, i) for t, i in frames if t <= requested + 1e-6][-1]
        assert actual == pytest.approx(time_s)
        assert np.abs(picture(content).astype(int) - image).mean() < 3


def test_picture_and_sound_are_those_of_the_events_window(make_clip, tmp_path):
    path = make_clip(tmp_path / "a.mp4", seconds=6.0, sound_rate_hz=48000)
    sample = read(path, start_s=2.0, end_s=5.0)
    assert sample.requested_s == (3.5,)
    assert number_of(sample.pictures[0]) == 35
    assert sample.sound_s == 3.0
    # Equal to that part of the whole sound, to within half a sample.
    whole = sound_of(read(path))
    part = sound_of(sample)
    assert np.abs(part[800:-800] - whole[32000 + 800 : 80000 - 800]).max() < 0.03


@pytest.mark.parametrize("count", [1, 3])
def test_the_nearest_key_frame_is_used_if_one_is_near(make_clip, tmp_path, count):
    path = make_clip(tmp_path / "a.mp4", seconds=6.0, key_interval=7, video_options={"bf": "2"})
    sample = read(path, MediaSettings(size_px=None, frames="keyframe", pictures=count))
    for requested, actual, content in zip(
        sample.requested_s, sample.actual_s, sample.pictures, strict=True
    ):
        number = number_of(content)
        assert number % 7 == 0
        assert actual == pytest.approx(number / 10)
        assert abs(actual - requested) <= 0.35 + 1e-9


def test_frame_0_does_not_replace_a_distant_frame(make_clip, tmp_path):
    path = make_clip(tmp_path / "a.mp4", seconds=5.0, key_interval=250)
    sample = read(path, MediaSettings(size_px=None, frames="keyframe"))
    assert (sample.requested_s, sample.actual_s) == ((2.5,), (2.5,))
    assert number_of(sample.pictures[0]) == 25


def test_sound_of_a_set_length_is_centred_in_the_window(make_clip, tmp_path):
    path = make_clip(tmp_path / "a.mp4", seconds=6.0)
    whole, part = sound_of(read(path)), read(path, MediaSettings(size_px=None, sound_s=2.0))
    assert (part.sound_start_s, part.sound_s) == (2.0, 2.0)
    assert np.abs(sound_of(part)[800:-800] - whole[32000 + 800 : 64000 - 800]).max() < 0.03
    event = read(path, MediaSettings(size_px=None, sound_s=2.0), start_s=4.5, end_s=6.0)
    assert (event.sound_start_s, event.sound_s) == (4.5, 1.5)


@pytest.mark.parametrize(
    ("window", "reason"), [((3.0, 3.0), "too_short"), ((9.0, 12.0), "too_short")]
)
def test_an_empty_event_or_one_beyond_the_file_is_too_short(make_clip, tmp_path, window, reason):
    path = make_clip(tmp_path / "a.mp4", seconds=4.0)
    assert rejection(path, start_s=window[0], end_s=window[1]).reason == reason


@pytest.mark.parametrize(
    ("shape", "expected"), [((96, 64), (48, 32)), ((64, 96), (32, 48)), ((64, 64), (32, 32))]
)
def test_the_short_side_has_the_set_size(make_clip, tmp_path, shape, expected):
    path = make_clip(tmp_path / "a.mp4", seconds=1.0, width=shape[0], height=shape[1])
    sample = read(path, MediaSettings(size_px=32))
    assert (sample.width, sample.height) == expected == picture(sample.pictures[0]).shape[1::-1]
    assert (sample.source_width, sample.source_height) == shape
    larger = read(path, MediaSettings(size_px=128))
    assert min(larger.width, larger.height) == 128


def test_pictures_have_no_chroma_subsampling(make_clip, tmp_path):
    sample = read(make_clip(tmp_path / "a.mp4", seconds=1.0))
    with Image.open(io.BytesIO(sample.pictures[0])) as image:
        assert [layer[1:3] for layer in image.layer] == [(1, 1)] * 3


@pytest.mark.parametrize("color", [(200, 40, 60), (30, 160, 220), (90, 200, 30)])
def test_colours_survive(make_clip, tmp_path, color):
    sample = read(make_clip(tmp_path / "a.mp4", seconds=1.0, color=color))
    mean = picture(sample.pictures[0]).reshape(-1, 3).mean(0)
    assert mean == pytest.approx(color, abs=2)


def test_the_colour_matrix_of_the_file_is_applied(make_clip, tmp_path):
    """The same planes tagged BT.709 mean another colour, here from an independent formula."""
    color = (200, 40, 60)
    path = make_clip(
        tmp_path / "a.mp4",
        seconds=1.0,
        color=color,
        video_options={"x264-params": "colormatrix=bt709"},
    )
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        assert frame.colorspace == 1
        y, cb, cr = (float(np.frombuffer(plane, np.uint8)[0]) for plane in frame.planes)
    luma, u, v = (y - 16) / 219, (cb - 128) / 224, (cr - 128) / 224
    red, blue = luma + 1.5748 * v, luma + 1.8556 * u
    expected = 255 * np.clip([red, (luma - 0.2126 * red - 0.0722 * blue) / 0.7152, blue], 0, 1)
    mean = picture(read(path).pictures[0]).reshape(-1, 3).mean(0)
    assert mean == pytest.approx(expected, abs=2)
    assert np.abs(expected - color).max() > 8


def boxed(image: np.ndarray, *, top: int, left: int) -> np.ndarray:
    image = image.copy()
    image[:top] = image[-top or len(image) :] = 16
    image[:, :left] = image[:, -left or image.shape[1] :] = 16
    return image


@pytest.mark.parametrize(("top", "left"), [(8, 0), (0, 12), (8, 12), (0, 0)])
def test_black_bars_are_cropped_if_requested(make_clip, tmp_path, top, left):
    def box(frame: np.ndarray, number: int) -> np.ndarray:
        return boxed(frame, top=top, left=left)

    path = make_clip(tmp_path / "a.mp4", seconds=1.0, color=(180, 120, 60), edit=box)
    sample = read(path, MediaSettings(size_px=None, cut_letterbox=True))
    kept = (left, top, 96 - 2 * left, 64 - 2 * top)
    assert bool(sample.crop) == bool(top or left)
    if sample.crop:
        assert sample.crop == pytest.approx(kept, abs=2)
        assert (sample.width, sample.height) == sample.crop[2:]
    assert picture(sample.pictures[0]).reshape(-1, 3).mean(0) == pytest.approx(
        (180, 120, 60), abs=8
    )
    assert (read(path).width, read(path).crop) == (96, ())


def test_a_dark_scene_is_not_a_letterbox(make_clip, tmp_path):
    def lamp(frame: np.ndarray, number: int) -> np.ndarray:
        dark = np.full_like(frame, 10)
        dark[20:30, 40:60] = 200
        return dark

    path = make_clip(tmp_path / "a.mp4", seconds=1.0, edit=lamp)
    assert read(path, MediaSettings(size_px=None, cut_letterbox=True)).crop == ()
    black = make_clip(tmp_path / "b.mp4", seconds=1.0, color=(0, 0, 0))
    assert read(black, MediaSettings(size_px=None, cut_letterbox=True)).crop == ()


def test_motion_distinguishes_still_from_moving_clips(make_clip, tmp_path):
    settings = MediaSettings(size_px=None, measure_motion=True)
    still = read(make_clip(tmp_path / "a.mp4", seconds=3.0, color=(180, 120, 60)), settings)
    moving = read(make_clip(tmp_path / "b.mp4", seconds=3.0), settings)
    assert still.motion is not None
    assert moving.motion is not None
    assert still.motion < 1
    assert moving.motion > 10
    filters = Filters(min_motion=1.0)
    assert judge(moving, filters) is None
    verdict = judge(still, filters)
    assert verdict is not None
    assert verdict[0] == "still"
    assert read(tmp_path / "a.mp4").motion is None


@pytest.mark.parametrize(("start_s", "end_s"), [(0.0, None), (0.55, 2.25), (1.15, 2.0)])
def test_motion_is_measured_in_windows_with_fewer_than_two_key_frames(
    make_clip, tmp_path, start_s, end_s
):
    settings = MediaSettings(size_px=None, measure_motion=True, min_s=0.5)
    for key_interval in (11, 1000):  # a key frame within the second window, or only at the start
        options = {"seconds": 3.0, "key_interval": key_interval}
        still = make_clip(tmp_path / f"a{key_interval}.mp4", color=(180, 120, 60), **options)
        moving = make_clip(tmp_path / f"b{key_interval}.mp4", **options)
        window = {"start_s": start_s, "end_s": end_s}
        assert read(still, settings, **window).motion < 1
        assert read(moving, settings, **window).motion > 10


def test_motion_of_a_single_frame_is_unknown_and_passes(make_clip, tmp_path):
    settings = MediaSettings(size_px=None, measure_motion=True, min_s=0.0)
    single = read(make_clip(tmp_path / "a.mp4", seconds=0.1, tone_hz=None), settings)
    assert single.motion is None
    assert judge(single, Filters(min_motion=1.0)) is None


def test_colourfulness_distinguishes_grey_from_colour(make_clip, tmp_path):
    grey = read(make_clip(tmp_path / "a.mp4", seconds=1.0))
    colour = read(make_clip(tmp_path / "b.mp4", seconds=1.0, color=(200, 40, 60)))
    assert grey.colorfulness < 5
    assert colour.colorfulness > 40
    verdict = judge(grey, Filters(min_colorfulness=5.0))
    assert verdict is not None
    assert verdict[0] == "grey"


def rotate(path: Path, matrix: tuple[int, ...]) -> None:
    """Sets the display matrix in the header of the first track."""
    content = bytearray(path.read_bytes())
    body = content.index(b"tkhd") + 4
    content[body + 40 : body + 76] = struct.pack(">9i", *matrix)
    path.write_bytes(content)


ONE, W = 1 << 16, 1 << 30
TURNED = {
    0: (ONE, 0, 0, 0, ONE, 0, 0, 0, W),
    90: (0, ONE, 0, -ONE, 0, 0, 0, 0, W),
    180: (-ONE, 0, 0, 0, -ONE, 0, 0, 0, W),
    270: (0, -ONE, 0, ONE, 0, 0, 0, 0, W),
}


@pytest.mark.parametrize("clockwise", TURNED)
def test_rotation_metadata_is_applied(make_clip, tmp_path, clockwise):
    path = make_clip(tmp_path / "a.mp4", seconds=2.0)
    upright = picture(read(path).pictures[0]).astype(int)
    rotate(path, TURNED[clockwise])
    turned = picture(read(path).pictures[0]).astype(int)
    expected = np.rot90(upright, -clockwise // 90)
    assert turned.shape == expected.shape
    assert np.abs(turned - expected).mean() < 2


def test_pixels_that_are_not_square_are_stretched(make_clip, tmp_path):
    options = {"x264-params": "sar=2/1"}
    sample = read(make_clip(tmp_path / "a.mp4", seconds=1.0, video_options=options))
    assert (sample.width, sample.height) == (192, 64)


def test_reading_twice_gives_the_same_bytes(make_clip, tmp_path):
    path = make_clip(tmp_path / "a.mp4")
    assert read(path) == read(path) == read_clip(path.read_bytes(), clip_of(path), SETTINGS)


def test_unusable_files_are_rejected_for_the_right_reason(make_clip, tmp_path):
    good = make_clip(tmp_path / "good.mp4", seconds=2.0)
    content = good.read_bytes()
    other = make_clip(tmp_path / "other.avi", codec="mpeg4", tone_hz=None)
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{good}\n#EXT-X-ENDLIST\n"
    files = {
        "empty.mp4": b"",
        "text.mp4": b"these are words" * 100,
        "half.mp4": content[: len(content) // 2],
        "playlist.mp4": playlist.encode(),
        "avi.mp4": other.read_bytes(),
        "concat.mp4": b"ffconcat version 1.0\nfile good.mp4\n",
    }
    for name, bad in files.items():
        (tmp_path / name).write_bytes(bad)
        assert rejection(tmp_path / name).reason == "undecodable", name
    assert rejection(tmp_path / "nowhere.mp4").reason == "missing"
    short = make_clip(tmp_path / "short.mp4", seconds=0.9)
    assert rejection(short).reason == "too_short"
    assert read(make_clip(tmp_path / "second.mp4", seconds=1.0))
    only_sound = make_clip(tmp_path / "sound.mp4", video=False)
    assert rejection(only_sound).reason == "no_picture"


@pytest.mark.parametrize(("packet_number", "kept_bytes"), [(40, 10), (40, 0), (-1, 10)])
def test_a_truncated_file_is_rejected(make_clip, tmp_path, packet_number, kept_bytes):
    """With its header first, a truncated file can be opened but ends early."""
    whole = make_clip(tmp_path / "whole.mp4", seconds=6.0)
    fast = tmp_path / "fast.mp4"
    with (
        av.open(str(whole)) as source,
        av.open(str(fast), "w", options={"movflags": "faststart"}) as target,
    ):
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    content = fast.read_bytes()
    assert read(fast).actual_s == (3.0,)
    with av.open(str(fast)) as container:
        place = [packet.pos for packet in container.demux() if packet.size][packet_number]
    (tmp_path / "cut.mp4").write_bytes(content[: place + kept_bytes])
    cut = rejection(tmp_path / "cut.mp4")
    assert cut.reason == "undecodable"
    assert "cut off" in cut.detail


@pytest.mark.parametrize("kind", ["mkv", "webm"])
def test_a_truncated_matroska_file_is_rejected(make_clip, tmp_path, kind):
    whole, copy = make_clip(tmp_path / "a.mp4", seconds=6.0), tmp_path / "b.mkv"
    with av.open(str(whole)) as source, av.open(str(copy), "w") as target:
        streams = [target.add_stream_from_template(stream) for stream in source.streams]
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                target.mux(packet)
    cut = tmp_path / f"cut.{kind}"
    content = copy.read_bytes()
    assert read(copy).requested_s == pytest.approx((3.0,), abs=0.1)
    cut.write_bytes(content[: len(content) * 2 // 3])
    assert rejection(cut).reason == "undecodable"


def later(source: Path, target: Path, offset_s: float) -> Path:
    """A copy whose timestamps start at ``offset_s``."""
    options = {"output_ts_offset": str(offset_s)}
    with av.open(str(source)) as read, av.open(str(target), "w", options=options) as written:
        streams = [written.add_stream_from_template(stream) for stream in read.streams]
        for packet in read.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                written.mux(packet)
    return target


@pytest.mark.parametrize("offset_s", [2.0, 30.0, 700.0])
@pytest.mark.parametrize("kind", ["mkv", "mp4"])
def test_a_file_that_starts_later_is_read_like_one_that_starts_at_0(
    make_clip, tmp_path, kind, offset_s
):
    whole = make_clip(tmp_path / "a.mp4", seconds=6.1)
    expected = read(later(whole, tmp_path / f"at_0.{kind}", 0.0))
    moved = read(later(whole, tmp_path / f"b.{kind}", offset_s))
    assert moved.requested_s == pytest.approx(expected.requested_s, abs=0.05)
    assert moved.pictures == expected.pictures
    assert moved.sound_s == pytest.approx(expected.sound_s, abs=0.05)
    content = (tmp_path / f"b.{kind}").read_bytes()
    cut = tmp_path / f"cut.{kind}"
    cut.write_bytes(content[: len(content) * 2 // 3])
    assert rejection(cut).reason == "undecodable"


@pytest.mark.parametrize(
    ("caps", "reason"),
    [
        ({"max_pixels": 96 * 64 - 1}, "too_large"),
        ({"max_bytes": 1000}, "too_large"),
        ({"max_s": 1.5}, "too_long"),
        ({"max_aspect": 1.2}, "no_picture"),
        ({"max_streams": 1}, "too_large"),
        ({"max_packets": 30}, "too_large"),
    ],
)
def test_limits_are_enforced(make_clip, tmp_path, caps, reason):
    path = make_clip(tmp_path / "a.mp4")
    assert rejection(path, MediaSettings(size_px=None, **caps)).reason == reason


def test_a_file_with_damaged_bytes_never_raises(make_clip, tmp_path):
    path = make_clip(tmp_path / "a.mp4")
    whole, fates = path.read_bytes(), set()
    for seed in range(30):
        content = bytearray(whole)
        generator = np.random.default_rng(seed)
        for place in generator.integers(0, len(content), 40):
            content[place] = generator.integers(256)
        outcome = read_clip(bytes(content), clip_of(path), SETTINGS)
        fates.add(outcome.reason if isinstance(outcome, Rejection) else "sample")
    assert len(fates) > 1


def test_settings_out_of_range_are_refused():
    wrongs = (
        {"size_px": 0},
        {"pictures": 0},
        {"jpeg_quality": 101},
        {"sample_rate_hz": 1},
        {"sound_s": 0.1},
    )
    for wrong in wrongs:
        with pytest.raises(ValueError, match=next(iter(wrong))):
            MediaSettings(**wrong)


def test_real_clips(shared):
    for path in sorted((shared / "data" / "vggsound" / "clips").glob("*.mp4")):
        sample = read(path, MediaSettings(size_px=256))
        assert min(sample.width, sample.height) == 256
        assert sample.requested_s == sample.actual_s == (5.0,)
        assert sample.sound_fate == "kept"
        assert sample.sound_s == pytest.approx(10.0, abs=0.05)


def test_a_frame_of_a_real_clip_equals_a_whole_decode(shared):
    path = shared / "data" / "vggsound" / "clips" / "1aDnyPubxdY_000118.mp4"
    sample = read(path)
    with av.open(str(path)) as container:
        frames = {float(f.time): f for f in container.decode(video=0)}
        expected = frames[5.0].to_ndarray(format="rgb24").astype(int)
    assert np.abs(picture(sample.pictures[0]) - expected).mean() < 3
