"""What a driver and its workers tell each other, while the store between them comes and goes."""

import json
import threading
from typing import Any

import pytest
from ray.exceptions import RpcError

from workflows.cluster import control_channel


class Store:
    """Stands for Ray's own, to be away at will."""

    def __init__(self) -> None:
        self.away = False
        self.entries: dict[str, bytes] = {}

    def _internal_kv_get(self, key: str) -> bytes | None:
        self._check()
        return self.entries.get(key)

    def _internal_kv_put(self, key: str, value: bytes, *, overwrite: bool) -> None:
        self._check()
        self.entries[key] = value

    def _internal_kv_del(self, key: str) -> None:
        self._check()
        self.entries.pop(key, None)

    def _check(self) -> None:
        if self.away:
            raise RpcError("the store is away")


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    store = Store()
    monkeypatch.setattr(control_channel, "internal_kv", store)
    return store


def test_workers_go_on_while_the_store_is_away_and_tell_all_of_it_later(store: Store) -> None:
    told = control_channel.News("key")
    told.begin()
    store.away = True
    told.committed("run/stage1/step-0000002")
    told.warn("a checkpoint could not be stored")
    assert not told.sent_away()
    store.away = False
    told.progress(1, 4, 8, 0.5)  # too soon after the last news to be told by itself
    told.committed("run/stage1/step-0000004")
    assert told.read() == {
        "begun": True,
        "committed": "run/stage1/step-0000004",
        "warnings": ["a checkpoint could not be stored"],
        "warned": 1,
        "stage": 1,
        "step": 4,
        "steps": 8,
        "loss": 0.5,
    }


def test_whoever_cannot_be_sent_away_is_sent_away_the_next_time(store: Store) -> None:
    told = control_channel.News("key")
    store.away = True
    assert not told.send_away()
    store.away = False
    assert not told.sent_away()
    assert told.send_away()
    assert control_channel.News("key").sent_away()
    assert not control_channel.News("another attempt's").sent_away()


def test_entries_that_cannot_be_deleted_are_left(store: Store) -> None:
    told = control_channel.News("key")
    told.begin()
    told.send_away()
    store.away = True
    told.delete()
    store.away = False
    assert json.loads(store.entries["key"]) == {"begun": True}
    told.delete()
    assert store.entries == {}


def test_a_reader_passes_each_news_on_once_whenever_it_gets_it(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[Any] = []
    told = control_channel.News("key")
    with control_channel.Reader(told, lambda *step: heard.append(step), heard.append) as reader:
        reader.look()
        assert (heard, reader.begun, reader.trains) == ([], False, False)
        told.progress(1, 4, 8, 0.5)
        told.begin()
        told.committed("step-0000004")
        told.warn("once")
        for away in (True, False, True, False):
            store.away = away
            reader.look()
            assert reader.begun == (not away or bool(heard))
    assert heard == [(1, 4, 8, 0.5), "step-0000004"]
    assert [record.message for record in caplog.records] == ["once"]
    assert (reader.begun, reader.trains) == (True, True)


def test_a_server_that_does_not_answer_holds_up_no_other_news(store: Store) -> None:
    """Not even that the run is to leave; the attempt's end waits for it. Of the checkpoints that
    come meanwhile the newest alone is told of."""
    asked, answers, heard = threading.Event(), threading.Event(), list[Any]()

    def committed(place: str) -> None:
        asked.set()
        assert answers.wait(60)
        heard.append(place)

    told = control_channel.News("key")
    with control_channel.Reader(told, lambda *step: heard.append(step), committed) as reader:
        told.committed("step-0000004")
        reader.look()
        assert asked.wait(60)
        told.begin()
        for place in ("step-0000008", "step-0000012"):
            told.committed(place)
            reader.look()
        assert (reader.begun, heard) == (True, [])
        answers.set()
    assert heard == ["step-0000004", "step-0000012"]


def test_what_telling_has_raised_is_raised_at_the_end_unless_something_else_is(
    store: Store,
) -> None:
    def fail(place: str) -> None:
        raise KeyError(place)

    for error in (None, OSError("first")):
        told = control_channel.News("key")
        with pytest.raises(type(error) if error else KeyError):  # noqa: SIM117, PT012
            with control_channel.Reader(told, lambda *step: None, fail) as reader:
                told.committed("step-0000004")
                reader.look()
                if error:
                    raise error
