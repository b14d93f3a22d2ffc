"""The one kind of WAV file that shards hold: 16 bit, mono, samples right behind the header.

So training can read a window of the samples alone, a fifth of the bytes of ten seconds.
"""

import struct

_HEADER = struct.Struct("<4s4x8sIHHIIHH4sI")
_KIND = [b"RIFF", b"WAVEfmt ", 16, 1, 1, 16, b"data"]  # 16 bytes of format: PCM, one channel


def samples_within(offset: int, size: int) -> tuple[int, int]:
    """(offset, size) of the samples in a tar, from those of the WAV file that holds them."""
    return offset + _HEADER.size, size - _HEADER.size


def check_wav(content: bytes, sample_rate_hz: int) -> None:
    """Refuse what shards do not hold.

    Raises:
        ValueError: it is something else.
    """
    if len(content) > _HEADER.size:
        *kind, rate, _, _, bits, data, size = _HEADER.unpack_from(content)
        whole = _HEADER.size + size == len(content)
        if [*kind, bits, data, rate] == [*_KIND, sample_rate_hz] and whole:
            return
    raise ValueError(f"a sound that is not 16-bit mono WAV of {sample_rate_hz} Hz")
