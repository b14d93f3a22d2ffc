"""What does a build cost over bare decoding, on one core?

Sixty generated clips (640x360, 10 s, H.264 with a key frame each 125 frames, AAC 44.1 kHz) go, in
turn and on the same core, through a bare loop (PyAV, one pass, frame to JPEG and sound to 16 kHz
WAV in memory; no check, no measure, no tar, no isolated process, no Ray) and through the build of
their shard, for one picture and for ten. The decoder's process, which lives as long as a worker
does, is started beforehand, and its start is reported apart.

The bare loop runs twice, each time in a process of its own: with the allocator settings of the
decoder's process, which make it faster and are what the build is compared with, and with glibc's
defaults.

    python benchmarks/build_speed.py --clips FOLDER
"""

import argparse
import dataclasses
import io
import json
import os
import tempfile
import time
import wave
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from unittest.mock import patch

import av
import numpy as np
import simplejpeg
from av.audio.fifo import AudioFifo
from av.audio.resampler import AudioResampler
from av.video.reformatter import VideoReformatter
from clips import make_clips

from data_prep import catalog
from data_prep.media.isolated_decoder import ENVIRONMENT, Decoder
from data_prep.media.sample import MediaSettings
from data_prep.shards import build, plan
from data_prep.shards.plan import BuildSettings, PlannedShard

SIZE_PX, RATE_HZ, QUALITY = 256, 16000, MediaSettings().jpeg_quality
BLOCK_SAMPLES = 1 << 17  # resampled at a time, which is fastest
PEER_MS = 2640.0
"""video2dataset 1.3.0 for one clip on one core (256 px, first frame, sound), on a like machine."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--clips", type=Path, help="folder for the generated clips, to keep them")
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        paths = make_clips(options.clips or Path(scratch) / "clips", options.count)
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        report = {f"{n}_pictures": _compare(paths, n, options.rounds) for n in (1, 10)}
    print(json.dumps({"clips": len(paths), "core": 1} | report))


def _compare(paths: list[Path], pictures: int, rounds: int) -> dict[str, float]:
    """Medians over rounds in which both take their turn; the ratio is taken within each round."""
    settings = BuildSettings(media=MediaSettings(size_px=SIZE_PX, pictures=pictures), shards=1)
    (shard,) = plan.plan(catalog.read_folder(str(paths[0].parent)).clips, 1)
    bare_ms, default_ms, build_ms = [], [], []
    with (
        Decoder(settings.media) as decoder,
        _process(ENVIRONMENT) as tuned,
        _process({}) as default,
    ):
        started = time.perf_counter()
        _build(dataclasses.replace(shard, clips=shard.clips[:1]), settings, decoder)
        start_s = time.perf_counter() - started
        for _ in range(rounds):
            default_ms.append(default.submit(_bare_ms, paths, pictures).result())
            bare_ms.append(tuned.submit(_bare_ms, paths, pictures).result())
            build_ms.append(_ms_per_clip(lambda: _build(shard, settings, decoder), len(paths)))
    return {
        "start_s": round(start_s, 2),
        "bare_ms": round(median(bare_ms), 2),
        "bare_default_allocator_ms": round(median(default_ms), 2),
        "build_ms": round(median(build_ms), 2),
        "build_rate_over_bare": _rate(bare_ms, build_ms),
        "build_rate_over_bare_default_allocator": _rate(default_ms, build_ms),
        "times_video2dataset": round(PEER_MS / median(build_ms), 1),
    }


def _process(environment: Mapping[str, str]) -> ProcessPoolExecutor:
    """A started process for the bare loop: an allocator is set up before the first allocation."""
    process = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
    with patch.dict(os.environ, environment):
        process.submit(os.getpid).result()
    return process


def _rate(bare_ms: list[float], build_ms: list[float]) -> float:
    return round(median(bare / whole for bare, whole in zip(bare_ms, build_ms, strict=True)), 3)


def _bare_ms(paths: list[Path], pictures: int) -> float:
    return _ms_per_clip(lambda: _bare_loop(paths, pictures), len(paths))


def _ms_per_clip(work: Callable[[], None], clips: int) -> float:
    started = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - started) / clips


def _build(shard: PlannedShard, settings: BuildSettings, decoder: Decoder) -> None:
    with tempfile.TemporaryDirectory() as out:
        record = build.build_shard(shard, settings, out, decoder)
    assert record.entry is not None
    assert record.entry.clips == len(shard.clips)


def _bare_loop(paths: list[Path], pictures: int) -> None:
    for path in paths:
        jpegs, wav = _decode(path.read_bytes(), pictures)
        assert len(jpegs) == pictures
        assert wav


def _decode(content: bytes, pictures: int) -> tuple[list[bytes], bytes]:
    with av.open(io.BytesIO(content)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        video.thread_count = 1
        packets = [p for p in container.demux(video, audio) if p.size]
        sound = _sound([p for p in packets if p.stream is audio])
        jpegs = _pictures([p for p in packets if p.stream is video], pictures)
    stream = io.BytesIO()
    pcm = np.clip(np.rint(sound * 32768), -32768, 32767).astype(np.int16)
    with wave.open(stream, "wb") as file:
        file.setparams((1, 2, RATE_HZ, len(pcm), "NONE", ""))
        file.writeframes(pcm)
    return jpegs, stream.getvalue()


def _pictures(packets: list[av.Packet], pictures: int) -> list[bytes]:
    """The frames at the middles of equal parts, decoded from the key frame before the first."""
    context, scaler = packets[0].stream.codec_context, VideoReformatter()
    shown = sorted(p.pts for p in packets)
    wanted = {shown[round((n + 0.5) * len(shown) / pictures)] for n in range(pictures)}
    keys = [n for n, p in enumerate(packets) if p.is_keyframe and p.pts <= min(wanted)]
    last = max(n for n, p in enumerate(packets) if p.pts in wanted)
    jpegs: list[bytes] = []
    for packet in [*packets[keys[-1] : last + 1], None]:
        context.skip_frame = "DEFAULT" if packet is None or packet.pts in wanted else "NONREF"
        for frame in context.decode(packet):
            if frame.pts in wanted:
                jpegs.append(_jpeg(frame, scaler))
    return jpegs


def _jpeg(frame: av.VideoFrame, scaler: VideoReformatter) -> bytes:
    width = round(frame.width * SIZE_PX / frame.height)
    scaled = scaler.reformat(frame, width, SIZE_PX, "rgb24", interpolation="BICUBIC")
    return simplejpeg.encode_jpeg(scaled.to_ndarray(), quality=QUALITY, colorsubsampling="444")


def _sound(packets: list[av.Packet]) -> np.ndarray:
    context, joined = packets[0].stream.codec_context, AudioFifo()
    resampler = AudioResampler(format="flt", layout="mono", rate=RATE_HZ)
    resampled: list[av.AudioFrame] = []
    for packet in [*packets, None]:
        for frame in context.decode(packet):
            frame.pts = None
            joined.write(frame)
        if joined.samples >= BLOCK_SAMPLES or (packet is None and joined.samples):
            resampled += resampler.resample(_mono(joined.read(), context.sample_rate))
    resampled += resampler.resample(None)
    return np.concatenate([frame.to_ndarray().reshape(-1) for frame in resampled])


def _mono(stereo: av.AudioFrame, rate_hz: int) -> av.AudioFrame:
    """The mean of both channels, before they are resampled: it halves what has to be."""
    mean = stereo.to_ndarray().mean(axis=0, keepdims=True)
    mono = av.AudioFrame.from_ndarray(mean, format="fltp", layout="mono")
    mono.sample_rate = rate_hz
    return mono


if __name__ == "__main__":
    main()
