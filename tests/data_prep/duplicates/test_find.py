"""Duplicates among generated rows: which are found, which are kept, which are none."""

import itertools

import numpy as np
import pytest
import simplejpeg

from data_prep.duplicates.find import IndexedClip, find_duplicates, thumbnail
from data_prep.duplicates.hamming import near_pairs

HASH = 0x0F0F0F0F_33335555
OTHER_HASH = 0xA5A5C3C3_F00F1234


def clip(key, split="train", *, video=None, sha=None, window=(5.0,), hashes=(HASH,)):
    return IndexedClip(
        key=key,
        youtube_id=video or key,
        split=split,
        source_sha256=sha or key,
        window=window,
        picture_hash=hashes,
    )


def look(seed):
    """A thumbnail with texture, reproducible by its seed."""
    return np.random.default_rng(seed).integers(0, 256, (16, 16, 3)).astype(np.uint8)


def left_out(clips, looks=None, **settings):
    """Key -> kept clip, kind and whether across splits; checked for two orders of the clips."""
    looks = looks or {}

    def thumbnails(names):
        return [looks.get(name[0], look(0)) for name in names]

    orders = [clips, clips[::-1]]
    found = {find_duplicates(order, thumbnails, **settings) for order in orders}
    assert len(found) == 1
    duplicates = found.pop()
    assert [d.key for d in duplicates] == sorted(d.key for d in duplicates)
    return {d.key: (d.kept, d.kind, d.across) for d in duplicates}


def test_one_copy_of_a_file_is_kept_in_the_most_held_out_split():
    clips = [
        clip("a", "train", sha="1", hashes=()),
        clip("b", "val", sha="1", hashes=()),
        clip("c", "test", sha="1", hashes=()),
        clip("d", "test", sha="1", hashes=()),
        clip("e", "train", sha="2", hashes=()),
    ]
    assert left_out(clips) == {
        "a": ("c", "exact", True),
        "b": ("c", "exact", True),
        "d": ("c", "exact", False),
    }


def test_other_excerpts_of_a_file_are_duplicates_only_across_splits():
    early, late = {"sha": "1", "window": (1.0,)}, {"sha": "1", "window": (9.0,)}
    events = [clip("a", video="v", **early), clip("b", video="v", **late)]
    assert left_out(events, {"a": look(1), "b": look(1)}) == {}
    assert left_out([*events, clip("c", video="v", **late)]) == {"c": ("b", "exact", False)}
    assert left_out([*events, clip("t", "test", video="w", **early)]) == {
        "a": ("t", "exact", True),
        "b": ("t", "exact", True),
    }


def test_clips_with_near_pictures_are_duplicates_within_and_across_splits():
    clips = [clip("a"), clip("b", hashes=(HASH ^ 0b111,)), clip("c", hashes=(OTHER_HASH,))]
    assert left_out(clips) == {"b": ("a", "near", False)}
    assert left_out(clips, max_distance=2) == {}
    clips[1] = clip("b", "val", hashes=(HASH ^ 0b111,))
    assert left_out(clips) == {"a": ("b", "near", True)}


def test_clips_of_one_video_may_look_alike_in_one_split():
    clips = [clip("a", video="v"), clip("b", video="v")]
    assert left_out(clips) == {}
    # The other video's copy is left out, not the kept video's other clip.
    assert left_out([*clips, clip("c")]) == {"c": ("a", "near", False)}
    # A held-out clip of the same video is a leak.
    assert left_out([*clips, clip("t", "test", video="v")]) == {
        "a": ("t", "near", True),
        "b": ("t", "near", True),
    }


def test_pictures_decide_and_not_their_hashes():
    clips = [clip("a"), clip("b"), clip("c", hashes=(HASH ^ 1,)), clip("d", hashes=(HASH ^ 3,))]
    looks = {"a": look(1), "b": look(2), "c": look(1), "d": look(2)}
    assert left_out(clips, looks) == {"c": ("a", "near", False), "d": ("b", "near", False)}
    brighter = np.minimum(look(1).astype(int) + 8, 255).astype(np.uint8)
    assert left_out(clips, looks | {"b": brighter}) == {
        "b": ("a", "near", False),
        "c": ("a", "near", False),
    }


def test_pictures_without_texture_are_ignored():
    black = np.full((16, 16, 3), 9, np.uint8)
    black[::2] += 4  # noise
    clips = [clip("a"), clip("b"), clip("c", "test")]
    assert left_out(clips, dict.fromkeys("abc", black)) == {}
    # A single tone: no picture is even read.
    flat = [clip(key, hashes=(1 << 63,)) for key in "ab"]
    assert left_out(flat) == {}


def test_one_picture_in_common_is_enough():
    clips = [
        clip("a", hashes=(OTHER_HASH, HASH)),
        clip("b", "test", hashes=(~HASH % 2**64, HASH ^ 1)),
    ]
    assert left_out(clips) == {"a": ("b", "near", True)}


def test_only_pictures_with_near_hashes_in_several_videos_are_read():
    clips = [
        clip("a", video="v"),
        clip("b", video="v"),
        clip("c", hashes=(OTHER_HASH, OTHER_HASH ^ 1)),
        clip("d", hashes=(~HASH % 2**64, 77777)),
        clip("e", hashes=(77777,)),
    ]
    asked = []

    def thumbnails(names):
        asked.extend(names)
        return [look(0)] * len(names)

    find_duplicates(clips, thumbnails)
    assert sorted(asked) == [("d", 1), ("e", 0)]


def test_without_clips_there_are_no_duplicates():
    assert left_out([]) == {}
    assert left_out([clip("a")]) == {}


@pytest.mark.parametrize("max_distance", [0, 1, 3, 8, 16])
def test_near_pairs_equal_those_of_brute_force(max_distance):
    random = np.random.default_rng(max_distance)
    centres = random.integers(0, 2**64, 40, np.uint64)
    flips = np.where(random.random((40, 10, 64)) < 0.06, 1, 0).astype(np.uint64)
    noise = (flips << np.arange(64, dtype=np.uint64)).sum(axis=2, dtype=np.uint64)
    hashes = np.unique((centres[:, None] ^ noise).ravel())
    expected = [
        [i, j]
        for i, j in itertools.combinations(range(len(hashes)), 2)
        if (int(hashes[i]) ^ int(hashes[j])).bit_count() <= max_distance
    ]
    assert bool(expected) == (max_distance > 0)
    assert near_pairs(hashes, max_distance).tolist() == expected


@pytest.mark.parametrize("max_distance", [-1, 17])
def test_a_distance_out_of_range_is_refused(max_distance):
    with pytest.raises(ValueError, match="0 to 16"):
        find_duplicates([], lambda names: [], max_distance)


@pytest.mark.parametrize("shape", [(320, 240), (96, 170), (17, 33), (9, 40)])
def test_a_thumbnail_averages_the_picture(shape):
    height, width = shape
    picture = np.zeros((height, width, 3), np.uint8)
    picture[: height // 2, :, 0] = 200
    picture[:, width // 2 :, 2] = 100
    small = thumbnail(simplejpeg.encode_jpeg(picture, 95, "RGB", "444")).astype(int)
    assert small.shape == (16, 16, 3)
    assert np.abs(small[:6, :6] - [200, 0, 0]).max() < 12
    assert np.abs(small[10:, 10:] - [0, 0, 100]).max() < 12


def test_content_that_is_not_a_jpeg_is_refused():
    with pytest.raises(ValueError, match="JPEG"):
        thumbnail(b"no picture")
