"""How many workers: numbers and ranges."""

import pytest

from workflows.cluster.worker_range import Workers


@pytest.mark.parametrize(
    ("text", "least", "most"), [("0", 0, 0), ("4", 4, 4), (" 2:8 ", 2, 8), ("3:3", 3, 3)]
)
def test_a_number_and_a_range(text: str, least: int, most: int) -> None:
    workers = Workers.parse(text)
    assert (workers.least, workers.most) == (least, most)
    assert Workers.parse(str(workers)) == workers


@pytest.mark.parametrize("text", ["", "-1", "two", "8:2", "0:2", "2:", ":2", "1:2:3", "1.5"])
def test_what_is_neither_is_refused_with_the_way_out(text: str) -> None:
    with pytest.raises(ValueError, match=r"give 0.*MIN:MAX"):
        Workers.parse(text)


def test_as_many_as_there_is_room_for() -> None:
    assert [Workers(2, 4).within(room) for room in range(6)] == [2, 2, 2, 3, 4, 4]
    assert [Workers.exactly(3).within(room) for room in (0, 3, 9)] == [3, 3, 3]
