"""A tiny set of samples in memory: noise in two appearances, colours that follow the sound."""

import numpy as np
import simplejpeg

from aiaic.loading.loader import Samples
from aiaic.loading.sampler import SampleRef

RATE_HZ = 16_000


def tiny_samples(count: int = 16, *, size: int = 32, seed: int = 0, validation: int = 0) -> Samples:
    """``count`` training samples: the pitch of the sound determines the hue of the picture."""
    generator = np.random.default_rng(seed)
    blobs: dict[str, bytes] = {"picture": b"", "sound": b""}
    refs: list[SampleRef] = []

    def append(member: str, content: bytes) -> tuple[int, int]:
        start = len(blobs[member])
        blobs[member] += content
        return start, len(content)

    for i in range(count + validation):
        kind = i % 2
        grey = generator.integers(60, 180, (size // 4, size // 4, 1)).repeat(4, 0).repeat(4, 1)
        tint = np.array([[40, 0, -40], [-40, 0, 40]])[kind]
        picture = np.clip(grey + tint, 0, 255).astype(np.uint8)
        time_s = np.arange(RATE_HZ // 2) / RATE_HZ
        tone = 0.3 * np.sin(2 * np.pi * (400 + 1200 * kind) * time_s)
        tone += 0.01 * generator.standard_normal(len(tone))
        jpeg = simplejpeg.encode_jpeg(np.ascontiguousarray(picture), 95, colorsubsampling="444")
        refs.append(
            SampleRef(
                key=f"video{i:02d}_000000",
                youtube_id=f"video{i:02d}",
                label=str(kind),
                shard=f"shard-{i % 3}",
                pictures=(append("picture", jpeg),),
                sound=append("sound", (tone * 32767).astype("<i2").tobytes()),
            )
        )

    def read(shard: str, member: str, offset: int, size: int) -> bytes:
        return blobs[member][offset : offset + size]

    return Samples(
        train=tuple(refs[:count]),
        validation=tuple(refs[count:]),
        read=read,
        sample_rate_hz=RATE_HZ,
        manifest_digest="0" * 64,
        split="train",
    )
