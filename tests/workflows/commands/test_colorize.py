"""``aiaic colorize``: inputs, where results go, and what is rejected."""

import errno
import json
import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from PIL import Image
from skimage.color import rgb2lab

from data_prep import storage
from workflows.commands import colorize
from workflows.media import images
from workflows.options import Colorize


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    rgb = np.random.default_rng(0).integers(0, 255, (6, 8, 3), np.uint8)
    path = tmp_path / "in" / "holiday.png"
    path.parent.mkdir()
    Image.fromarray(rgb).resize((80, 60), Image.Resampling.BICUBIC).save(path)
    return path


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "recording.wav"
    soundfile.write(path, 0.3 * np.sin(np.arange(44_100) / 9), 44_100)
    return path


def read(path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


def run(source, out, checkpoint, audio=None):
    options = Colorize(
        input=str(source), checkpoint=str(checkpoint), out=str(out), audio=audio and str(audio)
    )
    return colorize.run(options)


def test_a_picture_with_a_sound(photograph, recording, untrained_run, tmp_path):
    outcome = run(photograph, tmp_path / "out.png", untrained_run, recording)
    (row,) = outcome.values["outputs"]
    assert row["output"] == str(tmp_path / "out.png")
    assert 0 < row["relevance"] < 1
    before, after = (rgb2lab(read(path)) for path in (photograph, row["output"]))
    assert before.shape == after.shape
    assert np.abs(before[..., 0] - after[..., 0]).max() < 1
    assert "relevance" in outcome.text


def test_a_picture_without_a_sound_and_another_format(photograph, untrained_run, tmp_path):
    outcome = run(photograph, tmp_path / "new" / "out.JPG", untrained_run)
    assert outcome.values["outputs"][0]["relevance"] is None
    with Image.open(tmp_path / "new" / "out.JPG") as image:
        assert image.format == "JPEG"
        assert image.size == (80, 60)


def test_sixteen_bits_transparency_and_another_format(untrained_run, tmp_path):
    deep = np.random.default_rng(0).integers(0, 65535, (20, 30), np.uint16)
    deep = np.kron(deep, np.ones((3, 3), np.uint16)) // 2 + 12_000
    source = images.Picture(rgb=np.repeat(deep[..., None], 3, 2), alpha=deep, bits=16)
    scan = tmp_path / "scan.tif"
    scan.write_bytes(images.write(source.rgb, source, "a.tif"))
    (row,) = run(scan, tmp_path / "out.png", untrained_run).values["outputs"]
    assert row["notes"] == []
    result = images.read((tmp_path / "out.png").read_bytes(), "out.png")
    assert result.bits == 16
    assert np.array_equal(result.alpha, deep)
    before, after = (rgb2lab(p.rgb / 65535)[..., 0] for p in (source, result))
    assert np.abs(before - after).max() < 0.02  # an 8-bit step is 0.4
    outcome = run(scan, tmp_path / "out.jpg", untrained_run)
    notes = outcome.values["outputs"][0]["notes"]
    assert notes == ["transparency lost in JPEG", "16 bits reduced to 8"]
    assert "transparency lost" in outcome.text


def test_a_folder(photograph, untrained_run, tmp_path):
    deeper = photograph.parent / "deep" / "grey.jpg"
    deeper.parent.mkdir()
    Image.fromarray(read(photograph)[..., 0]).save(deeper)
    (photograph.parent / "notes.txt").write_text("no picture")
    outcome = run(photograph.parent, tmp_path / "out", untrained_run)
    written = {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.*")}
    assert written == {"holiday.png", "deep/grey.jpg"}
    assert outcome.exit_code == 0


def test_one_bad_picture_in_a_folder_is_reported_and_the_rest_is_colorized(
    photograph, untrained_run, tmp_path
):
    (photograph.parent / "bad.png").write_bytes(b"nonsense")
    outcome = run(photograph.parent, tmp_path / "out", untrained_run)
    assert outcome.exit_code == 1
    assert len(outcome.values["outputs"]) == 1
    assert "bad.png" in outcome.values["failed"][0]
    assert not (tmp_path / "out" / "bad.png").exists()


def test_an_unreadable_file_is_reported_and_a_full_disk_ends_the_command(
    photograph, untrained_run, tmp_path, monkeypatch
):
    locked = photograph.parent / "a.png"
    locked.write_bytes(photograph.read_bytes())

    def refuse(number, read=storage.read_bytes):
        def read_bytes(place):
            if place.endswith("a.png"):
                raise OSError(number, os.strerror(number), place)
            return read(place)

        return read_bytes

    monkeypatch.setattr(storage, "read_bytes", refuse(errno.EACCES))
    outcome = run(photograph.parent, tmp_path / "out", untrained_run)
    assert len(outcome.values["outputs"]) == 1
    assert outcome.values["failed"][0].endswith("a.png': Permission denied")
    monkeypatch.setattr(storage, "read_bytes", refuse(errno.ENOSPC))
    with pytest.raises(OSError, match="No space left"):
        run(photograph.parent, tmp_path / "out", untrained_run)


def test_files_of_a_folder_that_are_passed_over_are_named(photograph, untrained_run, tmp_path):
    (photograph.parent / "notes.txt").write_text("x")
    Path(os.fsdecode(os.fsencode(photograph.parent) + b"/Jaime Mu\xf1oz.png")).write_bytes(b"x")
    (photograph.parent / f"{'n' * 245}.png").write_bytes(photograph.read_bytes())
    with Image.open(photograph) as image:
        for name in ("b.bmp", "c.gif", "d.jfif", "e.avif"):
            image.save(photograph.parent / name, "JPEG" if name == "d.jfif" else None)
    outcome = run(photograph.parent, tmp_path / "out", untrained_run)
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == sorted(
        ["b.png", "c.png", "d.jfif", "e.png", "holiday.png", f"{'n' * 245}.png"]
    )
    assert outcome.exit_code == 0
    (passed_over,) = outcome.values["passed_over"]
    assert "notes.txt" in passed_over
    assert "notes.txt" in outcome.text


def test_a_name_that_is_not_utf_8_is_named(photograph, untrained_run, tmp_path):
    name = os.fsdecode(b"Jaime Mu\xf1oz.png")
    with pytest.raises(
        ValueError, match=r"the name '.*Jaime Mu\\xf1oz\.png' is not UTF-8: rename it"
    ):
        run(photograph.with_name(name), tmp_path / "out.png", untrained_run)


FILMS = {
    "a.avi": ("mpeg4", "libmp3lame"),
    "b.mpg": ("mpeg2video", "mp2"),
    "c.ts": ("h264", "aac"),
    "d.flv": ("flv", "libmp3lame"),
    "e.3gp": ("h264", "aac"),
    "f.wmv": ("wmv2", "libmp3lame"),
    "g.mpeg": ("mpeg1video", "mp2"),
}


@pytest.mark.parametrize("name", FILMS)
def test_films_in_older_formats_are_read(untrained_run, tmp_path, name):
    film = write_film(tmp_path / name, *FILMS[name])
    outcome = run(film, tmp_path / "out.mkv", untrained_run)
    assert outcome.values["outputs"][0]["frames"] == pytest.approx(50, abs=1)
    assert outcome.values["outputs"][0]["relevance"] is not None
    middle = run(film, tmp_path / "middle.png", untrained_run)
    assert read(tmp_path / "middle.png").shape == (64, 96, 3)
    assert middle.values["outputs"][0]["relevance"] is not None
    assert (
        run(film, tmp_path / "folder", untrained_run)
        .values["outputs"][0]["output"]
        .endswith(f"{film.stem}.mkv")
    )


def test_sound_that_matroska_cannot_contain_is_refused(untrained_run, tmp_path):
    film = write_film(tmp_path / "a.wmv", "wmv2", "wmav2")
    with pytest.raises(ValueError, match="cannot contain wmav2 sound: convert the sound first"):
        run(film, tmp_path / "out.mkv", untrained_run)
    assert not (tmp_path / "out.mkv").exists()


def write_film(path, video_codec, sound_codec):
    """Two seconds of moving texture and a tone."""
    with av.open(str(path), "w") as container:
        video = container.add_stream(video_codec, rate=25)
        video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        sound = container.add_stream(sound_codec, rate=44_100, layout="stereo")
        sound.bit_rate = 128_000
        rows, columns = np.mgrid[:64, :96]
        for number in range(50):
            grey = 128 + 100 * np.sin((columns + 3 * number) / 15 + rows / 9)
            rgb = np.repeat(grey[..., None], 3, axis=2).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            frame.pts = number
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        tone = 0.3 * np.sin(np.arange(88_200) / 9).astype(np.float32)
        resampler = av.AudioResampler(format=sound.format, layout="stereo", rate=44_100)
        fifo = av.AudioFifo()
        frame = av.AudioFrame.from_ndarray(np.stack([tone, tone]), format="fltp", layout="stereo")
        frame.sample_rate = 44_100
        for resampled in resampler.resample(frame):
            resampled.pts = None
            fifo.write(resampled)
        size = sound.codec_context.frame_size or 1024
        position = 0
        while fifo.samples >= size:
            part = fifo.read(size)
            part.pts, part.time_base = position, Fraction(1, 44_100)
            position += size
            container.mux(sound.encode(part))
        container.mux(sound.encode(None))
    return path


def test_the_middle_frame_of_a_short_clip(make_clip, untrained_run, tmp_path):
    clip = make_clip(tmp_path / "in" / "clip.mp4", seconds=0.3)
    run(clip, tmp_path / "out.png", untrained_run)
    assert read(tmp_path / "out.png").shape == (64, 96, 3)


def test_a_clip_with_its_own_sound(make_clip, untrained_run, tmp_path):
    clip = make_clip(tmp_path / "in" / "clip.mp4", width=96, height=64)
    outcome = run(clip, tmp_path / "out" / "clip.png", untrained_run)
    (row,) = outcome.values["outputs"]
    assert row["relevance"] is not None
    with Image.open(row["output"]) as image:
        assert image.size == (96, 64)


def test_a_video_becomes_a_video(make_clip, untrained_run, tmp_path):
    clip = make_clip(tmp_path / "in" / "clip.mp4", seconds=0.5)
    outcome = run(clip, tmp_path / "out.mkv", untrained_run)
    (row,) = outcome.values["outputs"]
    assert row["frames"] == 5
    assert row["relevance"] == row["relevance_mean"]
    assert "5 frames" in outcome.text
    assert json.loads(json.dumps(outcome.values))["outputs"][0]["flicker_ab"] > 0
    with pytest.raises(ValueError, match="omit --audio"):
        run(clip, tmp_path / "other.mp4", untrained_run, clip)


def test_a_folder_of_pictures_and_videos(photograph, make_clip, untrained_run, tmp_path):
    make_clip(
        photograph.parent / "deep" / "clip.webm", seconds=0.5, codec="libvpx-vp9", tone_hz=None
    )
    (photograph.parent / "broken.mp4").write_bytes(b"nonsense")
    outcome = run(photograph.parent, tmp_path / "out", untrained_run)
    written = {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.*")}
    assert written == {"holiday.png", "deep/clip.mkv"}
    assert outcome.exit_code == 1
    assert "broken.mp4" in outcome.values["failed"][0]
    make_clip(photograph.parent / "deep" / "clip.mkv", seconds=0.5)
    with pytest.raises(ValueError, match=r"clip\.(mkv|webm)' would get the same name"):
        run(photograph.parent, tmp_path / "out", untrained_run)


def test_a_clip_without_sound(make_clip, untrained_run, tmp_path):
    clip = make_clip(tmp_path / "in" / "clip.mp4", tone_hz=None)
    outcome = run(clip, tmp_path / "out.png", untrained_run)
    assert outcome.values["outputs"][0]["relevance"] is None


def test_a_damaged_clip_is_rejected(untrained_run, tmp_path):
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=r"clip\.mp4.*undecodable"):
        run(clip, tmp_path / "out.png", untrained_run)
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize("out", ["out.mkv", "out.png"])
@pytest.mark.parametrize("content", [b"", b"\0", b"no video"])
def test_an_empty_video_is_named(untrained_run, tmp_path, out, content):
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(ValueError, match=r"cannot read video '.*a\.mp4': "):
        run(tmp_path / "a.mp4", tmp_path / out, untrained_run)
    assert not (tmp_path / out).exists()


def test_stage_1_rejects_sound(photograph, recording, make_clip, untrained_run, tmp_path):
    stage1 = untrained_run / "stage1"
    with pytest.raises(ValueError, match="stage 1"):
        run(photograph, tmp_path / "out.png", stage1, recording)
    assert run(photograph, tmp_path / "out.png", stage1).values["outputs"]
    clip = make_clip(tmp_path / "clip.mp4", seconds=0.2)
    with pytest.raises(ValueError, match="use a stage-3 checkpoint"):
        run(clip, tmp_path / "out.mp4", stage1)


@pytest.mark.parametrize(
    ("source", "out", "error", "message"),
    [
        ("nowhere.png", "out.png", FileNotFoundError, r"no picture, video or folder at .*nowhere"),
        ("in/holiday.png", "out.gif", ValueError, r"cannot write .*out\.gif"),
        ("in/holiday.png", "in/holiday.png", ValueError, "would replace the input"),
        ("in/holiday.png", "in", ValueError, "would replace the input"),
        ("in", "out.png", ValueError, "use a folder for --out"),
        ("in/holiday.png", "out.mp4", ValueError, r"cannot write .*out\.mp4"),
        ("in", "out.mkv", ValueError, "use a folder for --out"),
        ("in", "in/coloured", ValueError, r"in/coloured' is inside the input"),
        ("empty", "out", ValueError, "has no picture or video"),
    ],
)
def test_errors_name_the_place_and_the_way_out(
    photograph, untrained_run, tmp_path, source, out, error, message
):
    (tmp_path / "empty").mkdir()
    with pytest.raises(error, match=message):
        run(tmp_path / source, tmp_path / out, untrained_run)
    assert read(photograph).shape == (60, 80, 3)


def test_a_damaged_or_missing_sound_is_rejected(photograph, untrained_run, tmp_path):
    silent = tmp_path / "sound.wav"
    silent.write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=r"sound\.wav"):
        run(photograph, tmp_path / "out.png", untrained_run, silent)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        run(photograph, tmp_path / "out.png", untrained_run, tmp_path / "nowhere.wav")


def test_real_photographs_with_their_recordings(shared, untrained_run, tmp_path):
    for name in ("car", "dog"):
        picture = shared / "data" / "still" / f"{name}_image.jpg"
        sound = shared / "data" / "still" / f"{name}_audio.wav"
        outcome = run(picture, tmp_path / f"{name}.jpg", untrained_run, sound)
        assert outcome.values["outputs"][0]["relevance"] is not None
        with Image.open(picture) as before, Image.open(tmp_path / f"{name}.jpg") as after:
            assert before.size == after.size


def test_a_real_clip(shared, untrained_run, tmp_path):
    clip = shared / "data" / "vggsound" / "clips" / "1aDnyPubxdY_000118.mp4"
    (row,) = run(clip, tmp_path / "frame.png", untrained_run).values["outputs"]
    assert row["relevance"] is not None


def test_from_bucket_to_bucket(photograph, make_clip, untrained_run, s3_place, tmp_path):
    clip = make_clip(tmp_path / "b.mp4", seconds=0.5)
    storage.write_bytes(f"{s3_place}/in/a.png", photograph.read_bytes())
    storage.write_bytes(f"{s3_place}/in/b.mp4", clip.read_bytes())
    outcome = run(f"{s3_place}/in", f"{s3_place}/out", untrained_run)
    places = [row["output"] for row in outcome.values["outputs"]]
    assert places == [f"{s3_place}/out/a.png", f"{s3_place}/out/b.mp4"]
    assert all(storage.size_of(place) for place in places)


def test_a_place_in_a_store_may_have_a_query(
    photograph, make_clip, untrained_run, s3_place, tmp_path
):
    endpoint = os.environ.pop("AWS_ENDPOINT_URL_S3")
    query = f"?endpoint_override={endpoint.removeprefix('http://')}&scheme=http"
    clip = make_clip(tmp_path / "b.mp4", seconds=0.5)
    try:
        storage.write_bytes(f"{s3_place}/in/b.mp4{query}", clip.read_bytes())
        run(photograph, f"{s3_place}/out.png{query}", untrained_run)
        assert images.decode(storage.read_bytes(f"{s3_place}/out.png{query}"), "a").shape[2] == 3
        outcome = run(f"{s3_place}/in/b.mp4{query}", f"{s3_place}/b.mkv{query}", untrained_run)
        assert outcome.values["outputs"][0]["frames"] == 5
        outcome = run(f"{s3_place}/in{query}", f"{s3_place}/folder{query}", untrained_run)
        assert outcome.values["outputs"][0]["frames"] == 5
    finally:
        os.environ["AWS_ENDPOINT_URL_S3"] = endpoint
