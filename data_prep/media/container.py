"""Opening media files safely.

Files are read from memory, with demuxers that read nothing but the file itself, so that a playlist
named ``.mp4`` cannot make FFmpeg open or fetch anything else. Only the decoders listed here may
run, even while FFmpeg finds out what a file contains.
"""

import errno
import io
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

import av
from av.container import InputContainer
from av.packet import Packet

from data_prep.media.sample import RejectedError

if TYPE_CHECKING:
    AnyPacket: TypeAlias = Packet[Any]
else:  # the class takes no type parameter at run time
    AnyPacket = Packet

MATROSKA = "matroska,webm"
"""Name of the demuxer."""
VIDEO_DEMUXERS = "mov,matroska"
SOUND_DEMUXERS = VIDEO_DEMUXERS + ",wav,flac,ogg,mp3,aac,aiff"
VIDEO_CODECS = ("h264", "hevc", "vp8", "vp9", "av1", "mpeg4")
"""Video codecs that are decoded; clips with any other are rejected."""
FILM_DEMUXERS = VIDEO_DEMUXERS + ",avi,mpeg,mpegts,flv,asf"
FILM_CODECS = (
    *VIDEO_CODECS,
    *("mpeg1video", "mpeg2video", "msmpeg4v1", "msmpeg4v2", "msmpeg4v3", "h263", "flv1", "mjpeg"),
    *("wmv1", "wmv2", "wmv3", "vc1"),
)
"""Video codecs of people's films, which are decoded for coloring only."""
SOUND_CODECS = (
    *("aac", "mp3", "ac3", "opus", "vorbis", "flac", "alac", "mp2", "wmav1", "wmav2", "amr_nb"),
    *("pcm_u8", "pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s24be", "pcm_s32le", "pcm_s32be"),
    *("pcm_f32le", "pcm_f32be", "pcm_f64le", "pcm_f64be", "pcm_alaw", "pcm_mulaw"),
)
"""Sound codecs that are decoded; sound in any other counts as undecodable."""

_SOUND_DECODERS = (*SOUND_CODECS, "mp3float", "mp2float", "amrnb")
_DECODERS = ",".join((*VIDEO_CODECS, "libdav1d", *_SOUND_DECODERS))
_FILM_DECODERS = ",".join((*FILM_CODECS, "flv", "libdav1d", *_SOUND_DECODERS))
_READ_BYTES = 1 << 17  # at a time; each read is a call from FFmpeg into Python


def open_media(content: bytes | BinaryIO, demuxers: str = VIDEO_DEMUXERS) -> InputContainer:
    """Opens a media file, given as its content or as an open binary file.

    Raises:
        av.FFmpegError: none of ``demuxers`` can read it.
    """
    return av.open(
        io.BytesIO(content) if isinstance(content, bytes) else content,
        mode="r",
        container_options={
            "format_whitelist": demuxers,
            "protocol_whitelist": "file",
            "codec_whitelist": _FILM_DECODERS if demuxers == FILM_DEMUXERS else _DECODERS,
        },
        metadata_errors="replace",
        buffer_size=_READ_BYTES,
    )


def declared_length_s(container: InputContainer) -> float | None:
    """The length of a file according to its header, in seconds from its first timestamp.

    None if the header has none. Matroska declares the end on its clock, which need not start at 0.
    """
    if not container.duration:
        return None
    counted_from = (container.start_time or 0) if container.format.name == MATROSKA else 0
    return (container.duration - counted_from) / av.time_base


def read_file(path: Path, max_bytes: int) -> bytes:
    """The content of a regular file.

    The file is opened without blocking and checked afterwards: pipes and devices may never end.

    Raises:
        RejectedError: it is missing, unreadable, too large or not a regular file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise RejectedError("missing", f"{path.name} is not there") from None
    except PermissionError:
        raise RejectedError("unreadable", f"{path.name} may not be read") from None
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENXIO):  # a loop of links, a socket
            raise
        raise RejectedError("missing", f"{path.name} is no plain file") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise RejectedError("missing", f"{path.name} is no plain file")
        if status.st_size > max_bytes:
            raise RejectedError(
                "too_large", f"{status.st_size} bytes; at most {max_bytes} are read"
            )
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(status.st_size)
    finally:
        os.close(descriptor)
