"""Hostile and broken files are decoded correctly or rejected with the right reason."""

import ctypes
import io
import os
import select
import socket
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from data_prep import storage
from data_prep.catalog import Catalog
from data_prep.media.clip import read_clip
from data_prep.media.container import read_file
from data_prep.media.sample import MediaSettings, RejectedError, Rejection, Sample
from data_prep.media.sound import read_sound
from data_prep.shards import manifest
from data_prep.shards.build import build
from data_prep.shards.plan import BuildSettings
from data_prep.shards.verify import verify
from tests.faults.corpus import CASES, Expected, text_cases
from tests.faults.media_files import clip, clip_of, number_in

SETTINGS = MediaSettings(size_px=None, max_decode_s=20.0)
TEXTS = tuple(text_cases("", 0))


class Canary:
    """A real clip and a listening socket that must not be accessed."""

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
        """Whether the file was opened or the socket connected to since the last call."""
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
    """Name -> content of the corpus; each file is made once."""
    made = CASES | text_cases(str(canary.path), canary.port)
    return {name: case.make() for name, case in made.items()}


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
def test_a_file_is_decoded_correctly_or_rejected_with_its_reason(contents, name):
    check(read_clip(contents[name], clip_of(name), SETTINGS), CASES[name].expected)


@pytest.mark.parametrize("name", TEXTS)
def test_a_file_that_references_others_opens_none_of_them(contents, canary, name):
    assert not canary.touched()
    expected = text_cases("", 0)[name].expected
    check(read_clip(contents[name], clip_of(name), SETTINGS), expected)
    if name != "data-elsewhere":  # which contains sound itself
        with pytest.raises(ValueError, match=r"not a readable sound file|contains no"):
            read_sound(contents[name], 16000)
    assert not canary.touched()


def test_the_canary_detects_access(canary):
    canary.path.read_bytes()
    assert canary.touched()
    socket.create_connection(("127.0.0.1", canary.port)).close()
    time.sleep(0.05)
    assert canary.touched()
    assert not canary.touched()


def test_rotated_and_mirrored_pictures_are_upright(contents):
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
    assert (bar == bar[20]).all()  # at the same position in every row
    assert bar[20].sum() == 8


def test_sound_whose_channels_change_is_complete(contents):
    sample = read(contents["stereo-then-mono"])
    waveform, rate = soundfile.read(io.BytesIO(sample.sound))
    halves = waveform[: rate // 2], waveform[-rate // 2 :]
    loud = [np.sqrt(np.mean(half[2000:6000] ** 2)) for half in halves]
    assert loud == pytest.approx([0.3 / np.sqrt(2)] * 2, rel=0.1)


def test_a_wav_that_claims_a_billion_samples_has_its_actual_length(contents):
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
    """The corpus as ``.mp4`` files, and other things with that extension that are not files."""
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


def test_only_regular_files_are_read(files):
    for path, expected in files.items():
        if expected.fate == "missing":
            with pytest.raises(RejectedError) as raised:
                read_file(path, 1000)
            assert raised.value.reason == "missing", path


def test_a_build_of_the_whole_corpus(files, canary, tmp_path, monkeypatch):
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


def test_pictures_of_several_sizes_are_rejected(contents):
    settings = MediaSettings(size_px=None, pictures=2)
    for letterbox in (False, True):
        settings = MediaSettings(size_px=None, pictures=2, cut_letterbox=letterbox)
        outcome = read_clip(contents["several-sizes"], clip_of("x"), settings)
        assert isinstance(outcome, Rejection)
        assert (outcome.reason, outcome.detail) == ("undecodable", "frames of several sizes")
