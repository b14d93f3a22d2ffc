"""Clips that exceed time or memory limits or crash the decoder do not stop the build."""

import contextlib
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from data_prep.catalog import read_folder
from data_prep.media import worker_process
from data_prep.media.isolated_decoder import Decoder
from data_prep.media.sample import MediaSettings, Rejection
from data_prep.shards import records
from data_prep.shards.build import build_shards
from data_prep.shards.plan import BuildSettings, plan
from fault_injection.processes import decoders
from tests.faults.media_files import ROSE, clip, clip_of, endless


def outcomes(decoder: Decoder, *sources: bytes | Path) -> list[str]:
    """Outcomes of several clips, decoded in turn."""
    clips = [(clip_of(f"c{number}"), source) for number, source in enumerate(sources)]
    found = [decoded.outcome for decoded in decoder.decode(clips)]
    return [o.reason if isinstance(o, Rejection) else "written" for o in found]


@pytest.fixture(scope="module")
def good() -> bytes:
    return clip(times=range(12), sounds=())


@pytest.fixture(scope="module")
def long_clip() -> bytes:
    """Takes many seconds to decode: 25,000 frames precede the requested one.

    So many that it is still decoding even if a busy machine delays the test.
    """
    return endless(50_000, 100.0)


def test_a_clip_that_takes_too_long_is_abandoned_and_the_next_is_decoded(good, long_clip):
    with Decoder(MediaSettings(size_px=None, max_decode_s=3.0)) as decoder:
        assert outcomes(decoder, good, long_clip, good) == ["written", "timed_out", "written"]


@pytest.fixture(scope="module")
def large() -> bytes:
    """Frames of the maximum size, with more reference frames than usual."""
    options = {"x264-params": "ref=4:bframes=0", "preset": "ultrafast"}
    size = 4096, 2304
    return clip(
        sounds=(), times=range(12), size=size, color=ROSE, options=options, key_interval=250
    )


@pytest.mark.parametrize("mebibytes", [8, 24, 80])
def test_a_clip_that_needs_too_much_memory_is_too_large(good, large, mebibytes):
    with Decoder(MediaSettings(size_px=64, max_memory_bytes=mebibytes << 20)) as decoder:
        assert outcomes(decoder, large, good) == ["too_large", "written"]


def test_a_clip_that_crashes_its_process_is_rejected_and_others_are_unaffected(good, long_clip):
    """SIGSEGV, as from a bug in a decoder, each time this clip is decoded."""
    with Decoder(MediaSettings(size_px=None, max_decode_s=60.0)) as decoder:
        with killer(signal.SIGSEGV, times=2) as killed:
            assert outcomes(decoder, long_clip, good) == ["crashed", "written"]
        assert len(killed) == 2


def test_a_clip_whose_process_is_killed_once_is_decoded_again(good):
    slow = endless(2000, 100.0)
    with Decoder(MediaSettings(size_px=None, max_decode_s=60.0)) as decoder:
        with killer(signal.SIGKILL, times=1) as killed:
            assert outcomes(decoder, slow, good) == ["written"] * 2
        assert len(killed) == 1


def test_a_stopped_decoder_stays_stopped(good, long_clip):
    with Decoder(MediaSettings(size_px=None, max_decode_s=60.0)) as decoder:
        stopped = pytest.raises(InterruptedError, match="decoding was stopped")
        with once_decoding(decoder.stop), stopped:
            outcomes(decoder, long_clip, long_clip, good)
        assert decoders(os.getpid()) == []
        with pytest.raises(InterruptedError, match="decoding was stopped"):
            outcomes(decoder, good)


def test_a_stop_just_as_the_process_starts_takes_effect(good, monkeypatch):
    with Decoder(MediaSettings(size_px=None, max_decode_s=60.0)) as decoder:
        monkeypatch.setattr(
            "data_prep.media.isolated_decoder.WorkerProcess",
            lambda *of: decoder.stop() or worker_process.WorkerProcess(*of),
        )
        with pytest.raises(InterruptedError, match="decoding was stopped"):
            outcomes(decoder, good)
    assert decoders(os.getpid()) == []


def test_ctrl_c_does_not_wait_for_the_current_clip(long_clip, tmp_path):
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "long.mp4").write_bytes(long_clip)
    settings = BuildSettings(media=MediaSettings(size_px=None, max_decode_s=120.0), shards=1)
    shards = plan(read_folder(str(tmp_path / "clips")).clips, 1)
    interrupt = once_decoding(lambda: os.kill(os.getpid(), signal.SIGINT))
    with interrupt, pytest.raises(KeyboardInterrupt):
        list(build_shards(shards, settings, str(tmp_path / "out")))
    assert records.load(0, str(tmp_path / "out")) is None
    assert decoders(os.getpid()) == []


def test_a_process_that_dies_between_two_clips_is_replaced(good, tmp_path):
    path = tmp_path / "good.mp4"
    path.write_bytes(good)
    with Decoder(MediaSettings(size_px=None, max_decode_s=20.0)) as decoder:
        for source in (good, path):
            assert outcomes(decoder, source) == ["written"]
            for pid in decoders(os.getpid()):
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.3)
            assert outcomes(decoder, source, good) == ["written", "written"]


def test_no_source_can_block_the_process(tmp_path, good):
    """Neither a pipe, which never ends, nor a file that has been deleted, nor a huge one."""
    names = ("pipe", "directory", "device", "circle", "nowhere", "huge")
    pipe, directory, device, circle, nowhere, huge = (tmp_path / name for name in names)
    os.mkfifo(pipe)
    directory.mkdir()
    device.symlink_to("/dev/zero")
    circle.symlink_to(circle)
    with huge.open("wb") as file:
        file.truncate(1 << 40)
    strange = (pipe, directory, device, circle, nowhere, huge)
    with Decoder(MediaSettings(size_px=None, max_decode_s=5.0)) as decoder:
        found = outcomes(decoder, *strange, good, bytes(1 << 27))
    assert found == ["missing"] * 5 + ["too_large", "written", "too_large"]


def ready_decoders() -> list[int]:
    """Decoding processes that have limited their memory, which they do before the first clip."""
    ready: list[int] = []
    for pid in decoders(os.getpid()):
        limits = Path(f"/proc/{pid}/limits").read_text()
        found = re.search(r"Max data size +(\d+|unlimited)", limits)
        if found and found[1] != "unlimited":
            ready.append(pid)
    return ready


@contextlib.contextmanager
def once_decoding(act: Callable[[], object]) -> Iterator[None]:
    """Acts as soon as a process is ready to decode, and not after the context."""
    over = threading.Event()

    def run() -> None:
        while not over.wait(0.02):
            with contextlib.suppress(OSError):  # the process has just exited
                if ready_decoders():
                    act()
                    return

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextlib.contextmanager
def killer(signal_number: int, times: int) -> Iterator[list[int]]:
    """Sends a signal to decoding processes shortly after they start; yields their process ids."""
    killed: list[int] = []
    over = threading.Event()

    def kill() -> None:
        for pid in set(ready_decoders()) - set(killed):
            time.sleep(0.3)
            os.kill(pid, signal_number)
            killed.append(pid)

    def run() -> None:
        while len(killed) < times and not over.wait(0.02):
            with contextlib.suppress(OSError):  # the process has just exited
                kill()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        thread.join()


def test_the_largest_frames_fit(good, large):
    with Decoder(MediaSettings(size_px=64)) as decoder:
        assert outcomes(decoder, large, good) == ["written", "written"]
