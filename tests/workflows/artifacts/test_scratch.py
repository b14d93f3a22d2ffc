"""Scratch space goes with its process, and that of killed ones with the next."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

HOLD = """
import sys, time
from workflows.artifacts import scratch
(scratch.folder() / "download").write_text("large")
print(scratch.folder(), flush=True)
sys.stdin.read()
"""


def start(folder: Path) -> tuple["subprocess.Popen[str]", Path]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD],
        env=os.environ | {"TMPDIR": str(folder)},
        cwd=Path(__file__).parents[3],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_what_dead_processes_have_left_is_deleted_and_nothing_else(tmp_path: Path) -> None:
    killed, left = start(tmp_path)
    alive, kept = start(tmp_path)
    (tmp_path / "aiaic-mine").mkdir()
    try:
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
        old = time.time() - 3600
        for folder in (left, kept):
            os.utime(folder, (old, old))
        assert (left / "download").exists()
        third, own = start(tmp_path)
        assert not left.exists()
        assert (kept / "download").exists()
        third.communicate("")
        assert not own.exists()
    finally:
        alive.communicate("")
    assert [path.name for path in tmp_path.iterdir()] == ["aiaic-mine"]
