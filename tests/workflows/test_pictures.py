"""Files of pictures: what is read, what is refused, and that nothing turns or fades on the way."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from workflows import pictures


def saved(image: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


@pytest.fixture
def rgb() -> np.ndarray:
    ramp = np.linspace(0, 255, 24 * 16 * 3).reshape(24, 16, 3)
    return ramp.astype(np.uint8)


def test_png_keeps_every_bit(rgb):
    assert np.array_equal(pictures.decode(pictures.encode(rgb, ".PNG"), "a"), rgb)


def test_jpeg_keeps_chroma_at_full_resolution():
    stripes = np.zeros((16, 16, 3), np.uint8)
    stripes[:, ::2] = (200, 60, 60)
    stripes[:, 1::2] = (60, 60, 200)
    back = pictures.decode(pictures.encode(stripes, ".jpg"), "a").astype(int)
    assert np.abs(back - stripes).mean() < 4


def test_exif_rotation_is_applied(rgb):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to see it upright
    upright = pictures.decode(saved(Image.fromarray(rgb), "PNG", exif=exif), "a")
    assert np.array_equal(upright, np.rot90(rgb, -1))


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "LA", "1"])
def test_every_mode_becomes_rgb(rgb, mode):
    decoded = pictures.decode(saved(Image.fromarray(rgb).convert(mode), "PNG"), "a")
    assert decoded.shape == rgb.shape
    assert decoded.dtype == np.uint8


def test_sixteen_bit_grey_is_scaled():
    deep = np.array([[0, 257 * 100], [65535, 257 * 7]], np.uint16)
    decoded = pictures.decode(saved(Image.fromarray(deep), "PNG"), "a")
    assert decoded[..., 0].tolist() == [[0, 100], [255, 7]]


def test_what_is_no_picture_is_refused():
    for content in (b"", b"not a picture", b"GIF89a" + bytes(50)):
        with pytest.raises(ValueError, match=r"'holiday\.png' is no picture"):
            pictures.decode(content, "holiday.png")


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_damaged_picture_is_refused(kind):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    content = saved(Image.fromarray(noise), kind)
    with pytest.raises(ValueError, match=r"'a' is"):
        pictures.decode(content[: len(content) // 2], "a")


@pytest.mark.parametrize("side", [9_000, 60_000])
def test_a_bomb_is_refused_before_it_is_decoded(side):
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk
    png += struct.pack(">I", zlib.crc32(chunk))
    data = b"IDAT" + zlib.compress(bytes(100))
    png += struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))
    with pytest.raises(ValueError, match=r"million|no picture"):
        pictures.decode(png, "bomb.png")
