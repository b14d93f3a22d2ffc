"""Hostile and broken files: each is decoded rightly or rejected for its reason; nothing else."""

import contextlib
import ctypes
import gzip
import hashlib
import io
import os
import re
import select
import signal
import socket
import tarfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from data_prep import manifest, storage
from data_prep.build import build
from data_prep.catalog import Catalog, Clip
from data_prep.decoder import Decoder
from data_prep.media import read_clip, read_file
from data_prep.plan import BuildSettings
from data_prep.sample import MediaSettings, RejectedError, Rejection, Sample
from data_prep.shard import read_pictures, read_sounds
from data_prep.sound import read_sound
from data_prep.verification import verify
from tests.faults.corpus import CASES, Expected, text_cases
from tests.faults.media_files import ROSE, clip, endless, number_in

SETTINGS = MediaSettings(size_px=None, max_decode_s=20.0)
TEXTS = tuple(text_cases("", 0))


class Canary:
    """A real clip and a listening socket that nothing may touch."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "canary.mp4"
        self.path.write_bytes(clip(sounds=()))
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        libc = ctypes.CDLL(None, use_errno=True)
        self._watch = libc.inotify_init1(os.O_NONBLOCK)
        opened = 0x20
        assert libc.inotify_add_watch(self._watch, os.fsencode(self.path), opened) >= 0

    def touched(self) -> bool:
        """Whether anybody has opened the file or has called since the last time."""
        ready, _, _ = select.select([self._server, self._watch], [], [], 0)
        if self._watch in ready:
            os.read(self._watch, 4096)
        if self._server in ready:
            self._server.accept()[0].close()
        return bool(ready)

    def close(self) -> None:
        self._server.close()
        os.close(self._watch)


@pytest.fixture(scope="module")
def canary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Canary]:
    canary = Canary(tmp_path_factory.mktemp("canary"))
    yield canary
    canary.close()


@pytest.fixture(scope="module")
def contents(canary: Canary) -> dict[str, bytes]:
    """The corpus: each file is made once."""
    made = CASES | text_cases(str(canary.path), canary.port)
    return {name: case.make() for name, case in made.items()}


def clip_of(path: Path | str, key: str = "") -> Clip:
    stem = Path(path).stem
    return Clip(
        key=key or stem,
        youtube_id=key or stem,
        start_s=0.0,
        label="",
        split="train",
        uri=str(path),
        stamp="1:1",
        event_start_s=0.0,
        event_end_s=None,
    )


def picture(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)))


def pitch_hz(sound: bytes) -> float:
    waveform, rate = soundfile.read(io.BytesIO(sound), dtype="float32")
    return float(np.argmax(np.abs(np.fft.rfft(waveform)))) * rate / len(waveform)


def check(outcome: Sample | Rejection, expected: Expected) -> None:
    if isinstance(outcome, Rejection):
        assert outcome.reason == expected.fate, outcome
        assert expected.detail in outcome.detail
        return
    assert expected.fate == "written", outcome.sound_fate
    image = picture(outcome.pictures[0])
    assert image.shape == (outcome.height, outcome.width, 3)
    if expected.number is not None:
        assert number_in(image) == expected.number
    if expected.color is not None:
        assert image.reshape(-1, 3).mean(0) == pytest.approx(expected.color, abs=4)
    if expected.size is not None:
        assert (outcome.width, outcome.height) == expected.size
    assert outcome.sound_fate == expected.sound_fate
    assert bool(outcome.sound) == (expected.sound_fate == "kept")
    if expected.pitch_hz is not None:
        assert pitch_hz(outcome.sound) == pytest.approx(expected.pitch_hz, abs=1.5)
    if expected.sound_s is not None:
        assert outcome.sound_s == pytest.approx(expected.sound_s, abs=0.06)
    assert outcome.sound_start_s == pytest.approx(expected.sound_start_s, abs=0.03)


def test_the_corpus_is_large():
    assert len(CASES) + len(TEXTS) >= 100


@pytest.mark.parametrize("name", CASES)
def test_a_file_is_decoded_rightly_or_rejected_for_its_reason(contents, name):
    check(read_clip(contents[name], clip_of(name), SETTINGS), CASES[name].expected)


@pytest.mark.parametrize("name", TEXTS)
def test_a_file_that_names_others_opens_none_of_them(contents, canary, name):
    assert not canary.touched()
    expected = text_cases("", 0)[name].expected
    check(read_clip(contents[name], clip_of(name), SETTINGS), expected)
    if name != "data-elsewhere":  # which has sound of its own
        with pytest.raises(ValueError, match="no sound"):
            read_sound(contents[name], 16000)
    assert not canary.touched()


def test_the_canary_sings(canary):
    canary.path.read_bytes()
    assert canary.touched()
    socket.create_connection(("127.0.0.1", canary.port)).close()
    time.sleep(0.05)
    assert canary.touched()
    assert not canary.touched()


def test_turned_pictures_are_upright(contents):
    upright = picture(read(clip()).pictures[0]).astype(int)
    mirrored = upright[:, ::-1]
    expected = {
        "rotated-90": np.rot90(upright, -1),
        "rotated-180": np.rot90(upright, 2),
        "rotated-270": np.rot90(upright, 1),
        "mirrored": mirrored,
        "upside-down": upright[::-1],
    }
    for name, image in expected.items():
        found = picture(read(contents[name]).pictures[0]).astype(int)
        assert np.abs(found - image).mean() < 3, name


def read(content: bytes) -> Sample:
    sample = read_clip(content, clip_of("x"), SETTINGS)
    assert isinstance(sample, Sample), sample
    return sample


def test_one_field_is_taken_of_an_interlaced_frame(contents):
    image = picture(read(contents["interlaced"]).pictures[0])[:, :, 1].astype(int)
    bar = image > 128
    assert (bar == bar[20]).all()  # in the same place in every line
    assert bar[20].sum() == 8


def test_sound_that_changes_its_channels_is_whole(contents):
    sample = read(contents["stereo-then-mono"])
    waveform, rate = soundfile.read(io.BytesIO(sample.sound))
    halves = waveform[: rate // 2], waveform[-rate // 2 :]
    loud = [np.sqrt(np.mean(half[2000:6000] ** 2)) for half in halves]
    assert loud == pytest.approx([0.3 / np.sqrt(2)] * 2, rel=0.1)


def test_a_wav_of_a_billion_samples_is_as_long_as_it_is(contents):
    assert len(read_sound(contents["wav-of-1e9-samples"], 16000)) == 2000


NAMES = (
    "-rf.mp4",
    "--help.mp4",
    "frame-%03d.mp4",
    "пример 例 é.mp4",
    "two words 'and' \"quotes\".mp4",
    "line\nbreak.mp4",
    "$(touch executed);`id`|&.mp4",
    "http:\\\\host.mp4",
    "concat:a|b.mp4",
    "pipe:0.mp4",
    "é" * 120 + ".mp4",
)


@pytest.fixture(scope="module")
def files(
    contents: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory
) -> dict[Path, Expected]:
    """Everything as files called ``.mp4``, and things that are called so and are none."""
    folder = tmp_path_factory.mktemp("files")
    made = CASES | text_cases("", 0)
    for name, content in contents.items():
        (folder / f"{name}.mp4").write_bytes(content)
    outcomes = {folder / f"{name}.mp4": case.expected for name, case in made.items()}
    good = clip()
    for name in NAMES:
        (folder / name).write_bytes(good)
        outcomes[folder / name] = GOOD
    (folder / "directory.mp4").mkdir()
    os.mkfifo(folder / "pipe.mp4")
    (folder / "dangling.mp4").symlink_to(folder / "nowhere")
    (folder / "circle.mp4").symlink_to(folder / "circle.mp4")
    (folder / "device.mp4").symlink_to("/dev/zero")
    outcomes |= {
        folder / f"{name}.mp4": Expected(fate="missing")
        for name in ("directory", "pipe", "dangling", "circle", "device", "nowhere")
    }
    with (folder / "huge.mp4").open("wb") as huge:
        huge.truncate(1 << 40)
    outcomes[folder / "huge.mp4"] = Expected(fate="too_large")
    (folder / "link.mp4").symlink_to(folder / NAMES[0])
    outcomes[folder / "link.mp4"] = GOOD
    return outcomes


GOOD = Expected(number=10, size=(96, 64))


def test_what_is_no_plain_file_is_none(files):
    for path, expected in files.items():
        if expected.fate == "missing":
            with pytest.raises(RejectedError) as raised:
                read_file(path, 1000)
            assert raised.value.reason == "missing", path


def test_a_build_over_all_of_it(files, canary, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    clips = {f"c{n:03d}": path for n, path in enumerate(files)}
    catalog = Catalog(clips=tuple(clip_of(path, key) for key, path in clips.items()), leaks=())
    settings = BuildSettings(media=SETTINGS, shards=3, max_rejected_share=1.0)
    out = str(tmp_path / "out")
    assert not canary.touched()
    made = build(catalog, settings, out)
    assert not canary.touched()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]  # nothing was executed
    rows = {row["key"]: row for row in manifest.load_index(out, made).to_pylist()}
    fates = {clips[key].name: row["fate"] for key, row in rows.items()}
    assert fates == {path.name: expected.fate for path, expected in files.items()}
    sounds = {clips[key].name: row["sound_fate"] for key, row in rows.items()}
    for path, expected in files.items():
        assert sounds[path.name] == (expected.sound_fate if expected.fate == "written" else "")
    counts = made.counts
    assert counts.read == len(files) == counts.written + sum(counts.rejected.values())
    assert counts.rejected == Counter(e.fate for e in files.values() if e.fate != "written")
    assert verify(out) == made
    assert storage.list_files(out)


def outcomes(decoder: Decoder, *sources: bytes | Path) -> list[str]:
    """Fates of several clips, decoded one after the other."""
    clips = [(clip_of(f"c{number}"), source) for number, source in enumerate(sources)]
    found = [decoded.outcome for decoded in decoder.decode(clips)]
    return [o.reason if isinstance(o, Rejection) else "written" for o in found]


@pytest.fixture(scope="module")
def good() -> bytes:
    return clip(times=range(12), sounds=())


@pytest.fixture(scope="module")
def long_clip() -> bytes:
    """Takes many seconds to decode: fifteen thousand frames before the wanted one.

    So many that it is still at work where a busy machine lets the one who waits wait for long.
    """
    return endless(30_000, 100.0)


def test_a_clip_that_takes_too_long_is_given_up_and_the_next_is_decoded(good, long_clip):
    with Decoder(MediaSettings(size_px=None, max_decode_s=1.0)) as decoder:
        begin = time.monotonic()
        assert outcomes(decoder, good, long_clip, good) == ["written", "timed_out", "written"]
        assert time.monotonic() - begin < 20


@pytest.fixture(scope="module")
def large() -> bytes:
    """As large as frames may be, with more of them to refer to than usual."""
    options = {"x264-params": "ref=4:bframes=0", "preset": "ultrafast"}
    size = 4096, 2304
    return clip(
        sounds=(), times=range(12), size=size, color=ROSE, options=options, key_interval=250
    )


@pytest.mark.parametrize("mebibytes", [8, 24, 80])
def test_a_clip_that_needs_too_much_memory_is_too_large(good, large, mebibytes):
    with Decoder(MediaSettings(size_px=64, max_memory_bytes=mebibytes << 20)) as decoder:
        assert outcomes(decoder, large, good) == ["too_large", "written"]


def test_pictures_of_several_sizes_are_no_sample(contents):
    settings = MediaSettings(size_px=None, pictures=2)
    for letterbox in (False, True):
        settings = MediaSettings(size_px=None, pictures=2, cut_letterbox=letterbox)
        outcome = read_clip(contents["several-sizes"], clip_of("x"), settings)
        assert isinstance(outcome, Rejection)
        assert (outcome.reason, outcome.detail) == ("undecodable", "frames of several sizes")


def test_a_clip_that_kills_its_process_is_crashed_and_the_others_are_unharmed(good, long_clip):
    """As a fault in a decoder does: by SIGSEGV, each time that this clip is at work."""
    with Decoder(MediaSettings(size_px=None, max_decode_s=60.0)) as decoder:
        with killer(signal.SIGSEGV, times=2) as killed:
            assert outcomes(decoder, good, long_clip, good) == ["written", "crashed", "written"]
        assert len(killed) == 2


def test_a_clip_whose_process_is_killed_once_is_decoded_again(good):
    slow = endless(2000, 100.0)
    with Decoder(MediaSettings(size_px=None, max_decode_s=60.0)) as decoder:
        with killer(signal.SIGKILL, times=1) as killed:
            assert outcomes(decoder, good, slow, good) == ["written"] * 3
        assert len(killed) == 1


def test_a_process_that_dies_between_two_clips_is_replaced(good, tmp_path):
    path = tmp_path / "good.mp4"
    path.write_bytes(good)
    with Decoder(SETTINGS) as decoder:
        for source in (good, path):
            assert outcomes(decoder, source) == ["written"]
            for pid in children():
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.3)
            assert outcomes(decoder, source, good) == ["written", "written"]


def test_no_source_can_stop_the_process(files, good):
    """Neither a pipe, which never ends, nor a file that has gone meanwhile, nor a large one."""
    strange = {path.stem: path for path in files}
    names = ("pipe", "directory", "device", "circle", "nowhere", "huge")
    with Decoder(MediaSettings(size_px=None, max_decode_s=5.0)) as decoder:
        found = outcomes(decoder, *(strange[name] for name in names), good, bytes(1 << 27))
    assert found == ["missing"] * 5 + ["too_large", "written", "too_large"]


def children() -> list[int]:
    """Processes that this one has started, and that decode."""
    found: list[int] = []
    for task in Path("/proc/self/task").iterdir():
        for pid in map(int, (task / "children").read_text().split()):
            if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


@contextlib.contextmanager
def killer(number: int, times: int) -> Iterator[list[int]]:
    """Kills processes that decode, a moment after they have begun to; tells their numbers."""
    killed: list[int] = []
    over = threading.Event()

    def run() -> None:
        while len(killed) < times and not over.wait(0.02):
            for pid in children():
                limits = Path(f"/proc/{pid}/limits").read_text()
                ready = re.search(r"Max data size +(\d+|unlimited)", limits)
                if ready and ready[1] != "unlimited" and pid not in killed:
                    time.sleep(0.3)
                    os.kill(pid, number)
                    killed.append(pid)

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


def tar(*members: tuple[str, bytes, dict[str, Any]], kind: int = tarfile.PAX_FORMAT) -> bytes:
    """Name, content and further attributes of each member."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=kind) as target:
        for name, content, attributes in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for attribute, value in attributes.items():
                setattr(info, attribute, value)
            target.addfile(info, io.BytesIO(content) if info.isreg() else None)
    return stream.getvalue()


def pax(records: dict[str, str], name: str = "a.0.jpg", content: bytes = b"evil") -> bytes:
    return tar((name, content, {"pax_headers": records}))


def claiming(size: int, *, kind: bytes = tarfile.REGTYPE) -> bytes:
    """A header of a member of so many bytes, and four blocks."""
    info = tarfile.TarInfo("a.0.jpg")
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT) + bytes(2048)


def sparse() -> bytes:
    """GNU's old way: one byte of a member that is said to have a hundred million."""
    head = bytearray(tarfile.TarInfo("a.0.jpg").tobuf(tarfile.GNU_FORMAT))
    head[124:136] = b"%011o\0" % 512
    head[156:157] = b"S"
    head[386:410] = b"%011o\0" % 0 + b"%011o\0" % 512
    head[483:495] = b"%011o\0" % 100_000_000
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head) + bytes(512) + bytes(10240)


ONE = ("a.0.jpg", b"evil", {})
LINK = {"linkname": "/etc/passwd"}
TARS: dict[str, tuple[bytes, str]] = {
    "symbolic-link": (tar(("a.0.jpg", b"", LINK | {"type": tarfile.SYMTYPE})), "no picture"),
    "hard-link": (tar(("a.0.jpg", b"", LINK | {"type": tarfile.LNKTYPE})), "no picture"),
    "folder": (tar(("a.0.jpg", b"", {"type": tarfile.DIRTYPE})), "no picture"),
    "device": (tar(("a.0.jpg", b"", {"type": tarfile.CHRTYPE})), "no picture"),
    "pipe": (tar(("a.0.jpg", b"", {"type": tarfile.FIFOTYPE})), "no picture"),
    "above": (tar(("../a.0.jpg", b"evil", {})), "no picture"),
    "absolute": (tar(("/tmp/a.0.jpg", b"evil", {})), "no picture"),
    "pickle": (tar(("a.pkl", b"evil", {})), "no picture"),
    "sound": (tar(("a.wav", b"evil", {})), "no picture"),
    "pth": (tar(("a.0.jpg.pth", b"evil", {})), "no picture"),
    "doubled": (tar(ONE, ("b.0.jpg", b"good", {}), ONE), "stands twice"),
    "sparse": (sparse(), "no picture"),
    "pax-sparse": (
        pax({"GNU.sparse.map": "0,1", "GNU.sparse.size": "100000000"}),
        "no picture",
    ),
    "pax-sparse-nonsense": (pax({"GNU.sparse.map": "x,y", "GNU.sparse.size": "z"}), "no whole"),
    "pax-path-above": (pax({"path": "../../a.0.jpg"}), "no picture"),
    "pax-path-absolute": (pax({"path": "/etc/a.0.jpg"}), "no picture"),
    "pax-path-doubled": (tar(ONE, ("b.0.jpg", b"x", {"pax_headers": {"path": ONE[0]}})), "twice"),
    "1e12-bytes": (claiming(10**12), "too many"),
    "1e8-bytes": (claiming(10**8), "no whole tar"),
    "less-than-no-bytes": (claiming(-512), "x.picture.tar"),
    "cut-in-a-member": (tar(("a.0.jpg", b"x" * 2000, {}))[:1500], "no whole tar"),
    "cut-between-members": (tar(ONE, ("b.0.jpg", b"x", {}))[:1024], "end is missing"),
    "one-block-at-the-end": (tar(ONE)[:1536], "end is missing"),
    "damaged-header": (b"x" + tar(ONE)[1:], "no whole tar"),
    "gzip": (gzip.compress(tar(ONE)), "no whole tar"),
    "empty": (b"", "no whole tar"),
}


@pytest.mark.parametrize("name", TARS)
def test_a_hostile_tar_is_refused_by_name(name):
    content, complaint = TARS[name]
    with pytest.raises(ValueError, match=complaint) as raised:
        list(read_pictures(io.BytesIO(content), "x.picture.tar"))
    assert "x.picture.tar" in str(raised.value)
    if name != "sound":
        with pytest.raises(ValueError, match=r"x\.sound\.tar"):
            list(read_sounds(io.BytesIO(content), "x.sound.tar"))


def test_damaged_tars_never_raise_anything_else():
    whole = tar(*((f"{'k' * 120}{number}.0.jpg", b"x" * 700, {}) for number in range(4)))
    refused = 0
    for seed in range(300):
        generator = np.random.default_rng(seed)
        content = bytearray(whole)
        for place in generator.integers(0, len(content), 6):
            content[place] = generator.integers(256)
        with contextlib.suppress(ValueError):
            assert len(list(read_pictures(io.BytesIO(content), "x.picture.tar"))) == 4
            continue
        with pytest.raises(ValueError, match=r"x\.picture\.tar"):
            list(read_pictures(io.BytesIO(content), "x.picture.tar"))
        refused += 1
    assert refused > 50


def test_verify_names_a_hostile_tar(make_clip, tmp_path):
    """Even where its checksum is the manifest's."""
    path = make_clip(tmp_path / "clips" / "a.mp4", seconds=1.0)
    made = build(
        Catalog(clips=(clip_of(path),), leaks=()), BuildSettings(shards=1), str(tmp_path / "out")
    )
    (entry,) = made.shards
    evil = tar(("../a.0.jpg", b"evil", {}))
    place = manifest.picture_place(str(tmp_path / "out"), entry.name)
    storage.write_bytes(place, evil)
    record = replace(entry.picture, bytes=len(evil), sha256=hashlib.sha256(evil).hexdigest())
    forged = replace(made, shards=(replace(entry, picture=record),))
    storage.write_bytes(str(tmp_path / "out" / "manifest.json"), forged.to_bytes())
    with pytest.raises(ValueError, match=r"member '\.\./a\.0\.jpg' is no picture"):
        verify(str(tmp_path / "out"))
    assert not (tmp_path / "a.0.jpg").exists()
