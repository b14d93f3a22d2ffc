"""Places: paths, file:// and s3:// on real servers; final names never have partial content."""

import errno
import os
import threading
from pathlib import Path

import pytest

from data_prep import storage
from data_prep.storage import s3


@pytest.fixture(params=["path", "file"])
def local_place(request, tmp_path):
    folder = tmp_path / "a folder"
    folder.mkdir()
    return str(folder) if request.param == "path" else folder.as_uri()


@pytest.fixture(params=["local", "rclone", "moto"])
def place(request, tmp_path, monkeypatch):
    """An empty place of each kind in turn."""
    if request.param == "local":
        return str(tmp_path)
    server = request.getfixturevalue(f"{request.param}_s3")
    server.use(monkeypatch)
    return server.new_place()


def exercise(place: str, tmp_path: Path) -> None:
    """The behaviour of every kind of place."""
    names = ["x/one two.bin", "x/%2F+é.bin", "three.bin", "x/.hidden"]
    for number, name in enumerate(names):
        storage.write_bytes(storage.join(place, *name.split("/")), bytes([number]) * 100)
    listed = storage.list_files(place)
    assert [file.name for file in listed] == sorted(names[:3])
    assert all(storage.read_bytes(file.uri)[0] == names.index(file.name) for file in listed)
    assert all(file.size == 100 and file.stamp.startswith("100:") for file in listed)
    assert [file.name for file in storage.list_files(storage.join(place, "x"))] == [
        "%2F+é.bin",
        "one two.bin",
    ]
    three = storage.join(place, "three.bin")
    assert storage.name_of(three) == "three.bin"
    assert (storage.exists(three), storage.size_of(three)) == (True, 100)
    nothing = storage.join(place, "nothing")
    assert (storage.exists(nothing), storage.size_of(nothing)) == (False, None)
    assert storage.exists(storage.join(place, "x"))

    storage.write_bytes(three, bytes(range(200)))
    assert storage.read_range(three, 10, 5) == bytes(range(10, 15))
    with pytest.raises(ValueError, match="ends early"):
        storage.read_range(three, 190, 20)
    for missing in (storage.read_bytes, storage.list_files):
        with pytest.raises(FileNotFoundError, match="nothing"):
            missing(nothing)

    big = tmp_path / "big"
    big.write_bytes(bytes(range(256)) * 50_000)
    storage.publish(big, storage.join(place, "big"))
    assert storage.read_bytes(storage.join(place, "big")) == big.read_bytes()
    storage.write_bytes(storage.join(place, "x", "empty"), b"")
    assert storage.read_bytes(storage.join(place, "x", "empty")) == b""
    storage.delete(storage.join(place, "x", "empty"))
    storage.delete(nothing)
    storage.download_folder(place, tmp_path / "down")
    assert (tmp_path / "down" / "x" / "one two.bin").read_bytes() == bytes(100)
    storage.upload_folder(tmp_path / "down", storage.join(place, "again"))
    assert storage.size_of(storage.join(place, "again", "big")) == big.stat().st_size


def test_local_places(local_place, tmp_path):
    exercise(local_place, tmp_path)
    assert storage.is_local(local_place)
    assert storage.local_path(storage.join(local_place, "big")).is_file()


def test_s3_places(s3_place, tmp_path):
    exercise(s3_place, tmp_path)
    assert not storage.is_local(s3_place)
    with pytest.raises(ValueError, match="not on the local file system"):
        storage.local_path(s3_place)


def test_s3_endpoint_in_the_uri(rclone_s3, monkeypatch, tmp_path):
    rclone_s3.use(monkeypatch)
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3")
    host = rclone_s3.endpoint.removeprefix("http://")
    place = f"{rclone_s3.new_place()}/deep/er?endpoint_override={host}&scheme=http"
    assert storage.join(place, "a").startswith(place.replace("?", "/a?"))
    exercise(place, tmp_path)


def test_a_local_write_that_fails_leaves_the_old_content(tmp_path, monkeypatch):
    final = tmp_path / "manifest.json"
    storage.write_bytes(str(final), b"old")

    def fail(path, content):
        Path.open(path, "wb").close()
        raise OSError("no space left")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OSError, match="no space"):
        storage.write_bytes(str(final), b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]
    assert final.read_bytes() == b"old"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_leaves_the_old_content_and_no_part(tmp_path, monkeypatch, number):
    final, source = tmp_path / "out" / "tar", tmp_path / "source"
    storage.write_bytes(str(final), b"old")
    source.write_bytes(b"new")

    def fail(descriptor):
        raise OSError(number, "full")

    monkeypatch.setattr(os, "fsync", fail)
    for write in (
        lambda: storage.write_bytes(str(final), b"new"),
        lambda: storage.publish(source, str(final)),
        lambda: storage.write_if_unchanged(str(final), b"new", b"old"),
    ):
        with pytest.raises(OSError, match=r"no space left.*another location.*tar") as failure:
            write()
        assert failure.value.errno == number
        assert "\n" not in str(failure.value)
    assert [path.name for path in final.parent.iterdir()] == ["tar"]
    assert final.read_bytes() == b"old"


def test_a_conditional_write_succeeds_only_if_nothing_has_changed(place, monkeypatch):
    monkeypatch.setattr(s3, "SETTLE_S", 0.1)
    file = storage.join(place, "deep", "manifest")
    storage.write_if_unchanged(file, b"1", None)
    for content, expected in ((b"2", None), (b"2", b"0")):
        with pytest.raises(storage.ConflictError, match=r"another process changed .*manifest"):
            storage.write_if_unchanged(file, content, expected)
    storage.write_if_unchanged(file, b"1", b"0")  # already there
    storage.write_if_unchanged(file, b"2", b"1")
    storage.delete(file)
    with pytest.raises(storage.ConflictError):
        storage.write_if_unchanged(file, b"3", b"2")
    storage.write_if_unchanged(file, b"3", None)
    assert storage.read_bytes(file) == b"3"


def test_every_local_write_is_counted_once(tmp_path):
    # flock works between descriptors, so threads exclude each other as processes do.
    final = str(tmp_path / "count")
    storage.write_if_unchanged(final, b"0", None)
    refused = []
    start = threading.Barrier(4)

    def count(name: str) -> None:
        done = 0
        start.wait()
        while done < 25:
            standing = storage.read_bytes(final)
            counted = int(standing.split()[0]) + 1
            try:
                storage.write_if_unchanged(final, f"{counted} {name}".encode(), standing)
                done += 1
            except storage.ConflictError:
                refused.append(standing)

    writers = [threading.Thread(target=count, args=(name,)) for name in "abcd"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert refused
    assert storage.read_bytes(final).startswith(b"100 ")
    assert [path.name for path in tmp_path.iterdir()] == ["count"]


def test_parts_left_by_killed_processes_are_swept(tmp_path):
    old, young, foreign = (
        tmp_path / "x" / name
        for name in (".tar.0123456789ab.part", ".tar.ba9876543210.part", ".tar.part")
    )
    old.parent.mkdir()
    for path in (old, young, foreign):
        path.write_bytes(b"half")
    for path in (old, foreign):
        os.utime(path, (0, 0))
    assert storage.list_files(str(tmp_path)) == []
    assert storage.sweep_parts(str(tmp_path), older_than_s=60) == 1
    assert sorted(path.name for path in old.parent.iterdir()) == [young.name, foreign.name]


def test_parts_finished_during_a_sweep_are_not_an_error(tmp_path, monkeypatch):
    old = [tmp_path / f".{name}.0123456789ab.part" for name in "ab"]
    for path in old:
        path.write_bytes(b"half")
        os.utime(path, (0, 0))
    stat = Path.stat

    def finished(path, **options):
        if path == old[0]:
            path.unlink(missing_ok=True)
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", finished)
    assert storage.sweep_parts(str(tmp_path), older_than_s=60) == 1
    assert not old[1].exists()


def test_a_reader_sees_the_old_or_the_new_content_only(tmp_path):
    final = str(tmp_path / "file")
    contents = [bytes([number]) * 300_000 for number in range(2)]
    storage.write_bytes(final, contents[0])
    done = threading.Event()
    seen: set[bytes] = set()

    def read() -> None:
        while not done.is_set():
            seen.add(storage.read_bytes(final))

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(100):
        storage.write_bytes(final, contents[number % 2])
    done.set()
    reader.join()
    assert seen <= set(contents)


@pytest.mark.parametrize(
    ("place", "complaint"),
    [
        ("gs://bucket/key", "unknown scheme gs://"),
        ("http://host/key", "unknown scheme http://"),
        ("s3:///key", "no bucket"),
        ("s3://bucket/key?endpoint=x", "unknown key 'endpoint'"),
        ("s3://bucket/key?endpoint_override=x&scheme=ftp", "must be http or https"),
        ("file://host/key", "file:///"),
    ],
)
def test_an_invalid_place_is_refused_by_name(place, complaint):
    with pytest.raises(ValueError, match=complaint):
        storage.read_bytes(place)


def test_credentials_in_a_uri_are_refused_and_not_printed():
    with pytest.raises(ValueError, match="environment") as failure:
        storage.read_bytes("s3://KEY:SECRET@bucket/key")
    assert "SECRET" not in str(failure.value)


def test_a_wrong_bucket_or_key_is_named(rclone_s3, monkeypatch):
    rclone_s3.use(monkeypatch)
    with pytest.raises(FileNotFoundError, match="no-such-bucket"):
        storage.list_files("s3://no-such-bucket/x")
    place = rclone_s3.new_place()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "SOMEBODYELSE")
    with pytest.raises(OSError, match="credentials"):
        storage.read_bytes(f"{place}/x")
