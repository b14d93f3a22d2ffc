"""Places: paths, file:// and s3:// on real servers; nothing half-written under a final name."""

import threading
from pathlib import Path

import pytest

from data_prep import storage


@pytest.fixture(params=["path", "file"])
def local_place(request, tmp_path):
    folder = tmp_path / "a folder"
    folder.mkdir()
    return str(folder) if request.param == "path" else folder.as_uri()


def exercise(place: str, tmp_path: Path) -> None:
    """What every kind of place must do."""
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
    with pytest.raises(ValueError, match="not on this machine"):
        storage.local_path(s3_place)


def test_s3_endpoint_in_the_uri(rclone_s3, monkeypatch, tmp_path):
    rclone_s3.use(monkeypatch)
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3")
    host = rclone_s3.endpoint.removeprefix("http://")
    place = f"{rclone_s3.new_place()}/deep/er?endpoint_override={host}&scheme=http"
    assert storage.join(place, "a").startswith(place.replace("?", "/a?"))
    exercise(place, tmp_path)


def test_an_upload_that_arrives_damaged_is_refused_and_removed(rclone_s3, monkeypatch, tmp_path):
    rclone_s3.use(monkeypatch)
    place = storage.join(rclone_s3.new_place(), "tar")
    (tmp_path / "tar").write_bytes(b"0" * 1000)
    monkeypatch.setattr(
        storage.shutil, "copyfileobj", lambda source, stream, _: stream.write(source.read(10))
    )
    with pytest.raises(OSError, match="10 bytes of 1000 arrived"):
        storage.publish(tmp_path / "tar", place)
    assert not storage.exists(place)


def test_an_upload_that_fails_midway_leaves_nothing(rclone_s3, monkeypatch, tmp_path):
    rclone_s3.use(monkeypatch)
    place = storage.join(rclone_s3.new_place(), "tar")
    (tmp_path / "tar").write_bytes(b"0" * 1000)

    def fail(source, stream, _):
        stream.write(source.read(10))
        raise OSError("the disk went away")

    monkeypatch.setattr(storage.shutil, "copyfileobj", fail)
    with pytest.raises(OSError, match="disk went away"):
        storage.publish(tmp_path / "tar", place)
    assert not storage.exists(place)


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
        ("s3://bucket/key?endpoint_override=x&scheme=ftp", "neither http nor https"),
        ("file://host/key", "file:///"),
    ],
)
def test_a_place_that_cannot_be_is_refused_by_name(place, complaint):
    with pytest.raises(ValueError, match=complaint):
        storage.read_bytes(place)


def test_credentials_in_a_uri_are_refused_and_not_repeated():
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
