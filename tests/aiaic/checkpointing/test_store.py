"""Which checkpoint is best, intact, or to be deleted; and how they are written during training."""

import threading
import weakref

import pytest
import torch

from aiaic.checkpointing import async_saver, checkpoint
from aiaic.checkpointing.async_saver import Saver
from aiaic.checkpointing.checkpoint import Snapshot
from aiaic.checkpointing.store import FolderStore, best, best_whole, newest_whole, prune
from aiaic.checkpointing.timings import Timings
from tests.aiaic.records import record


@pytest.fixture
def store(tmp_path):
    return FolderStore(tmp_path / "stage1")


def tensors():
    return {"w": torch.ones(3)}, {"m": torch.zeros(2)}


def snapshot(step, loss=None, tensors=tensors):
    return Snapshot(record=record(step, loss), timings=Timings(begun_unix_s=0.0), tensors=tensors)


def save(store, step, loss=None):
    made = snapshot(step, loss)
    store.publish(made.name, made.write)
    return made.name


def test_the_newest_ones_and_the_best_are_kept(store):
    names = [save(store, n, loss) for n, loss in enumerate((0.5, 0.2, 0.4, 0.3, 0.6), start=1)]
    prune(store, keep=2)
    assert store.names() == [names[1], names[3], names[4]]
    assert best(store) == names[1]
    prune(store, keep=9)
    assert len(store.names()) == 3


def test_without_validation_the_newest_is_best(store):
    assert best(store) is None
    _, newest = save(store, 1), save(store, 2)
    assert best(store) == newest


@pytest.mark.parametrize("name", ["model.safetensors", "training.safetensors", "checkpoint.json"])
@pytest.mark.parametrize("harm", ["flip", "cut", "delete", "empty"])
def test_the_one_before_replaces_a_damaged_newest_checkpoint(store, caplog, name, harm):
    whole, broken = save(store, 1), save(store, 2)
    path = store.fetch(broken) / name
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes({"flip": content, "cut": content[:-4]}.get(harm, b""))
    if harm == "delete":
        path.unlink()
    assert newest_whole(store) == store.fetch(whole)
    assert store.names() == [whole]
    if (name, harm) != ("checkpoint.json", "delete"):  # without its record it is none
        assert name in caplog.text
        assert f"{broken}'" in caplog.text


def test_damaged_checkpoints_alone_are_refused_and_stay(store):
    for step in (1, 2):
        (store.fetch(save(store, step)) / checkpoint.MODEL).write_bytes(b"")
    with pytest.raises(ValueError, match=r"step-0000002.*model.safetensors.*so are all others"):
        newest_whole(store)
    assert len(store.names()) == 2


def test_a_newer_programs_checkpoint_is_no_damaged_one(store):
    save(store, 1)
    path = store.fetch(save(store, 2)) / checkpoint.RECORD
    path.write_text(path.read_text().replace('"format_version": 3', '"format_version": 9'))
    with pytest.raises(ValueError, match="has format 9"):
        newest_whole(store)
    assert len(store.names()) == 2


def test_leftovers_of_a_killed_process_are_swept_by_the_next(store):
    left = store.folder / ".step-0000001-abcd"
    left.mkdir(parents=True)
    whole = save(store, 1)
    half = store.folder / checkpoint.step_name(2)
    half.mkdir()
    (half / checkpoint.MODEL).write_bytes(b"half")
    assert newest_whole(store) == store.fetch(whole)
    assert [path.name for path in store.folder.iterdir()] == [whole]


class FailingStore(FolderStore):
    """Storage that fails for some publications."""

    def __init__(self, folder, failures):
        super().__init__(folder)
        self.failures = failures

    def publish(self, name, fill):
        if self.failures:
            self.failures -= 1
            raise OSError("the storage is away")
        super().publish(name, fill)


def test_training_does_not_wait_for_a_checkpoint(store):
    may_write, committed = threading.Event(), []

    def slow():
        assert may_write.wait(60)
        return tensors()

    saver = Saver(store, 2, committed.append)
    saver.save(snapshot(1, 0.5, slow))
    assert store.names() == []  # and yet we are here
    may_write.set()
    saver.flush()
    assert store.names() == [checkpoint.step_name(1)]
    (commit,) = committed
    assert commit.place == store.place(checkpoint.step_name(1))
    assert commit.record == record(1, 0.5)
    assert commit.timings == Timings(begun_unix_s=0.0)


def test_a_checkpoint_that_cannot_be_stored_is_logged_and_the_next_one_stored(tmp_path, caplog):
    store = FailingStore(tmp_path, failures=1)
    saver = Saver(store, 2)
    for step in (1, 2):
        saver.save(snapshot(step))
    saver.flush()
    assert store.names() == [checkpoint.step_name(2)]
    assert "training continues: the storage is away" in caplog.text


def test_the_last_checkpoint_is_tried_until_storage_is_back(tmp_path, monkeypatch):
    monkeypatch.setattr(async_saver, "_PAUSES_S", (0.0, 0.0, 0.0))
    store = FailingStore(tmp_path, failures=2)
    saver = Saver(store, 2)
    saver.save(snapshot(1))
    saver.flush()
    assert len(store.names()) == 1
    store.failures = 9
    saver.save(snapshot(2))
    with pytest.raises(OSError, match="the storage is away"):
        saver.flush()


def test_no_commit_is_reported_after_a_failure(store):
    may_return, commits = threading.Event(), []

    def slow(commit):
        assert may_return.wait(60)
        commits.append(commit.record.step)

    saver = Saver(store, 2, slow)
    saver.save(snapshot(1))
    saver.save(snapshot(2, tensors=lambda: 1 / 0))
    threading.Timer(0.2, may_return.set).start()
    with pytest.raises(ZeroDivisionError):
        saver.flush(retry=False)
    assert commits == [1]


def test_a_second_ctrl_c_waits_for_the_checkpoint_under_way(store, monkeypatch):
    may_write, commits = threading.Event(), []

    def slow():
        assert may_write.wait(60)
        return tensors()

    def interrupted(seconds):
        threading.Timer(0.2, may_write.set).start()
        raise KeyboardInterrupt

    saver = Saver(store, 2, commits.append)
    saver.save(snapshot(1, tensors=slow))
    monkeypatch.setattr(saver, "_wait_patiently", interrupted)
    with pytest.raises(KeyboardInterrupt):
        saver.flush()
    assert [commit.record.step for commit in commits] == [1]


def test_an_error_raised_on_any_commit_is_raised_at_the_end(store):
    def failing(commit):
        if commit.record.step == 1:
            raise LookupError(commit.place)

    saver = Saver(store, 2, failing)
    for step in (1, 2, 3):
        saver.save(snapshot(step))
    with pytest.raises(LookupError, match=checkpoint.step_name(1)):
        saver.flush()
    assert len(store.names()) == 2


def test_a_bug_is_not_taken_for_a_storage_failure(store):
    saver = Saver(store, 2)
    saver.save(snapshot(1, tensors=lambda: 1 / 0))
    with pytest.raises(ZeroDivisionError):
        saver.flush()


def test_a_damaged_record_of_an_older_checkpoint_stops_nothing(store, caplog):
    """One of an earlier attempt is never the best; one of this attempt is so until the end."""
    names = [save(store, 1, 0.1)]
    path = store.fetch(names[0]) / checkpoint.RECORD
    path.write_bytes(path.read_bytes()[:-9])
    saver = Saver(store, 1)
    for step, loss in ((2, 0.2), (3, 0.4), (4, 0.3)):
        saver.save(snapshot(step, loss))
        saver.flush()
        names.append(checkpoint.step_name(step))
        if step == 2:
            path = store.fetch(names[1]) / checkpoint.RECORD
            path.write_bytes(path.read_bytes()[:-9])
    assert store.names() == [names[1], names[3]]
    assert best_whole(store) == names[3]
    for name in names[:2]:
        assert f"skipped checkpoint '{store.place(name)}'" in caplog.text


def test_records_of_this_attempt_are_never_read_back(store, monkeypatch):
    """Those of an earlier attempt are read once."""
    for step in (1, 2):
        save(store, step, 0.1 * step)
    read, names = store.record, []
    monkeypatch.setattr(store, "record", lambda name: names.append(name) or read(name))
    saver = Saver(store, 2, lambda commit: None)
    for step in (3, 4, 5):
        saver.save(snapshot(step, 0.5))
    saver.flush()
    assert sorted(names) == [checkpoint.step_name(step) for step in (1, 2)]
    assert store.names() == [checkpoint.step_name(step) for step in (1, 4, 5)]


def test_the_best_intact_one_replaces_a_damaged_best(store):
    names = [save(store, n, loss) for n, loss in enumerate((0.5, 0.2, 0.4), start=1)]
    (store.fetch(names[1]) / checkpoint.MODEL).write_bytes(b"")
    assert best_whole(store) == names[2]
    assert store.names() == [names[0], names[2]]


def test_any_changed_value_of_a_record_is_damage(store):
    path = store.fetch(save(store, 2)) / checkpoint.RECORD
    path.write_text(path.read_text().replace('"step": 2', '"step": 3'))
    with pytest.raises(checkpoint.DamagedError, match=r"checkpoint\.json is damaged"):
        checkpoint.read_record(path.parent)


def test_copies_of_weights_go_with_their_checkpoint(store):
    copies, commits = snapshot(1), []
    alive = weakref.ref(copies)
    saver = Saver(store, 1, commits.append)
    saver.save(copies)
    saver.flush()
    saver._thread.submit(int).result()  # a thread lets go of a job a moment after its result
    del copies
    assert commits
    assert alive() is None


def test_memory_of_copies_is_reused_once_they_are_released():
    value, spare = torch.zeros(3), []

    def copied(number):
        value.fill_(number)
        return async_saver.StagedTensors({"w": value}, spare)

    first, second = copied(1), copied(2)
    memory = first.tensors()["w"].data_ptr()
    assert second.tensors()["w"].data_ptr() != memory
    del first
    assert [copies["w"].data_ptr() for copies in spare] == [memory]
    third = copied(3)
    assert spare == []
    assert third.tensors()["w"].data_ptr() == memory
    assert [*second.tensors()["w"], *third.tensors()["w"]] == [2] * 3 + [3] * 3


def test_an_error_for_a_person_to_fix_is_raised_at_the_next_checkpoint(tmp_path):
    class Closed(FolderStore):
        def publish(self, name, fill):
            raise PermissionError("not yours")

    saver = Saver(Closed(tmp_path), 1)
    saver.save(snapshot(1))
    with pytest.raises(PermissionError, match="not yours"):
        saver.save(snapshot(2))
