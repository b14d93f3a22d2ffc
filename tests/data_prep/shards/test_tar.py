"""Shard files: byte-identical, readable by webdataset, exact ranges, hostile tars refused."""

import io
import tarfile
from pathlib import Path

import pytest

from data_prep.media.sample import Sample
from data_prep.shards.tar import read_pictures, write_shard
from tests.data_prep.reading import read_shard


def sample(key: str, pictures: int = 1, sound: bytes = b"sound") -> Sample:
    return Sample(
        key=key,
        pictures=tuple(f"{key} picture {n}".encode() * 50 for n in range(pictures)),
        requested_s=(1.0,) * pictures,
        actual_s=(1.0,) * pictures,
        width=8,
        height=8,
        source_width=8,
        source_height=8,
        source_s=2.0,
        crop=(),
        colorfulness=20.0,
        motion=None,
        picture_hash=("0" * 16,) * pictures,
        sound=sound,
        sound_fate="kept" if sound else "absent",
        sound_start_s=0.0,
        sound_s=1.0,
        rms_dbfs=-20.0,
        peak_dbfs=-10.0,
    )


SAMPLES = [sample("-a_000001", 2), sample("b%2F" + "x" * 150, 2, b""), sample("c", 2, b"s" * 2000)]


def test_two_writes_are_byte_identical(tmp_path):
    first = write_shard(iter(SAMPLES), tmp_path, "one")
    second = write_shard(iter(SAMPLES), tmp_path, "two")
    assert first == second
    for kind in ("picture", "sound"):
        one, two = (tmp_path / f"{name}.{kind}.tar" for name in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()
        assert one.stat().st_size == getattr(first, kind).bytes


def test_byte_ranges_contain_the_contents(tmp_path):
    written = write_shard(SAMPLES, tmp_path, "s")
    pictures = (tmp_path / "s.picture.tar").read_bytes()
    sounds = (tmp_path / "s.sound.tar").read_bytes()
    assert list(written.ranges) == [s.key for s in SAMPLES]
    for s in SAMPLES:
        ranges = written.ranges[s.key]
        spans = zip(ranges.picture_offsets, ranges.picture_sizes, strict=True)
        assert tuple(pictures[o : o + n] for o, n in spans) == s.pictures
        assert sounds[ranges.sound_offset : ranges.sound_offset + ranges.sound_size] == s.sound


def test_reading_returns_what_was_written(tmp_path):
    write_shard(SAMPLES, tmp_path, "s")
    expected = [(s.key, list(s.pictures), s.sound) for s in SAMPLES]
    assert list(read_shard(tmp_path, "s")) == expected


def test_webdataset_reads_both_tars(tmp_path):
    from webdataset.tariterators import group_by_keys, tar_file_iterator

    write_shard(SAMPLES, tmp_path, "s")
    for kind, member in (("picture", "0.jpg"), ("sound", "wav")):
        with (tmp_path / f"s.{kind}.tar").open("rb") as stream:
            files = [{"__url__": "s", **item} for item in tar_file_iterator(stream)]
            groups = list(group_by_keys(files))
        assert [group["__key__"] for group in groups] == [s.key for s in SAMPLES]
        assert all(member in group for group in groups)


def test_a_repeated_key_is_refused(tmp_path):
    with pytest.raises(ValueError, match="in shard s twice"):
        write_shard([SAMPLES[0], SAMPLES[0]], tmp_path, "s")


def hostile(name: str, *, kind: bytes = tarfile.REGTYPE, size: int = 4, link: str = "") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        info = tarfile.TarInfo(name)
        info.type, info.linkname, info.size = kind, link, size
        tar.addfile(info, io.BytesIO(b"evil"))
    return stream.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        hostile("../../evil.0.jpg"),
        hostile("/evil.0.jpg"),
        hostile("a.pickle"),
        hostile("a.jpg"),
        hostile("a.0.jpg", kind=tarfile.SYMTYPE, size=0, link="/etc/passwd"),
        hostile("a.0.jpg", kind=tarfile.LNKTYPE, size=0, link="/etc/passwd"),
        hostile("a.0.jpg", kind=tarfile.DIRTYPE, size=0),
        hostile("a.0.jpg")[:700],
        b"\x1f\x8b" + b"0" * 2000,
        b"",
    ],
)
def test_a_hostile_or_broken_tar_is_refused(content):
    with pytest.raises(ValueError, match=r"x\.picture\.tar"):
        list(read_pictures(io.BytesIO(content), "x.picture.tar"))


def test_a_member_of_absurd_size_is_refused():
    info = tarfile.TarInfo("a.0.jpg")
    info.size = 1 << 40
    with pytest.raises(ValueError, match="too many"):
        list(read_pictures(io.BytesIO(info.tobuf() + bytes(4096)), "x.picture.tar"))


def test_tars_of_different_samples_are_refused(tmp_path: Path):
    write_shard(SAMPLES, tmp_path, "a")
    write_shard(SAMPLES[::-1], tmp_path, "b")
    write_shard(SAMPLES[:2], tmp_path, "c")
    for other, complaint in (("b", "in its place"), ("c", "no sound member")):
        (tmp_path / "x.picture.tar").write_bytes((tmp_path / "a.picture.tar").read_bytes())
        (tmp_path / "x.sound.tar").write_bytes((tmp_path / f"{other}.sound.tar").read_bytes())
        with pytest.raises(ValueError, match=complaint):
            list(read_shard(tmp_path, "x"))
