"""Splits, shards and leaks are pure functions of video ids."""

import itertools
from dataclasses import dataclass

import pytest

from data_prep.catalog.splits import Leak, find_leaks, is_validation, leaking_rows, shard_of

IDS = [f"video-{number:06d}" for number in range(20000)]


@dataclass(frozen=True)
class Row:
    youtube_id: str
    split: str


def test_shards_are_evenly_filled_and_stable():
    counts = [0] * 16
    for youtube_id in IDS:
        counts[shard_of(youtube_id, 16)] += 1
    assert sum(counts) == len(IDS)
    assert min(counts) > 0.9 * len(IDS) / 16
    assert max(counts) < 1.1 * len(IDS) / 16
    # Must never change: existing shards were filled with it.
    assert [shard_of(youtube_id, 1000) for youtube_id in IDS[:3]] == [450, 57, 388]


def test_fewer_shards_than_one_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        shard_of("a", 0)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.2, 1.0])
def test_validation_takes_its_share(share):
    taken = sum(is_validation(youtube_id, share) for youtube_id in IDS)
    assert taken == pytest.approx(share * len(IDS), rel=0.1)


def test_validation_only_grows_with_its_share_and_is_independent_of_shards():
    small = {youtube_id for youtube_id in IDS if is_validation(youtube_id, 0.05)}
    large = {youtube_id for youtube_id in IDS if is_validation(youtube_id, 0.1)}
    assert small < large
    assert len({shard_of(youtube_id, 16) for youtube_id in small}) == 16


def test_leaks_are_found_by_name_and_yield_to_the_most_held_out_split():
    rows = [
        Row("a", "train"),
        Row("a", "test"),
        Row("b", "train"),
        Row("b", "train"),
        Row("c", "val"),
        Row("c", "train"),
        Row("c", "test"),
    ]
    leaks = find_leaks(rows)
    assert leaks == (
        Leak(youtube_id="a", splits=("train", "test")),
        Leak(youtube_id="c", splits=("train", "val", "test")),
    )
    leaking = leaking_rows(rows, leaks)
    assert leaking == {0: "test", 4: "test", 5: "test"}
    kept = [row for place, row in enumerate(rows) if place not in leaking]
    assert find_leaks(kept) == ()


def test_leaks_do_not_depend_on_the_order_of_rows():
    rows = [Row("a", "train"), Row("a", "val"), Row("b", "test"), Row("b", "train")]
    found = {find_leaks(order) for order in itertools.permutations(rows)}
    assert len(found) == 1
