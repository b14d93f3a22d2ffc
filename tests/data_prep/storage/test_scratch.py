"""Scratch folders are removed, also those of killed processes, and nothing else."""

import os
import tempfile

from data_prep.storage import scratch


def test_scratch_folders_of_killed_builds_are_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left, mine = tmp_path / "aiaic-scratch-left", tmp_path / "mine"
    left.mkdir()
    (left / "shard.sound.tar").write_bytes(b"x")
    mine.mkdir()
    with scratch.folder() as held:
        for folder in (left, mine, held):
            os.utime(folder, (0, 0))
        with scratch.folder():
            assert not left.exists()
            assert mine.exists()
            assert held.exists()
    assert not held.exists()
