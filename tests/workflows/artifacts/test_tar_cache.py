"""Ranges of tars in a store: by requests at first, then from one whole copy."""

import gc
import hashlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from data_prep import storage
from data_prep.shards.tar import TarRecord
from workflows.artifacts import tar_cache
from workflows.artifacts.tar_cache import GET_BYTES, StoredTars

MIB = 1 << 20


class Store:
    """Objects in memory, and the requests for them."""

    def __init__(self, *sizes: int) -> None:
        generator = np.random.default_rng(0)
        self.objects = {f"s3://b/{i}": generator.bytes(size) for i, size in enumerate(sizes)}
        self.requests: list[tuple[str, int, int]] = []

    def read_range(self, place: str, offset: int, size: int) -> bytes:
        self.requests.append((place, offset, size))
        time.sleep(0.01)
        return self.objects[place][offset : offset + size]

    def record(self, place: str) -> TarRecord:
        content = self.objects[place]
        return TarRecord(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())

    def check(self, tars: StoredTars, place: str, offset: int = 100, size: int = 50) -> None:
        expected = self.objects[place][offset : offset + size]
        assert tars.read(place, self.record(place), offset, size) == expected


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    """Four tars of 3 MiB."""
    made = Store(*[3 * MIB] * 4)
    monkeypatch.setattr(storage, "read_range", made.read_range)
    return made


def copies(tars: StoredTars) -> list[Path]:
    return [] if tars._folder is None else list(tars._folder.iterdir())


def test_a_tar_is_fetched_whole_once_its_requests_come_to_its_size(store: Store) -> None:
    tars = StoredTars()
    for count in (1, 2):
        store.check(tars, "s3://b/0")
        assert len(store.requests) == count
    assert copies(tars) == []
    for _ in range(5):
        store.check(tars, "s3://b/0")
    assert store.requests[2:] == [("s3://b/0", 0, 3 * MIB)]
    store.check(tars, "s3://b/1")  # each tar counts for itself
    assert store.requests[-1] == ("s3://b/1", 100, 50)


def test_of_many_threads_one_fetches(store: Store) -> None:
    tars, together = StoredTars(), threading.Barrier(8)

    def read(number: int) -> None:
        together.wait()
        store.check(tars, "s3://b/0", number * 7000, 2 * MIB)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(read, range(8)))
    assert store.requests == [("s3://b/0", 0, 3 * MIB)]


def test_the_folder_never_holds_more_than_its_bound(store: Store) -> None:
    """The tar that was not read for longest goes, and comes again by the same rule."""
    tars = StoredTars(scratch_bytes=7 * MIB)
    for place in ("s3://b/0", "s3://b/1", "s3://b/0", "s3://b/2"):
        for _ in range(3):
            store.check(tars, place)
        assert sum(path.stat().st_size for path in copies(tars)) <= 7 * MIB
    assert set(tars._held) == {"s3://b/0", "s3://b/2"}
    store.requests.clear()
    store.check(tars, "s3://b/1")
    assert store.requests == [("s3://b/1", 100, 50)]


def test_a_tar_that_has_no_room_is_read_by_ranges(store: Store) -> None:
    tars = StoredTars(scratch_bytes=2 * MIB)
    for _ in range(6):
        store.check(tars, "s3://b/0")
    assert {size for _, _, size in store.requests} == {50}


def test_who_reads_a_copy_is_not_disturbed_when_it_goes(store: Store) -> None:
    tars = StoredTars(scratch_bytes=4 * MIB)
    copy = tars._copy("s3://b/0", store.record("s3://b/0"), 3 * MIB)
    assert copy is not None
    tars._copy("s3://b/1", store.record("s3://b/1"), 3 * MIB)
    assert set(tars._held) == {"s3://b/1"}
    assert copy.read(10, 20) == store.objects["s3://b/0"][10:30]


def test_a_tar_that_is_not_the_manifests_is_refused_and_leaves_nothing(store: Store) -> None:
    tars, other = StoredTars(), store.record("s3://b/1")
    with pytest.raises(ValueError, match=r"s3://b/0.*differs from its checksum"):
        tars.read("s3://b/0", other, 0, 3 * MIB - GET_BYTES)
    assert copies(tars) == []
    assert tars._taken == 0
    for _ in range(3):
        store.check(tars, "s3://b/1")  # others go on
    assert len(copies(tars)) == 1


def test_large_tars_come_in_parts(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_cache, "_PART_BYTES", MIB + 1)
    tars = StoredTars()
    store.check(tars, "s3://b/3", 2 * MIB - 5, MIB)
    store.check(tars, "s3://b/3", 2 * MIB - 5, MIB)
    assert [size for _, _, size in store.requests] == [MIB, MIB + 1, MIB + 1, MIB - 2]


def test_the_folder_goes_with_its_owner(store: Store) -> None:
    tars = StoredTars()
    for _ in range(3):
        store.check(tars, "s3://b/0")
    folder = tars._folder
    assert folder is not None
    assert folder.is_dir()
    del tars
    gc.collect()
    assert not folder.exists()
