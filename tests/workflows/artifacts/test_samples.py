"""The bridge from shards to the loader."""

import pickle
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from data_prep import storage
from data_prep.catalog import splits
from data_prep.shards import manifest
from workflows.artifacts.samples import _PAUSES_S, StoredTars, open_evaluation, open_samples


def test_training_and_validation_are_split_by_video(shards: str) -> None:
    samples = open_samples(shards, "train")
    held_out = {ref.key for ref in samples.validation}
    assert len(samples.train) + len(held_out) == 32
    assert held_out == {
        ref.key
        for ref in (*samples.train, *samples.validation)
        if splits.is_validation(ref.youtube_id)
    }
    assert samples.manifest_digest == manifest.load_manifest(shards).digest


def test_a_test_split_is_taken_whole(shards: str) -> None:
    samples = open_samples(shards, "test")
    assert (len(samples.train), len(samples.validation)) == (4, 0)
    assert open_evaluation(shards, "test").validation == samples.train


def test_ranges_are_the_members_of_the_tars(shards: str) -> None:
    _compare_pictures(shards, shards)


def test_ranges_are_read_from_a_store(
    shards: str, rclone_s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rclone_s3.use(monkeypatch)
    place = storage.join(rclone_s3.new_place(), "shards")
    storage.upload_folder(Path(shards), place)
    _compare_pictures(place, shards)


def _compare_pictures(place: str, local: str) -> None:
    """Every picture as read from a place, in threads and after pickling, against local tars."""
    samples = open_samples(place, "train")
    read = pickle.loads(pickle.dumps(samples.read))
    refs = samples.train
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda ref: read(ref.shard, "picture", *ref.pictures[0]), refs))
    for ref, content in zip(refs, found, strict=True):
        with tarfile.open(storage.local_path(manifest.picture_place(local, ref.shard))) as tar:
            assert tar.extractfile(f"{ref.key}.0.jpg").read() == content


def test_a_tar_that_ends_early_is_named(shards: str, tmp_path: Path) -> None:
    storage.download_folder(shards, tmp_path)
    samples = open_samples(str(tmp_path), "train")
    ref = max(samples.train, key=lambda ref: ref.pictures[0])
    tar = storage.local_path(manifest.picture_place(str(tmp_path), ref.shard))
    tar.write_bytes(tar.read_bytes()[: ref.pictures[0][0] + 10])
    with pytest.raises(ValueError, match=tar.name):
        samples.read(ref.shard, "picture", *ref.pictures[0])


def test_a_split_that_is_not_there_is_named(shards: str) -> None:
    with pytest.raises(ValueError, match="its splits: test, train"):
        open_samples(shards, "dev")


def test_a_store_that_fails_for_a_while_costs_no_run(
    shards: str, rclone_s3: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rclone_s3.use(monkeypatch)
    place = storage.join(rclone_s3.new_place(), "shards")
    storage.upload_folder(Path(shards), place)
    samples = open_samples(place, "train")
    ref, failures = samples.train[0], [OSError("no answer")] * len(_PAUSES_S)

    def failing(*of: Any, real: Callable[..., bytes] = StoredTars.read, **by: Any) -> bytes:
        if failures:
            raise failures.pop()
        return real(*of, **by)

    monkeypatch.setattr(StoredTars, "read", failing)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    assert samples.read(ref.shard, "picture", *ref.pictures[0])[:2] == b"\xff\xd8"  # a JPEG
    assert "a sample is read again in 60 s: no answer" in caplog.text
    failures.extend([OSError("no answer")] * (len(_PAUSES_S) + 1))
    with pytest.raises(OSError, match="no answer"):
        samples.read(ref.shard, "picture", *ref.pictures[0])
    for permanent in (FileNotFoundError("it is gone"), PermissionError("not yours")):
        failures[:] = [permanent]
        with pytest.raises(type(permanent), match=str(permanent)):  # at once
            samples.read(ref.shard, "picture", *ref.pictures[0])
