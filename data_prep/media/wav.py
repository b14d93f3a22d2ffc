"""The WAV format of shards: 16-bit mono with the samples directly after the header.

Training can therefore read just a window of the samples: a fifth of the bytes of ten seconds.
"""

import struct

import numpy as np
from numpy.typing import NDArray

_HEADER = struct.Struct("<4sI8sIHHIIHH4sI")


def encode_wav(waveform: NDArray[np.float32], sample_rate_hz: int) -> bytes:
    """A mono waveform [t] in [-1, 1] as a 16-bit WAV file."""
    scaled = waveform * np.float32(32768.0)
    np.rint(scaled, out=scaled)
    np.clip(scaled, -32768, 32767, out=scaled)
    return _header(2 * len(scaled), sample_rate_hz) + scaled.astype("<i2").tobytes()


def samples_within(offset: int, size: int) -> tuple[int, int]:
    """(offset, size) of the samples in a tar, from those of their WAV file."""
    return offset + _HEADER.size, size - _HEADER.size


def check_wav(content: bytes, sample_rate_hz: int) -> None:
    """Checks that a file has the format of shards.

    Raises:
        ValueError: it has another.
    """
    size = len(content) - _HEADER.size
    if size > 0 and content.startswith(_header(size, sample_rate_hz)):
        return
    raise ValueError(f"a sound that is not 16-bit mono WAV of {sample_rate_hz} Hz")


def _header(size: int, sample_rate_hz: int) -> bytes:
    """The header of ``size`` bytes of samples."""
    return _HEADER.pack(
        *(b"RIFF", _HEADER.size - 8 + size),
        *(b"WAVEfmt ", 16, 1, 1),  # 16 bytes follow: PCM, one channel
        *(sample_rate_hz, 2 * sample_rate_hz, 2, 16),
        *(b"data", size),
    )
