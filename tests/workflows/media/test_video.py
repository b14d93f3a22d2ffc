"""Videos: timestamps, sound and lightness are kept, and colours are stable."""

import itertools
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from skimage.color import rgb2lab

from aiaic.audio import AudioConfig
from aiaic.inference import Colorizer
from aiaic.networks.backbone import BackboneConfig
from aiaic.networks.encoders import EncoderConfig
from aiaic.networks.guidance import GuidanceConfig
from aiaic.networks.model import ModelConfig, build_model
from data_prep.media.orientation import orientation_of
from workflows.media import video

GREY = (120, 120, 120)


@pytest.fixture(scope="module")
def colorizer():
    """A tiny model with strong untrained colours."""
    config = ModelConfig(
        backbone=BackboneConfig(width=8),
        scene=EncoderConfig(width=8),
        sound=EncoderConfig(width=8),
        guidance=GuidanceConfig(mlp_width=8, score_width=8),
        audio=AudioConfig(clip_s=0.5, mels=16),
        semantics=8,
    )
    model = build_model(config, seed=0).eval().requires_grad_(requires_grad=False)
    with torch.no_grad():
        model.colorizer.backbone.head.weight.mul_(3)
    return Colorizer(model, size_px=8)  # enlarged so much, chroma is as soft as 4:2:0 needs


def scene(image: np.ndarray, seed: int) -> np.ndarray:
    """A smooth grey picture that depends on the seed."""
    coarse = np.random.default_rng(seed).uniform(50, 200, (1, 1, 4, 5)).astype(np.float32)
    large = torch.nn.functional.interpolate(
        torch.from_numpy(coarse), size=image.shape[:2], mode="bicubic"
    )
    return np.repeat(large[0, 0, ..., None].clamp(0, 255).byte().numpy(), 3, 2)


def blocks(rgb: np.ndarray) -> np.ndarray:
    """Mean chroma of squares, since videos do not keep finer chroma."""
    height, width = rgb.shape[:2]
    return rgb2lab(rgb)[..., 1:].reshape(height // 8, 8, width // 8, 8, 2).mean((1, 3))


def packets(path, kind="audio"):
    with av.open(str(path)) as container:
        return [
            (number, packet.pts, packet.duration, packet.time_base, bytes(packet))
            for number, stream in enumerate(getattr(container.streams, kind))
            for packet in _of(path, stream.index)
        ]


def _of(path, index):
    with av.open(str(path)) as container:
        return [p for p in container.demux(container.streams[index]) if p.size]


def frames(path):
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


def times(path):
    return [frame.pts * frame.time_base for frame in frames(path)]


def length_s(path):
    with av.open(str(path)) as container:
        return container.duration / av.time_base


def test_frames_sound_and_lightness_are_kept(make_clip, colorizer, tmp_path):
    source = make_clip(tmp_path / "in.mp4", seconds=1.5, edit=lambda i, _: scene(i, 1))
    outcome = video.colorize(str(source), str(tmp_path / "out.mp4"), colorizer)
    result = tmp_path / "out.mp4"
    assert outcome.frames == 15
    assert outcome.scene_cuts == 0
    assert outcome.seconds == pytest.approx(1.4)
    assert 0 < outcome.relevance_mean < 1
    assert outcome.notes == ()
    assert packets(result) == packets(source)
    assert times(result) == times(source)
    assert length_s(result) == pytest.approx(length_s(source), abs=0.1)
    for before, after in zip(frames(source), frames(result), strict=True):
        labs = [rgb2lab(frame.to_ndarray(format="rgb24")) for frame in (before, after)]
        assert np.abs(labs[0][..., 0] - labs[1][..., 0]).mean() < 1
        assert abs((labs[0][..., 0] - labs[1][..., 0]).mean()) < 0.5  # a step of 8 bits is 0.4
        assert np.abs(labs[1][..., 1:]).mean() > 2
    assert frames(result)[0].colorspace in (5, 6)
    assert frames(result)[0].color_range == 1


def test_the_same_video_gives_the_same_bytes(make_clip, colorizer, tmp_path):
    source = make_clip(tmp_path / "in.mp4", seconds=0.5)
    for name in ("a.mkv", "b.mkv"):
        video.colorize(str(source), str(tmp_path / name), colorizer)
    assert (tmp_path / "a.mkv").read_bytes() == (tmp_path / "b.mkv").read_bytes()


def test_scene_cuts_are_counted(make_clip, colorizer, tmp_path):
    source = make_clip(
        tmp_path / "in.mp4", seconds=1.5, edit=lambda i, number: scene(i, 3 + number // 5)
    )
    outcome = video.colorize(str(source), str(tmp_path / "out.mov"), colorizer)
    assert outcome.scene_cuts == 2
    assert outcome.flicker_ab < 0.5  # within the scenes, which stand still


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotation_is_kept_and_frames_are_colorized_upright(make_clip, colorizer, tmp_path, degrees):
    upright = make_clip(tmp_path / "plain.mp4", seconds=0.3, edit=lambda i, _: scene(i, 4))
    turned = tmp_path / "turned.mp4"
    with av.open(str(upright)) as source, av.open(str(turned), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        stream.set_display_rotation(degrees)
        for packet in source.demux(source.streams.video[0]):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    video.colorize(str(turned), str(tmp_path / "out.mp4"), colorizer)
    before, after = frames(turned)[0], frames(tmp_path / "out.mp4")[0]
    assert before.rotation == after.rotation != 0
    assert (after.width, after.height) == (before.width, before.height)
    seen = orientation_of(after).upright(after.to_ndarray(format="rgb24"))
    expected = colorizer.colorize(
        orientation_of(before).upright(before.to_ndarray(format="rgb24"))
    ).rgb
    distance = np.linalg.norm(blocks(seen) - blocks(expected), axis=-1)
    assert distance.mean() < 1.5
    assert np.linalg.norm(blocks(seen) - blocks(expected[::-1, ::-1]), axis=-1).mean() > 2


def test_a_variable_frame_rate_an_offset_and_the_pixel_shape_are_kept(colorizer, tmp_path):
    source = tmp_path / "in.mkv"
    with av.open(str(source), "w") as container:
        stream = container.add_stream("h264", rate=25, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        for number, pts in enumerate((500, 540, 700, 710, 1300)):
            image = scene(np.zeros((48, 64, 3), np.uint8), 5) + np.uint8(number)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = pts, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    for name in ("out.mkv", "out.mp4", "out.mov"):
        video.colorize(str(source), str(tmp_path / name), colorizer)
        assert [float(t) for t in times(tmp_path / name)] == pytest.approx(
            [float(t) for t in times(source)], abs=1e-3
        )
        with av.open(str(tmp_path / name)) as container:
            assert container.streams.video[0].sample_aspect_ratio == Fraction(4, 3)


def test_odd_sizes_and_no_sound(make_clip, colorizer, tmp_path):
    source = make_clip(
        tmp_path / "in.mkv", seconds=0.4, width=67, height=45, codec="libvpx-vp9", tone_hz=None,
        edit=lambda i, _: scene(i, 6),
    )  # fmt: skip
    outcome = video.colorize(str(source), str(tmp_path / "out.mp4"), colorizer)
    assert outcome.relevance_mean is None
    assert outcome.notes == ("no sound",)
    (first, *_), (coloured, *rest) = frames(source), frames(tmp_path / "out.mp4")
    assert (coloured.width, coloured.height) == (68, 46)
    assert len(rest) == 3
    labs = [rgb2lab(f.to_ndarray(format="rgb24")[:45, :67]) for f in (first, coloured)]
    assert abs((labs[0][..., 0] - labs[1][..., 0]).mean()) < 0.5


def test_all_sound_streams_are_copied(make_clip, colorizer, tmp_path):
    plain = make_clip(tmp_path / "plain.mp4", seconds=0.5)
    source = tmp_path / "two.mp4"
    with av.open(str(plain)) as one, av.open(str(source), "w") as two:
        pictures = two.add_stream_from_template(one.streams.video[0])
        sounds = [two.add_stream_from_template(one.streams.audio[0]) for _ in range(2)]
        for packet in one.demux():
            for stream in sounds if packet.stream.type == "audio" else [pictures]:
                if packet.size:
                    packet.stream = stream
                    two.mux(packet)
    video.colorize(str(source), str(tmp_path / "out.mp4"), colorizer)
    copied = packets(tmp_path / "out.mp4")
    assert {number for number, *_ in copied} == {0, 1}
    assert copied == packets(source)


def test_the_result_appears_only_when_it_is_complete(make_clip, colorizer, tmp_path, monkeypatch):
    source = make_clip(tmp_path / "in.mp4", seconds=0.5)
    count = itertools.count()

    def killed(*_, **__):
        assert not (tmp_path / "out").exists()
        if next(count) == 3:
            raise KeyboardInterrupt
        return np.zeros((64, 96, 3), np.uint8)

    monkeypatch.setattr(video._Colorization, "colorize", killed)
    with pytest.raises(KeyboardInterrupt):
        video.colorize(str(source), str(tmp_path / "out" / "out.mp4"), colorizer)
    assert not (tmp_path / "out").exists()


def test_other_files_are_rejected_by_name(make_clip, colorizer, tmp_path):
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"nonsense" * 100)
    with pytest.raises(ValueError, match=r"cannot read video '.*bad\.mp4': Invalid data found"):
        video.colorize(str(bad), str(tmp_path / "out.mp4"), colorizer)
    sound = make_clip(tmp_path / "sound.mp4", video=False)
    with pytest.raises(ValueError, match=r"cannot read video '.*sound\.mp4': no video stream"):
        video.colorize(str(sound), str(tmp_path / "out.mp4"), colorizer)


def test_a_truncated_video_is_rejected(make_clip, colorizer, tmp_path):
    for name, options in (("in.mkv", {}), ("quiet.mkv", {"tone_hz": None})):
        source = make_clip(tmp_path / name, seconds=4, edit=lambda i, _: scene(i, 1), **options)
        content = source.read_bytes()
        source.write_bytes(content[: len(content) // 2])
        with pytest.raises(
            ValueError, match=rf"{name}' is truncated: it ends at [12]\.\d+ s of 4\.\d+ s"
        ):
            video.colorize(str(source), str(tmp_path / "out" / "out.mkv"), colorizer)
    assert not (tmp_path / "out").exists()


def rewritten(source, target, change):
    """A copy whose packets went through ``change``, which gets their stream, number and content."""
    with av.open(str(source)) as one, av.open(str(target), "w") as other:
        streams = {s.index: other.add_stream_from_template(s) for s in one.streams}
        numbers = dict.fromkeys(streams, -1)
        for packet in one.demux():
            if not packet.size:
                continue
            index = packet.stream_index
            numbers[index] += 1
            new = av.Packet(change(packet.stream.type, numbers[index], bytes(packet)))
            new.pts, new.dts, new.duration = packet.pts, packet.dts, packet.duration
            new.time_base, new.is_keyframe = packet.time_base, packet.is_keyframe
            new.stream = streams[index]
            other.mux(new)
    return target


@pytest.mark.parametrize("share", [2, 1])
def test_damaged_sound_is_noted(make_clip, colorizer, tmp_path, share):
    def damage(kind, number, content):
        hit = kind == "audio" and number % share == 0
        return bytes(b ^ 0x5A for b in content) if hit else content

    plain = make_clip(tmp_path / "plain.mp4", seconds=1)
    source = rewritten(plain, tmp_path / "in.mp4", damage)
    outcome = video.colorize(str(source), str(tmp_path / "out.mp4"), colorizer)
    assert any("sound packets damaged" in note for note in outcome.notes)


def test_silent_sound_is_noted(make_clip, colorizer, tmp_path):
    source = make_clip(tmp_path / "in.mp4", seconds=0.3, loudness=1e-5)
    outcome = video.colorize(str(source), str(tmp_path / "out.mp4"), colorizer)
    assert outcome.notes == ("the sound is silent",)


@pytest.mark.parametrize(
    ("codec", "values", "suffix"),
    [("pcm_u8", np.full((1, 4608), 128, np.uint8), ".mp4"),
     ("flac", np.zeros((1, 4608), np.int16), ".mov")],
)  # fmt: skip
def test_sound_that_a_format_cannot_contain_is_rejected(
    make_clip, colorizer, tmp_path, codec, values, suffix
):
    plain = make_clip(tmp_path / "plain.mkv", seconds=0.3, tone_hz=None)
    source = tmp_path / "in.mkv"
    with av.open(str(plain)) as one, av.open(str(source), "w") as two:
        pictures = two.add_stream_from_template(one.streams.video[0])
        sound = two.add_stream(codec, rate=16_000, layout="mono")
        kind = "u8" if values.dtype == np.uint8 else "s16"
        samples = av.AudioFrame.from_ndarray(values, format=kind, layout="mono")
        samples.sample_rate = 16_000
        for packet in one.demux():
            if packet.size:
                packet.stream = pictures
                two.mux(packet)
        two.mux([p for p in [*sound.encode(samples), *sound.encode(None)] if p.size])
    with pytest.raises(ValueError, match=rf"cannot contain {codec} sound: .*\.mkv"):
        video.colorize(str(source), str(tmp_path / f"out{suffix}"), colorizer)
    video.colorize(str(source), str(tmp_path / "out.mkv"), colorizer)
    assert packets(tmp_path / "out.mkv") == packets(source)


def test_scores_against_the_original(make_clip, tmp_path):
    def moving(image, number):
        return np.roll(np.dstack([scene(image, seed)[..., 0] for seed in (1, 2, 3)]), number, 1)

    original = make_clip(tmp_path / "a.mp4", seconds=1, edit=moving)
    same = video.measure(str(original), str(original))
    assert same.frames == 10
    assert same.psnr_db == 100
    assert same.flicker_ab == same.original_flicker_ab > 0.5
    grey = make_clip(tmp_path / "b.mp4", seconds=1, edit=lambda i, n: scene(i, 1))
    scores = video.measure(str(grey), str(original))
    assert scores.psnr_db < 30
    assert scores.flicker_ab < 0.2
    cut = make_clip(tmp_path / "e.mp4", seconds=1, edit=lambda i, n: moving(i, 30 * (n // 5)))
    assert video.measure(str(cut), str(cut)).flicker_ab < 0.5  # colours change only at the cut
    frozen = make_clip(tmp_path / "f.mp4", seconds=0.1, edit=moving)
    with pytest.raises(ValueError, match="has two frames"):
        video.measure(str(frozen), str(frozen))
    large = make_clip(tmp_path / "d.mp4", seconds=1, width=192, height=128)
    with pytest.raises(ValueError, match="differ in size"):
        video.measure(str(large), str(original))
    short = make_clip(tmp_path / "c.mp4", seconds=0.5, edit=moving)
    with pytest.raises(ValueError, match="differ in length"):
        video.measure(str(short), str(original))
