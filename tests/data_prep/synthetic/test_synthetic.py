"""The synthetic world as files: reproducible and published atomically."""

import csv
import hashlib
import re
from collections import Counter

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from skimage.color import rgb2lab

from data_prep.synthetic import HARD, PLAIN, publish, synthesize

CLIPS = 10
"""One training clip of every class, and one test clip of each of two siblings."""

PINNED_CLIP = ("EDJ0bn4zOKY_000142", "blue_sea", "autumn_tree")
"""Key, class and class of the sound of the first clip of that world."""
PINNED_COLOR = (51.6, -1.6, -24.6)
"""The mean Lab colour of a grid of pixels of its frame at one second."""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return synthesize(tmp_path_factory.mktemp("made") / "world", CLIPS, seed=3, workers=2)


@pytest.fixture(scope="module")
def truth(made):
    return {row["key"]: row for row in pq.read_table(made.truth).to_pylist()}


def _digests(folder):
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def _middle(path):
    """The frame at one second as sRGB [h w 3], decoded as by any player."""
    with av.open(path) as container:
        frames = list(container.decode(video=0))
    assert len(frames) == 20
    return next(f for f in frames if f.time == 1.0).to_ndarray(format="rgb24")


def test_bytes_do_not_depend_on_the_number_of_workers(made, tmp_path):
    again = synthesize(tmp_path / "again", CLIPS, seed=3, workers=1)
    assert _digests(again.folder) == _digests(made.folder)


def test_another_seed_is_another_world(made, tmp_path):
    other = synthesize(tmp_path / "other", 1, seed=4, workers=1)
    assert not set(_digests(other.folder)) & {f for f in _digests(made.folder) if "clips" in f}


def test_the_plain_world_is_unchanged(made):
    """Compares decoded content, since the bytes also depend on the encoders' versions."""
    row = pq.read_table(made.truth).to_pylist()[0]
    assert pq.read_schema(made.truth).metadata == {b"version": b"1", b"clips": b"10", b"seed": b"3"}
    assert (row["key"], row["class"], row["sound_class"]) == PINNED_CLIP
    grey = rgb2lab(_middle(made.clips_folder / f"{row['key']}.mp4"))
    np.testing.assert_allclose(grey[::60, ::60].mean((0, 1)), PINNED_COLOR, atol=0.5)


def test_a_hard_world_has_four_colours_for_each_test_scene(tmp_path, made):
    """Of seventeen clips, the last is the first class's test clip."""
    hard = synthesize(tmp_path / "hard", 17, seed=3, workers=1, kind=HARD)
    row = pq.read_table(hard.truth).to_pylist()[16]
    assert (row["split"], row["class"]) == ("test", "blue_sea")
    pictures = {
        path.name.split(".")[1]: rgb2lab(np.asarray(Image.open(path)))
        for path in (hard.folder / "renderings").iterdir()
    }
    assert set(pictures) == {c.name for c in HARD.siblings("blue_sea")}
    assert len(pictures) == 4
    decoded = rgb2lab(_middle(hard.clips_folder / f"{row['key']}.mp4"))
    error = {k: np.abs((p - decoded)[..., 1:]).mean() for k, p in pictures.items()}
    assert min(error, key=error.__getitem__) == "blue_sea"
    with pytest.raises(ValueError, match="is not the plain world of 17 clips"):
        synthesize(hard.folder, 17, seed=3)
    assert synthesize(hard.folder, 17, seed=3, kind=HARD).reused


def test_annotations_are_in_vggsounds_format(made, truth):
    with made.annotations.open(newline="") as file:
        rows = list(csv.reader(file))
    assert len(rows) == CLIPS
    for youtube_id, start_s, label, split in rows:
        assert re.fullmatch(r"[A-Za-z0-9_-]{11}", youtube_id)
        key = f"{youtube_id}_{int(start_s):06d}"
        assert (made.clips_folder / f"{key}.mp4").is_file()
        assert truth[key]["class"] == label
        assert truth[key]["split"] == split
    assert Counter(label for *_, label, split in rows if split == "train") == {
        c.name: 1 for c in PLAIN.classes
    }


def test_truth_has_its_columns(truth):
    row = next(iter(truth.values()))
    assert {"youtube_id", "start_s", "class", "appearance", "fits", "has_sound"} <= set(row)
    for row in truth.values():
        assert row["fits"] == (row["sound_class"] == row["class"])
        assert row["has_sound"] == (row["sound_class"] is not None)


def test_every_test_clip_is_rendered_in_every_sibling(made, truth):
    expected = {
        f"{key}.{c.name}.png"
        for key, row in truth.items()
        if row["split"] == "test"
        for c in PLAIN.siblings(row["class"])
    }
    assert {p.name for p in (made.folder / "renderings").iterdir()} == expected


def test_clips_are_h264_and_aac(made, truth):
    for key in truth:
        with av.open(made.clips_folder / f"{key}.mp4") as container:
            video = container.streams.video[0]
            assert (video.codec_context.name, video.pix_fmt) == ("h264", "yuv420p")
            assert (video.width, video.height, float(video.average_rate)) == (192, 192, 10.0)
            assert (video.codec_context.colorspace, video.codec_context.color_range) == (6, 1)
            if container.streams.audio:
                assert container.streams.audio[0].codec_context.name == "aac"
            assert float(container.duration) / av.time_base == pytest.approx(2, abs=0.1)


def test_the_decoded_frame_is_the_rendering_of_its_class(made, truth):
    """The lightness of every sibling's rendering, and the chroma of its own class's."""
    for key, row in truth.items():
        if row["split"] != "test":
            continue
        decoded = rgb2lab(_middle(made.clips_folder / f"{key}.mp4"))
        error = {}
        for sibling in PLAIN.siblings(row["class"]):
            path = made.folder / "renderings" / f"{key}.{sibling.name}.png"
            rendered = rgb2lab(np.asarray(Image.open(path)))
            assert np.abs(rendered[..., 0] - decoded[..., 0]).mean() < 1.5
            error[sibling.name] = np.sqrt(((rendered - decoded)[..., 1:] ** 2).sum(-1)).mean()
        own = error.pop(row["class"])
        assert own < 8
        assert min(error.values()) > own + 15


def test_the_same_world_is_reused(made, monkeypatch):
    monkeypatch.setattr(publish, "write_clip", None)
    before = _digests(made.folder)
    assert synthesize(made.folder, CLIPS, seed=3).reused
    assert _digests(made.folder) == before


def test_another_world_is_not_overwritten(made):
    with pytest.raises(ValueError, match="is not the plain world of 10 clips with seed 5"):
        synthesize(made.folder, CLIPS, seed=5)


def test_a_world_that_lost_a_clip_is_not_reused(tmp_path):
    made = synthesize(tmp_path / "world", 1, workers=1)
    next(made.clips_folder.iterdir()).unlink()
    with pytest.raises(ValueError, match="not the plain world"):
        synthesize(made.folder, 1)


def test_a_foreign_folder_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="not empty"):
        synthesize(tmp_path, 1)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_an_interruption_leaves_nothing(tmp_path, monkeypatch):
    def stop(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(publish, "write_clip", stop)
    with pytest.raises(KeyboardInterrupt):
        synthesize(tmp_path / "world", 2, workers=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("clips", "seed"), [(0, 0), (-3, 0), (4, -1)])
def test_arguments_out_of_range_are_refused(tmp_path, clips, seed):
    with pytest.raises(ValueError, match="must"):
        synthesize(tmp_path / "world", clips, seed)
    assert list(tmp_path.iterdir()) == []
