"""Sound of clips and of sound files."""

import io

import av
import numpy as np
import pytest
import soundfile

from data_prep.media.quality import Filters, judge
from data_prep.media.sound import read_sound
from tests.data_prep.reading import read, sound_of


@pytest.mark.parametrize(
    ("layout", "rate_hz"),
    [("mono", 16000), ("mono", 44100), ("stereo", 44100), ("stereo", 48000), ("5.1", 48000)],
)
def test_sound_is_mono_at_its_level_and_pitch(make_clip, tmp_path, layout, rate_hz):
    path = make_clip(tmp_path / "a.mp4", layout=layout, sound_rate_hz=rate_hz, tone_hz=1000.0)
    sample = read(path)
    waveform = sound_of(sample)
    assert sample.sound_fate == "kept"
    assert len(waveform) / 16000 == sample.sound_s == pytest.approx(2.0, abs=0.1)
    spectrum = np.abs(np.fft.rfft(waveform[4000:20000]))
    assert np.argmax(spectrum) == 1000
    loud = 20 * np.log10(np.sqrt(np.mean(np.square(waveform[4000:28000]))))
    if layout != "5.1":  # the weight of the low-frequency channel depends on the codec
        assert loud == pytest.approx(20 * np.log10(0.3 / np.sqrt(2)), abs=0.5)
        assert sample.rms_dbfs == pytest.approx(loud, abs=0.5)
        assert sample.peak_dbfs == pytest.approx(20 * np.log10(np.abs(waveform).max()), abs=0.01)
    assert soundfile.info(io.BytesIO(sample.sound)).subtype == "PCM_16"


@pytest.mark.parametrize(
    ("sound", "fate"),
    [
        ({"tone_hz": None}, "absent"),
        ({"loudness": 0.0}, "silent"),
        ({"loudness": 0.0005}, "silent"),
        ({"sound_s": 0.2}, "too_short"),
        ({"loudness": 0.005}, "kept"),
    ],
)
def test_unusable_sound_is_left_out_with_its_reason(make_clip, tmp_path, sound, fate):
    path = make_clip(tmp_path / "a.mp4", **sound)
    sample = read(path)
    assert sample.sound_fate == fate
    assert bool(sample.sound) == (fate == "kept") == (sample.sound_s > 0)
    verdict = judge(sample, Filters(require_sound=True))
    assert verdict == (None if fate == "kept" else ("no_sound", fate))


@pytest.mark.parametrize(
    ("layout", "rate_hz"), [("stereo", 44100), ("mono", 16000), ("5.1", 48000)]
)
def test_sound_does_not_depend_on_how_much_is_resampled_at_once(
    make_clip, tmp_path, monkeypatch, layout, rate_hz
):
    path = make_clip(tmp_path / "a.mp4", layout=layout, sound_rate_hz=rate_hz)
    whole = read(path).sound
    monkeypatch.setattr("data_prep.media.sound._BLOCK_SAMPLES", 3000)
    assert read(path).sound == whole


def test_sound_after_a_gap_keeps_its_time(make_clip, tmp_path):
    """A second of packets is missing; later sound must not move forward."""
    whole, gapped = make_clip(tmp_path / "a.mp4", seconds=5.0), tmp_path / "b.mkv"
    with av.open(str(whole)) as source, av.open(str(gapped), "w") as target:
        streams = [target.add_stream_from_template(stream) for stream in source.streams]
        for packet in source.demux():
            if packet.dts is None:
                continue
            is_sound = packet.stream.type == "audio"
            if not (is_sound and 2.0 < float(packet.pts * packet.time_base) < 3.0):
                packet.stream = streams[packet.stream.index]
                target.mux(packet)
    there, found = sound_of(read(whole)), sound_of(read(gapped))
    assert len(found) == pytest.approx(len(there), abs=800)
    assert np.abs(found[34000:46000]).max() < 0.01
    first = np.flatnonzero(np.abs(found[40000:]) > 0.1)[0] + 40000
    assert first / 16000 == pytest.approx(3.0, abs=0.06)


@pytest.mark.parametrize("kind", ["wav", "flac", "ogg", "mp3"])
def test_read_sound_reads_the_usual_files(tmp_path, kind):
    times = np.arange(44100) / 44100
    wave = 0.5 * np.sin(2 * np.pi * 500 * times)
    path = tmp_path / f"a.{kind}"
    soundfile.write(path, np.stack([wave, wave], 1), 44100)
    waveform = read_sound(path, 16000)
    assert waveform.dtype == np.float32
    assert len(waveform) / 16000 == pytest.approx(1.0, abs=0.1)
    assert np.abs(waveform).max() == pytest.approx(0.5, abs=0.05)
    assert (read_sound(path.read_bytes(), 16000) == waveform).all()


def test_read_sound_of_a_clip_is_the_sound_in_the_shard(make_clip, tmp_path):
    path = make_clip(tmp_path / "a.mp4")
    assert np.abs(read_sound(path, 16000) - sound_of(read(path))).max() <= 1 / 32768


def test_read_sound_refuses_files_without_usable_sound(make_clip, tmp_path):
    (tmp_path / "words.wav").write_bytes(b"these are words" * 100)
    with pytest.raises(ValueError, match=r"words\.wav is not a readable sound file"):
        read_sound(tmp_path / "words.wav", 16000)
    mute = make_clip(tmp_path / "mute.mp4", tone_hz=None)
    with pytest.raises(ValueError, match=r"mute\.mp4 contains no sound"):
        read_sound(mute, 16000)
    with pytest.raises(FileNotFoundError):
        read_sound(tmp_path / "nowhere.wav", 16000)
    long = make_clip(tmp_path / "long.mp4", seconds=3.0)
    with pytest.raises(ValueError, match="more than 1 s"):
        read_sound(long, 16000, max_s=1.0)


def test_real_recordings(shared):
    for path in sorted((shared / "data" / "still").glob("*.wav")):
        theirs, rate = soundfile.read(path, dtype="float32", always_2d=True)
        ours = read_sound(path, 16000)
        assert len(ours) / 16000 == pytest.approx(len(theirs) / rate, abs=0.01)
        assert np.sqrt(np.mean(ours**2)) == pytest.approx(
            np.sqrt(np.mean(theirs.mean(1) ** 2)), rel=0.2
        )


def write_channels(path, channels, *, codec="pcm_s16le", layout="stereo", rate_hz=48000):
    """A sound file (or one with sound alone) with these channels, each float [t]."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate_hz, layout=layout)
        values = np.stack(channels)
        for first in range(0, values.shape[1], 1024):
            part = np.ascontiguousarray(values[:, first : first + 1024], np.float32)
            frame = av.AudioFrame.from_ndarray(part, format="fltp", layout=layout)
            frame.sample_rate, frame.pts = rate_hz, first
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


TONE = 0.3 * np.sin(2 * np.pi * 1000 * np.arange(96000) / 48000)
NONE = np.zeros(96000)


@pytest.mark.parametrize(
    ("name", "codec", "layout", "channels"),
    [
        ("a.wav", "pcm_s16le", "stereo", [TONE, -TONE]),
        ("a.wav", "pcm_s16le", "stereo", [0.5 * TONE, -0.52 * TONE]),
        ("a.wav", "pcm_u8", "stereo", [TONE, -TONE]),
        ("a.mka", "pcm_f32le", "stereo", [TONE, -TONE]),
        ("a.flac", "flac", "stereo", [TONE, -TONE]),
        ("a.mka", "pcm_s16le", "5.1", [NONE, NONE, NONE, TONE, NONE, NONE]),
        ("a.mka", "pcm_s16le", "5.1", [TONE, -TONE, NONE, NONE, NONE, NONE]),
    ],
)
def test_channels_that_cancel_each_other_are_heard(tmp_path, name, codec, layout, channels):
    path = write_channels(tmp_path / name, channels, codec=codec, layout=layout)
    waveform = read_sound(path, 16000)
    expected = max(np.sqrt(np.mean(np.square(channel))) for channel in channels)
    assert np.sqrt(np.mean(np.square(waveform[1000:-1000]))) == pytest.approx(expected, rel=0.05)
    spectrum = np.abs(np.fft.rfft(waveform[4000:20000]))
    assert np.argmax(spectrum) == 1000


@pytest.mark.parametrize("channels", [[TONE, NONE], [TONE, TONE], [TONE, -0.5 * TONE]])
def test_channels_that_do_not_cancel_are_mixed(tmp_path, channels):
    waveform = read_sound(write_channels(tmp_path / "a.wav", channels), 16000)
    mean = np.mean(channels, axis=0)
    expected = np.sqrt(np.mean(np.square(mean)))
    assert np.sqrt(np.mean(np.square(waveform[1000:-1000]))) == pytest.approx(expected, rel=0.05)
