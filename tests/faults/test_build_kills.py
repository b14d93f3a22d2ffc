"""Builds killed at random moments end in the same shard set as undisturbed ones."""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from data_prep.catalog import Clip
from data_prep.media.isolated_decoder import Decoder
from data_prep.media.sample import MediaSettings, Sample
from data_prep.media.worker_process import WorkerDiedError, WorkerProcess
from data_prep.shards.manifest import load_manifest
from data_prep.shards.verify import verify
from fault_injection import build_kills
from fault_injection.build_kills import Stage, draw, kill_and_resume, make_world, undisturbed
from fault_injection.clips import write_clip
from fault_injection.processes import decoders, still_decoding, two_nodes, wait_for

RAY_KILLS = 4


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"), clips=72, files=24, shards=8)


@pytest.fixture
def scratch():
    """A short path, since the length of Ray's socket paths is limited."""
    options = {"prefix": "k-", "dir": "/tmp", "ignore_cleanup_errors": True}  # Ray still writes
    with tempfile.TemporaryDirectory(**options) as folder:
        yield Path(folder)


def test_a_kill_without_ray_changes_nothing(world, scratch, tmp_path):
    stage = Stage(world=world, scratch=scratch)
    expected = undisturbed(stage, tmp_path / "undisturbed", workers=0)
    assert expected.report["rejected"] == build_kills.REJECTED
    rng = random.Random(0)
    for number, (kind, share) in enumerate(draw(rng, ("process", "decoder"))):
        outcome = kill_and_resume(stage, kind, share, expected, tmp_path / str(number), rng)
        assert outcome is None or not outcome.faults, outcome
        if number == 2:
            break


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_kill_on_ray_changes_nothing(world, scratch, tmp_path):
    rng, outcomes = random.Random(1), []
    with two_nodes(scratch) as nodes:
        stage = Stage(world=world, scratch=scratch, nodes=nodes)
        expected = undisturbed(stage, tmp_path / "undisturbed", workers=2)
        for number, (kind, share) in enumerate(draw(rng, build_kills.RAY_KINDS)):
            out = tmp_path / str(number)
            outcomes.append(kill_and_resume(stage, kind, share, expected, out, rng))
            if number + 1 == RAY_KILLS:
                break
    assert not [outcome for outcome in outcomes if outcome is not None and outcome.faults]
    assert len([outcome for outcome in outcomes if outcome is not None]) > RAY_KILLS / 2


def test_two_builds_at_once_have_one_winner(world, scratch, tmp_path):
    """The second of two builds with different picture sizes fails and changes nothing."""
    out, stage = tmp_path / "out", Stage(world=world, scratch=scratch)
    sizes = {32: stage.start(out, 0, "--size-px", "32"), 40: stage.start(out, 0, "--size-px", "40")}
    reports = {size: build.communicate(timeout=120)[0] for size, build in sizes.items()}
    (winner,) = (size for size, build in sizes.items() if build.returncode == 0)
    (loser,) = (size for size, build in sizes.items() if build.returncode == 1)
    assert reports[loser] == ""
    (line,) = (
        line.rpartition("\r")[2]
        for line in out.with_suffix(".err").read_text().splitlines()
        if "aiaic: error" in line
    )
    assert line.startswith("aiaic: error: another build has published")
    assert verify(str(out)).digest == json.loads(reports[winner].splitlines()[-1])["digest"]
    assert load_manifest(str(out)).settings["media"]["size_px"] == winner
    assert build_kills.left_over(out) == []


def large_answer() -> bytes:
    return bytes(1 << 24)


def nothing() -> None:
    """No preparation."""


@pytest.mark.timeout(90)
def test_a_process_killed_while_it_answers_is_reported_as_died():
    """Part of the answer has arrived, but not all of it."""
    child = WorkerProcess(large_answer, nothing, {})
    child.call()
    assert len(child.answer(60)) == 1 << 24
    child.call()
    child._channel.poll(60)
    (pid,) = decoders(os.getpid())
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(WorkerDiedError) as death:
        child.answer(60)
    assert death.value.killed
    assert not decoders(os.getpid())


ORPHAN = """
import time
from data_prep.media.worker_process import WorkerProcess
if __name__ == "__main__":
    child = WorkerProcess(time.sleep, dict, {})
    child.call(600)
    time.sleep(600)
"""


def test_a_busy_process_ends_with_its_parent():
    root = Path(__file__).parents[2]
    parent = subprocess.Popen(
        [sys.executable, "-c", ORPHAN], env=os.environ | {"PYTHONPATH": str(root)}
    )
    try:
        (pid,) = wait_for(lambda: decoders(parent.pid), "process")
        time.sleep(0.5)
    finally:
        parent.kill()
        parent.wait()
    wait_for(lambda: not still_decoding([pid]), "end of the process", 20)


def test_clips_survive_the_death_of_their_process(tmp_path):
    """Kills it before the first clip, as it starts, repeatedly during a clip, and between clips."""
    clips = [
        Clip(key=str(n), youtube_id=str(n), start_s=0, label="", split="train", uri="")
        for n in range(6)
    ]
    path = write_clip(tmp_path / "clip.mp4", seconds=1.2)
    killed: list[int] = []
    answered = threading.Event()

    def kill_up_to_four() -> None:
        while len(killed) < 4 and not answered.wait(0.01):
            killed.extend(kill_decoders())

    with Decoder(MediaSettings(size_px=32)) as decoder:
        (undisturbed,) = decoder.decode([(clips[0], path)])
        killed.extend(kill_decoders())
        killer = threading.Thread(target=kill_up_to_four)
        killer.start()
        for decoded in decoder.decode((clip, path) for clip in clips):
            assert isinstance(decoded.outcome, Sample), decoded
            assert decoded.source_sha256 == undisturbed.source_sha256
            answered.set()  # the next process starts only when the next clip is requested
            killer.join()
            kill_decoders()
    assert 1 <= len(set(killed)) <= 4, killed


def kill_decoders() -> list[int]:
    found = decoders(os.getpid())
    for pid in found:
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not still_decoding(found), "end of the process")
    return found
