"""In which formats should pictures and sounds lie in shards?

For real or generated clips: bytes, time to encode and decode (one core, medians), and what is lost:
mean distance in ``ab`` for pictures, mean error of the log-mel in dB for sounds.

    python benchmarks/shard_format.py --clips FOLDER
"""

import argparse
import io
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import av
import numpy as np
import simplejpeg
import soundfile
import torch
from clips import make_clips
from PIL import Image

from aiaic.audio import AudioConfig, LogMel
from aiaic.color import rgb_to_lab
from data_prep.media.sound import read_sound

RATE_HZ = 16000
Codec = tuple[Callable[[Any], bytes], Callable[[bytes], Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--clips", type=Path, help="folder of clips; generated ones if absent")
    parser.add_argument("--count", type=int, default=12)
    options = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        paths = (
            sorted(options.clips.glob("*.mp4"))
            if options.clips
            else make_clips(Path(scratch), options.count)
        )[: options.count]
        frames = [_middle(path) for path in paths]
        waves = [read_sound(path, RATE_HZ) for path in paths]
    pcm = [np.clip(np.rint(wave * 32768), -32768, 32767).astype(np.int16) for wave in waves]
    report = {
        "clips": len(paths),
        "picture_sides": sorted({frame.shape[:2] for frame in frames}),
        "pictures": {
            name: _measure(codec, frames, _ab_distance) for name, codec in pictures().items()
        },
        "sounds": {name: _measure(codec, pcm, _mel_error) for name, codec in sounds().items()},
    }
    print(json.dumps(report))


def pictures() -> dict[str, Codec]:
    """Codecs of uint8 [h w 3]."""

    def jpeg(quality: int, subsampling: str) -> Codec:
        return (
            lambda rgb: simplejpeg.encode_jpeg(
                rgb, quality=quality, colorsubsampling=subsampling, fastdct=False
            ),
            lambda content: simplejpeg.decode_jpeg(content, "RGB"),
        )

    def pillow(kind: str, **settings: Any) -> Codec:
        def encode(rgb: np.ndarray) -> bytes:
            stream = io.BytesIO()
            Image.fromarray(rgb).save(stream, kind, **settings)
            return stream.getvalue()

        return encode, lambda content: np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))

    return {
        "jpeg q90 4:2:0": jpeg(90, "420"),
        "jpeg q95 4:2:0": jpeg(95, "420"),
        "jpeg q90 4:4:4": jpeg(90, "444"),
        "jpeg q95 4:4:4": jpeg(95, "444"),
        "webp q95": pillow("webp", quality=95, method=2),
        "webp lossless": pillow("webp", lossless=True, method=0),
        "png": pillow("png", compress_level=1),
    }


def sounds() -> dict[str, Codec]:
    """Codecs of int16 [t]."""

    def file(kind: str, subtype: str) -> Codec:
        def encode(pcm: np.ndarray) -> bytes:
            stream = io.BytesIO()
            soundfile.write(stream, pcm, RATE_HZ, format=kind, subtype=subtype)
            return stream.getvalue()

        return encode, lambda content: soundfile.read(io.BytesIO(content), dtype="int16")[0]

    return {
        "flac": file("FLAC", "PCM_16"),
        "wav": file("WAV", "PCM_16"),
        "wav mu-law": file("WAV", "ULAW"),
        "wav ima-adpcm": file("WAV", "IMA_ADPCM"),
        "ogg vorbis": file("OGG", "VORBIS"),
        "ogg opus": file("OGG", "OPUS"),
        "mp3": file("MP3", "MPEG_LAYER_III"),
    }


def _middle(path: Path) -> np.ndarray:
    """A frame near the middle, its short side at 256 px."""
    with av.open(str(path)) as container:
        container.seek(container.duration // 2)
        frame = next(container.decode(video=0))
        scale = 256 / min(frame.width, frame.height)
        size = {"width": round(frame.width * scale), "height": round(frame.height * scale)}
        return frame.to_ndarray(format="rgb24", **size)


def _measure(
    codec: Codec, originals: list[Any], distance: Callable[[Any, Any], float]
) -> dict[str, float]:
    encode, decode = codec
    encode_s, decode_s, sizes, losses = [], [], [], []
    for original in originals:
        encode_s.append(_timed(lambda original=original: encode(original)))
        content = encode(original)
        decode_s.append(_timed(lambda content=content: decode(content)))
        sizes.append(len(content))
        losses.append(distance(original, decode(content)))
    return {
        "kb": round(float(np.mean(sizes)) / 1000, 1),
        "encode_ms": round(1e3 * median(encode_s), 2),
        "decode_ms": round(1e3 * median(decode_s), 3),
        "loss": round(float(np.mean(losses)), 3),
    }


def _timed(work: Callable[[], object], repeats: int = 5) -> float:
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


def _ab_distance(original: np.ndarray, decoded: np.ndarray) -> float:
    before, after = (
        rgb_to_lab(torch.from_numpy(rgb.transpose(2, 0, 1).copy()).unsqueeze(0).float() / 255)[1]
        for rgb in (original, decoded)
    )
    return float((before - after).norm(dim=1).mean())


def _mel_error(original: np.ndarray, decoded: np.ndarray) -> float:
    config = AudioConfig(sample_rate_hz=RATE_HZ)
    front = LogMel(config)
    length = min(len(original), len(decoded))
    before, after = (
        front(torch.from_numpy(pcm[None, :length].astype(np.float32) / 32768))
        for pcm in (original, decoded)
    )
    return float((before - after).abs().mean() * front.deviation_db[0])


if __name__ == "__main__":
    main()
