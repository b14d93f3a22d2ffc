"""Every storage operation against two real servers, through a fault-injecting proxy."""

import functools
import threading
from collections.abc import Callable

import boto3
import pytest

from data_prep import storage
from data_prep.catalog import read_folder
from data_prep.shards import build
from data_prep.storage import s3, s3_client, s3_objects, s3_retry
from fault_injection.s3_proxy import FAULTS, S3Proxy, at_random, first

MIB = 1 << 20


@functools.cache
def direct(endpoint: str):
    """A client that bypasses the proxy."""
    return boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")


def keys_in(proxy: S3Proxy, place: str) -> list[str]:
    """All keys in a bucket, including hidden ones."""
    listed = direct(proxy.server).list_objects_v2(Bucket=place.removeprefix("s3://"))
    return [found["Key"] for found in listed.get("Contents", [])]


def test_all_operations_succeed_while_a_third_of_the_calls_fail(
    proxy, bucket, tmp_path, monkeypatch
):
    monkeypatch.setattr(s3, "MULTIPART_BYTES", 10 * MIB)
    monkeypatch.setattr(s3_objects, "PART_BYTES", 5 * MIB)
    monkeypatch.setattr(s3_retry, "ATTEMPTS", 16)  # a busy machine causes additional timeouts
    big = tmp_path / "big"
    big.write_bytes(bytes(range(256)) * (11 * MIB // 256))
    proxy.plan = at_random(0.35, seed=1)
    contents = {f"x/{number}": bytes([number]) * 1000 * number for number in range(8)}
    for name, content in contents.items():
        storage.write_bytes(storage.join(bucket, *name.split("/")), content)
    storage.publish(big, storage.join(bucket, "big"))

    listed = storage.list_files(bucket)
    assert {file.name: file.size for file in listed} == {
        name: len(content) for name, content in contents.items()
    } | {"big": 11 * MIB}
    for file in listed:
        assert storage.size_of(file.uri) == file.size
        assert storage.read_bytes(file.uri) == contents.get(file.name, big.read_bytes())
    assert storage.read_range(storage.join(bucket, "big"), 5 * MIB + 1, 300) == bytes(
        (1 + number) % 256 for number in range(300)
    )
    assert storage.exists(storage.join(bucket, "x"))
    manifest = storage.join(bucket, "manifest")
    storage.write_if_unchanged(manifest, b"1", None)
    storage.write_if_unchanged(manifest, b"2", b"1")
    assert storage.read_bytes(manifest) == b"2"
    storage.delete(storage.join(bucket, "big"))
    assert sorted(keys_in(proxy, bucket)) == ["manifest", *contents]
    assert proxy.share >= 0.2, proxy.injected


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_retried(proxy, bucket, fault, monkeypatch):
    place = storage.join(bucket, "x", "file")
    monkeypatch.setattr(s3_client, "REQUEST_S", 0.5)

    def with_fault(method: str, call: Callable[[], object]) -> object:
        proxy.plan = first(fault, method, within="x")
        proxy.injected.clear()
        result = call()
        assert proxy.injected.total() == 1
        return result

    with_fault("PUT", lambda: storage.write_bytes(place, b"0123456789"))
    assert with_fault("HEAD", lambda: storage.size_of(place)) == 10
    assert with_fault("GET", lambda: storage.read_bytes(place)) == b"0123456789"
    assert with_fault("GET", lambda: storage.read_range(place, 3, 4)) == b"3456"
    with_fault("GET", lambda: storage.list_files(storage.join(bucket, "x")))
    with_fault("DELETE", lambda: storage.delete(place))
    assert storage.size_of(place) is None


@pytest.mark.parametrize("fault", ["short", "cut", "slow_down"])
def test_a_persistent_error_fails_after_a_bounded_number_of_attempts(
    proxy, bucket, fault, monkeypatch
):
    monkeypatch.setattr(s3_client, "REQUEST_S", 20.0)  # so that no timeout counts as an attempt
    place = storage.join(bucket, "file")
    storage.write_bytes(place, b"0123456789")
    proxy.plan = first(fault, "GET", times=1000)
    proxy.calls.clear()
    with pytest.raises(OSError, match="file: ") as failure:
        storage.read_bytes(place)
    throttled = fault == "slow_down"
    assert len(proxy.calls) == (s3_retry.SLOWED_ATTEMPTS if throttled else s3_retry.ATTEMPTS)
    assert "\n" not in str(failure.value)
    assert "Signature" not in str(failure.value)


def test_a_permanent_error_is_not_retried(proxy, bucket, monkeypatch):
    monkeypatch.setattr(s3_client, "REQUEST_S", 20.0)  # so that no timeout adds a call
    proxy.calls.clear()
    with pytest.raises(FileNotFoundError, match="file does not exist"):
        storage.read_bytes(storage.join(bucket, "file"))
    with pytest.raises(FileNotFoundError, match="no-such-bucket"):
        storage.read_bytes("s3://no-such-bucket/file")
    assert len(proxy.calls) == 2
    proxy.plan = first("denied", "GET")
    with pytest.raises(PermissionError, match=r"403 AccessDenied.*credentials"):
        storage.read_bytes(storage.join(bucket, "file"))
    assert len(proxy.calls) == 3
    proxy.plan = first("denied", "GET")
    with pytest.raises(PermissionError, match="credentials"):  # from Arrow
        storage.list_files(bucket)
    assert len(proxy.calls) == 4


@pytest.mark.parametrize("fault", ["full", "quota"])
def test_a_full_store_fails_an_upload_cleanly(proxy, bucket, fault, tmp_path, monkeypatch):
    monkeypatch.setattr(s3, "MULTIPART_BYTES", 10 * MIB)
    monkeypatch.setattr(s3_objects, "PART_BYTES", 5 * MIB)
    (tmp_path / "small").write_bytes(b"0" * 1000)
    (tmp_path / "big").write_bytes(b"0" * 11 * MIB)
    proxy.plan = first(fault, "PUT", times=1000)
    for name in ("small", "big"):
        proxy.injected.clear()
        with pytest.raises(
            OSError, match=f"{name}: the store is full or over its quota"
        ) as failure:
            storage.publish(tmp_path / name, storage.join(bucket, name))
        assert "\n" not in str(failure.value)
        assert proxy.injected[fault] <= 3  # one for each part
    assert keys_in(proxy, bucket) == []
    left = direct(proxy.server).list_multipart_uploads(Bucket=bucket.removeprefix("s3://"))
    assert not left.get("Uploads")


def test_a_corrupted_upload_is_retried_or_reported(proxy, bucket, tmp_path, request):
    (tmp_path / "tar").write_bytes(b"0" * 1000)
    place = storage.join(bucket, "tar")
    proxy.plan = first("damage", "PUT")
    if "rclone" in request.node.name:  # verifies Content-MD5
        storage.publish(tmp_path / "tar", place)
        assert storage.read_bytes(place) == b"0" * 1000
    else:
        with pytest.raises(OSError, match="corrupted during upload"):
            storage.publish(tmp_path / "tar", place)
        assert not storage.exists(place)
    assert proxy.injected["damage"] == 1


def test_a_multipart_upload_whose_completion_is_not_acknowledged(
    proxy, bucket, tmp_path, monkeypatch
):
    monkeypatch.setattr(s3, "MULTIPART_BYTES", 5 * MIB)
    monkeypatch.setattr(s3_objects, "PART_BYTES", 5 * MIB)
    (tmp_path / "tar").write_bytes(bytes(range(256)) * (6 * MIB // 256))
    place = storage.join(bucket, "tar")
    proxy.plan = first("lost", "POST", within="uploadId")
    proxy.calls.clear()
    storage.publish(tmp_path / "tar", place)
    assert proxy.injected["lost"] == 1
    assert [method for method, _ in proxy.calls].count("GET") == 0  # nothing was read back
    assert storage.read_bytes(place) == (tmp_path / "tar").read_bytes()


def test_a_write_whose_response_is_lost_is_recognized_as_our_own(proxy, bucket):
    place = storage.join(bucket, "manifest")
    for content, expected in ((b"1", None), (b"2", b"1")):
        proxy.plan = first("lost", "PUT", within="/manifest")
        storage.write_if_unchanged(place, content, expected)
    assert proxy.injected["lost"] == 2
    assert storage.read_bytes(place) == b"2"
    proxy.plan = first("conflict", "PUT", within="/manifest")  # another write is in progress
    storage.write_if_unchanged(place, b"3", b"2")
    assert storage.read_bytes(place) == b"3"


def test_a_write_between_our_read_and_write_is_a_conflict(proxy, bucket, request):
    place, name = storage.join(bucket, "manifest"), bucket.removeprefix("s3://")
    storage.write_if_unchanged(place, b"old", None)
    puts = []

    def others_write(method: str, path: str) -> str:
        # A store with preconditions then refuses our write; elsewhere theirs must come after ours.
        if "/manifest" in path and (method == "PUT" or puts):
            puts.append(method)
            if len(puts) == (2 if "rclone" in request.node.name else 1):
                direct(proxy.server).put_object(Bucket=name, Key="manifest", Body=b"theirs")
        return ""

    proxy.plan = others_write
    with pytest.raises(storage.ConflictError, match=r"another process changed .*manifest"):
        storage.write_if_unchanged(place, b"ours", b"old")
    assert storage.read_bytes(place) == b"theirs"
    with pytest.raises(storage.ConflictError):
        storage.write_if_unchanged(place, b"ours", b"old")
    with pytest.raises(storage.ConflictError):
        storage.write_if_unchanged(place, b"ours", None)
    storage.write_if_unchanged(place, b"theirs", b"old")  # is already there


def test_one_of_several_concurrent_writers_succeeds(proxy, bucket, monkeypatch):
    monkeypatch.setattr(s3, "SETTLE_S", 2.0)  # the default: a busy machine may delay a thread
    place = storage.join(bucket, "manifest")
    storage.write_if_unchanged(storage.join(bucket, "other"), b"", None)
    proxy.plan = at_random(0.2, seed=2, faults=("slow_down", "lost", "cut"))
    start, outcomes = threading.Barrier(4), dict[int, str]()

    def write(number: int) -> None:
        start.wait()
        try:
            storage.write_if_unchanged(place, bytes([number]) * 100, None)
            outcomes[number] = "won"
        except storage.ConflictError:
            outcomes[number] = "lost"
        except OSError as error:
            outcomes[number] = str(error)

    writers = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert sorted(outcomes.values()) == ["lost"] * 3 + ["won"]
    (winner,) = (number for number, outcome in outcomes.items() if outcome == "won")
    assert storage.read_bytes(place) == bytes([winner]) * 100
    assert all("part" not in key for key in keys_in(proxy, bucket))


def test_uploads_that_killed_processes_left_are_swept(proxy, bucket):
    name = bucket.removeprefix("s3://")
    direct(proxy.server).create_multipart_upload(Bucket=name, Key="x/tar")
    assert storage.sweep_parts(storage.join(bucket, "y"), older_than_s=-60) == 0
    assert storage.sweep_parts(storage.join(bucket, "x"), older_than_s=-60) == 1
    assert not direct(proxy.server).list_multipart_uploads(Bucket=name).get("Uploads")


@pytest.fixture(scope="module")
def clips(make_clip, tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    for number in range(12):
        make_clip(
            folder / f"clip{number:02}.mp4",
            seconds=1.2,
            width=64,
            height=48,
            tone_hz=200.0 + 50 * number,
        )
    return folder


def test_a_whole_build_is_the_same_as_an_undisturbed_one(
    proxy, bucket, clips, tmp_path, monkeypatch
):
    monkeypatch.setattr(s3_client, "REQUEST_S", 0.5)
    monkeypatch.setattr(s3_retry, "ATTEMPTS", 16)  # a busy machine causes additional timeouts
    settings = build.BuildSettings(media=build.MediaSettings(size_px=32), shards=3)
    undisturbed = build.build(read_folder(str(clips)), settings, str(tmp_path))
    stored, out = storage.join(bucket, "clips"), storage.join(bucket, "shards")
    storage.upload_folder(clips, stored)
    proxy.reset()
    proxy.plan = at_random(0.35, seed=3)
    disturbed = build.build(read_folder(stored), settings, out)
    assert proxy.share >= 0.2, proxy.injected
    assert set(proxy.injected) >= set(FAULTS) - {"short"}, proxy.injected
    assert len(proxy.calls) > 50
    proxy.plan = lambda method, path: ""
    assert disturbed.to_bytes() == undisturbed.to_bytes()
    assert undisturbed.counts.written == 12
    for file in storage.list_files(str(tmp_path)):
        if not file.name.startswith("records/"):  # these contain the sources' modification times
            stored_file = storage.join(out, *file.name.split("/"))
            assert storage.read_bytes(stored_file) == storage.read_bytes(file.uri), file.name
    assert len(storage.list_files(out)) == len(storage.list_files(str(tmp_path)))
