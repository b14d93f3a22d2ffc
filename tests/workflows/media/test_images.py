"""Picture files: what is read and rejected, and that orientation and colours are kept."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from workflows.media import images


def saved(image: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


@pytest.fixture
def rgb() -> np.ndarray:
    ramp = np.linspace(0, 255, 24 * 16 * 3).reshape(24, 16, 3)
    return ramp.astype(np.uint8)


def test_png_keeps_every_bit(rgb):
    assert np.array_equal(images.decode(images.encode(rgb, ".PNG"), "a"), rgb)


def test_jpeg_keeps_chroma_at_full_resolution():
    stripes = np.zeros((16, 16, 3), np.uint8)
    stripes[:, ::2] = (200, 60, 60)
    stripes[:, 1::2] = (60, 60, 200)
    back = images.decode(images.encode(stripes, ".jpg"), "a").astype(int)
    assert np.abs(back - stripes).mean() < 4


def test_exif_rotation_is_applied(rgb):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to see it upright
    upright = images.decode(saved(Image.fromarray(rgb), "PNG", exif=exif), "a")
    assert np.array_equal(upright, np.rot90(rgb, -1))


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "LA", "1"])
def test_every_mode_becomes_rgb(rgb, mode):
    decoded = images.decode(saved(Image.fromarray(rgb).convert(mode), "PNG"), "a")
    assert decoded.shape == rgb.shape
    assert decoded.dtype == np.uint8


def test_sixteen_bit_grey_is_scaled():
    deep = np.array([[0, 257 * 100], [65535, 257 * 7]], np.uint16)
    decoded = images.decode(saved(Image.fromarray(deep), "PNG"), "a")
    assert decoded[..., 0].tolist() == [[0, 100], [255, 7]]


def test_other_files_are_rejected():
    for content in (b"", b"not a picture", b"<svg></svg>", b"P6 1 1 255 abc"):
        with pytest.raises(ValueError, match=r"'holiday\.png' is not a PNG, JPEG"):
            images.decode(content, "holiday.png")


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_damaged_picture_is_rejected(kind):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    content = saved(Image.fromarray(noise), kind)
    with pytest.raises(ValueError, match=r"'a' is"):
        images.decode(content[: len(content) // 2], "a")


@pytest.mark.parametrize("side", [9_000, 60_000])
def test_a_decompression_bomb_is_rejected_before_it_is_decoded(side):
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk
    png += struct.pack(">I", zlib.crc32(chunk))
    data = b"IDAT" + zlib.compress(bytes(100))
    png += struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))
    with pytest.raises(ValueError, match=r"million|is not a PNG"):
        images.decode(png, "bomb.png")


def profile(name: str) -> bytes:
    import pyvips

    return pyvips.Image.profile_load(name)


def noise(*shape: int, dtype=np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype)


def smooth(dtype=np.uint8) -> np.ndarray:
    """A picture of many colours inside the sRGB gamut."""
    top = np.iinfo(dtype).max
    rows, columns = np.mgrid[0.35:0.65:24j, 0.4:0.7:32j]
    return (np.stack([rows, columns, 1 - rows], -1) * top).round().astype(dtype)


@pytest.mark.parametrize("suffix", images.SUFFIXES)
def test_every_format_is_written_and_read(suffix):
    content = images.encode(smooth(), suffix.upper())
    with Image.open(io.BytesIO(content)) as image:
        kinds = {"jpg": "JPEG", "jpeg": "JPEG", "jfif": "JPEG", "tif": "TIFF", "tiff": "TIFF"}
        assert image.format == kinds.get(suffix[1:], suffix[1:].upper())
    back = images.decode(content, "a").astype(int)
    assert np.abs(back - smooth()).max() <= (0 if suffix in (".png", ".tif", ".tiff") else 8)
    assert images.encode(smooth(), suffix) == content


def test_heic_that_cannot_be_decoded_is_not_called_damaged():
    content = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64)
    with pytest.raises(ValueError, match=r"'a\.heic' is damaged, or of a kind \(HEIC\)"):
        images.read(content, "a.heic")


@pytest.mark.parametrize("kind", ["BMP", "GIF", "AVIF"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P"])
def test_other_formats_are_read(kind, mode):
    options = {"AVIF": {"quality": 100, "subsampling": "4:4:4"}}.get(kind, {})
    image = Image.fromarray(smooth()).convert(mode)
    content = saved(image, kind, **options)
    picture = images.read(content, f"a.{kind.lower()}")
    with Image.open(io.BytesIO(content)) as expected:
        values = np.asarray(expected.convert("RGB")).astype(int)
    assert np.abs(picture.rgb.astype(int) - values).max() <= (4 if kind == "AVIF" else 0)
    back = images.read(images.write(picture.rgb, picture, "a.png"), "a.png")
    assert np.array_equal(back.rgb, picture.rgb)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_stay_sixteen_where_the_format_has_them(suffix):
    deep = noise(24, 32, 3, dtype=np.uint16)
    picture = images.read(images.encode(deep, suffix), "a")
    assert picture.bits == 8  # pixels alone belong to no file
    source = images.Picture(rgb=deep, bits=16)
    picture = images.read(images.write(deep, source, f"a{suffix}"), "a")
    assert picture.bits == 16
    assert np.array_equal(picture.rgb, deep)
    shallow = images.read(images.write(picture.rgb, picture, "a.jpg"), "a")
    assert shallow.rgb.dtype == np.uint8
    assert images.dropped(picture, ".jpg") == ["16 bits reduced to 8"]
    assert images.dropped(picture, suffix) == []


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_transparency_is_kept(bits, suffix):
    kind = np.uint16 if bits == 16 else np.uint8
    alpha = noise(24, 32, dtype=kind)
    source = images.Picture(rgb=smooth(kind), alpha=alpha, bits=bits)
    back = images.read(images.write(source.rgb, source, f"a{suffix}"), "a")
    assert back.alpha is not None
    if suffix == ".webp" and bits == 16:
        alpha = (alpha / 257).round()
    assert np.array_equal(back.alpha, alpha)
    assert images.read(images.write(source.rgb, source, "a.jpg"), "a").alpha is None
    assert "transparency lost in JPEG" in images.dropped(source, ".JPG")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_exif_and_xmp_are_kept_and_the_orientation_is_upright(rgb, kind, suffix):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Camera"
    exif.get_ifd(0x8769)[0x9003] = "1999:12:31 23:59:59"
    exif.get_ifd(0x8825)[1] = "N"
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="6" b="c"/></x:xmpmeta>'
    extra = {"xmp": xmp}
    if kind == "PNG":
        from PIL.PngImagePlugin import PngInfo

        extra = {"pnginfo": PngInfo()}
        extra["pnginfo"].add_itxt("XML:com.adobe.xmp", xmp.decode())
    picture = images.read(saved(Image.fromarray(rgb), kind, exif=exif, **extra), "a")
    assert picture.rgb.shape == (16, 24, 3)
    with Image.open(io.BytesIO(images.write(picture.rgb, picture, f"a{suffix}"))) as image:
        found = image.getexif()
        assert image.size == (24, 16)
        assert found[0x0112] == 1
        assert found[0x010F] == "Camera"
        assert found.get_ifd(0x8769)[0x9003] == "1999:12:31 23:59:59"
        assert found.get_ifd(0x8825)[1] == "N"
        assert 'tiff:Orientation="1" b="c"' in str(image.info)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_wide_gamut_is_converted_to_srgb_and_back(dtype):
    import pyvips

    source = images.Picture(rgb=smooth(), profile=profile("p3"), bits=8)
    kind = "srgb" if dtype == np.uint8 else "rgb16"
    image = pyvips.Image.new_from_array(smooth(dtype)).copy(interpretation=kind)
    image.set_type(pyvips.GValue.blob_type, "icc-profile-data", profile("p3"))
    picture = images.read(image.pngsave_buffer(), "a")
    assert picture.rgb.dtype == np.uint16
    assert np.abs(picture.rgb / 257.0 - smooth()).max() > 5  # the same numbers, other colours
    content = images.write(picture.rgb, picture, "a.png")
    back = pyvips.Image.new_from_buffer(content, "")
    assert back.get("icc-profile-data") == source.profile
    step = 1 if dtype == np.uint8 else 100
    assert np.abs(back.numpy().astype(int) - smooth(dtype)).max() <= step
    eight = images.decode(content, "a")
    assert np.abs(eight - picture.rgb / 257.0).max() <= 1.5


def test_srgb_profiles_of_any_name_are_kept():
    from PIL import ImageCms

    named = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    content = saved(Image.fromarray(smooth()), "PNG", icc_profile=named)
    picture = images.read(content, "a")
    assert picture.is_srgb
    assert np.array_equal(picture.rgb, smooth())
    with Image.open(io.BytesIO(images.write(picture.rgb, picture, "a.jpg"))) as image:
        assert image.info["icc_profile"] == named
    plain = images.read(saved(Image.fromarray(smooth()), "PNG"), "a")
    with Image.open(io.BytesIO(images.write(plain.rgb, plain, "a.png"))) as image:
        assert "icc_profile" not in image.info


def test_cmyk_becomes_srgb_with_a_profile():
    cmyk = Image.fromarray(smooth()).convert("CMYK")
    picture = images.read(saved(cmyk, "JPEG"), "a")
    assert picture.rgb.shape == (24, 32, 3)
    assert np.corrcoef(picture.rgb.ravel(), smooth().ravel())[0, 1] > 0.7
    with Image.open(io.BytesIO(images.write(picture.rgb, picture, "a.tif"))) as image:
        assert image.mode == "RGB"
        assert image.info["icc_profile"] == profile("srgb")


def test_a_profile_for_other_channels_is_rejected():
    cmyk = Image.new("CMYK", (20, 20), (10, 20, 30, 40))
    file = io.BytesIO()
    cmyk.save(
        file, "JPEG", icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    )
    with pytest.raises(ValueError, match="a colour profile for other channels"):
        images.read(file.getvalue(), "a.jpg")


def test_a_picture_too_large_for_its_format_is_rejected():
    wide = np.zeros((2, 17_000, 3), np.uint8)
    with pytest.raises(ValueError, match=r"cannot write 'out/wide\.webp': .*use \.png or \.tif"):
        images.write(wide, images.Picture(rgb=wide), "out/wide.webp")


def test_a_damaged_profile_is_rejected():
    content = saved(Image.fromarray(smooth()), "JPEG", icc_profile=b"nonsense" * 40)
    with pytest.raises(ValueError, match=r"'a' has a damaged colour profile"):
        images.read(content, "a")


def test_only_the_first_page_is_read_and_a_note_says_so():
    pages = [Image.fromarray(smooth()), Image.fromarray(255 - smooth())]
    content = saved(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    picture = images.read(content, "a")
    assert np.array_equal(picture.rgb, smooth())
    assert images.dropped(picture, ".tif") == ["only the first of 2 pages"]


def test_other_pixel_types_are_rejected():
    content = saved(Image.fromarray(np.zeros((8, 8), np.float32)), "TIFF")
    with pytest.raises(ValueError, match=r"'a' has pixels of kind .*float"):
        images.read(content, "a")
