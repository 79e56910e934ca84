"""Image formats: what every kind decodes to, and what is said of files that do not."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from vit_jax.data.images.decode import decode, load_image, read_bytes, to_channels
from vit_jax.errors import ConfigError, DataError, VitError

H, W = 6, 9
RNG = np.random.default_rng(0)
# Smooth, so that lossy formats stay close, and different from every turned version of itself.
RGB = np.stack(
    np.broadcast_arrays(np.linspace(20, 220, W), np.linspace(10, 90, H)[:, None], 60.0), -1
).astype(np.uint8)
GREY = RGB[..., 1]
ALPHA = np.linspace(0, 255, H * W).astype(np.uint8).reshape(H, W)


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, kind, **options)
    return buffer.getvalue()


def png(pixels, depth, colour_type, *chunks, size=None):
    """Return a PNG of `(h, w, c)` values, for kinds that Pillow does not write; it may claim another size."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width = size or pixels.shape[:2]
    rows = pixels.astype(">u2" if depth == 16 else np.uint8)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", data), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def over_white(rgb, alpha):
    share = alpha[..., None] / 255
    return rgb * share + 255 * (1 - share)


def message(data, **options):
    with pytest.raises(DataError) as caught:
        decode(data, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0, "quality": 95}])
def test_jpeg_equals_pillow(options):
    data = encoded(RGB, "JPEG", **options)
    image = decode(data)
    assert image.dtype == np.uint8
    assert image.shape == (H, W, 3)
    assert np.array_equal(image, np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize(
    ("image", "kind", "options"),
    [
        (RGB, "PNG", {}),
        (RGB, "BMP", {}),
        (RGB, "WEBP", {"lossless": True}),
        (Image.fromarray(RGB).quantize(64), "PNG", {}),
        (Image.fromarray(RGB).quantize(64), "GIF", {}),
        (Image.fromarray(RGB).quantize(64), "BMP", {}),
        (GREY, "PNG", {}),
        (GREY, "JPEG", {}),
        (GREY, "GIF", {}),
        (Image.fromarray(GREY).convert("1"), "PNG", {}),
    ],
)
def test_formats_equal_pillow(image, kind, options):
    data = encoded(image, kind, **options)
    assert np.array_equal(decode(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


def test_lossy_formats_stay_close():
    for kind in ("JPEG", "WEBP"):
        assert np.abs(decode(encoded(RGB, kind, quality=95)) - RGB.astype(int)).mean() < 4


def test_contents_decide_and_not_names(tmp_path):
    (tmp_path / "really_png.jpg").write_bytes(encoded(RGB, "PNG"))
    assert np.array_equal(load_image(tmp_path / "really_png.jpg"), RGB)


def test_grey_output_is_luma():
    expected = np.asarray(Image.fromarray(RGB).convert("L"))[..., None]
    assert np.array_equal(decode(encoded(RGB, "PNG"), channels=1), expected)
    assert np.array_equal(decode(encoded(GREY, "PNG"), channels=1)[..., 0], GREY)


def test_grey_input_is_repeated():
    assert np.array_equal(decode(encoded(GREY, "PNG")), np.stack([GREY] * 3, -1))


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_alpha_is_laid_over_white(kind):
    data = encoded(
        np.dstack([RGB, ALPHA]), kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {})
    )
    assert np.abs(decode(data) - over_white(RGB, ALPHA)).max() <= 1


def test_grey_with_alpha_is_laid_over_white():
    data = encoded(Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(ALPHA)]), "PNG")
    assert np.abs(decode(data) - over_white(np.stack([GREY] * 3, -1), ALPHA)).max() <= 1


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_transparent_palette_entry_is_white(kind):
    image = Image.fromarray(np.array([[0, 1], [2, 0]], np.uint8), "L").convert("P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    pixels = decode(encoded(image, kind, transparency=1))
    assert pixels.tolist() == [[[10, 20, 30], [255, 255, 255]], [[70, 80, 90], [10, 20, 30]]]


def test_transparent_colour_is_white():
    pixels = np.array([[[1, 2, 3], [4, 5, 6]]])
    data = png(pixels, 8, 2, (b"tRNS", struct.pack(">HHH", 4, 5, 6)))
    assert decode(data).tolist() == [[[1, 2, 3], [255, 255, 255]]]


@pytest.mark.parametrize(("colour_type", "channels"), [(0, 1), (2, 3)])
def test_sixteen_bits_are_scaled_and_not_clipped(colour_type, channels):
    pixels = RNG.integers(0, 65536, (H, W, channels))
    image = decode(png(pixels, 16, colour_type), channels=channels)
    assert np.array_equal(image, np.rint(pixels / 257))


@pytest.mark.parametrize(("colour_type", "channels"), [(4, 2), (6, 4)])
def test_sixteen_bits_with_alpha(colour_type, channels):
    pixels = RNG.integers(0, 65536, (H, W, channels))
    rgb = np.broadcast_to(pixels[..., :-1] / 257, (H, W, 3))
    assert np.abs(decode(png(pixels, 16, colour_type)) - over_white(rgb, pixels[..., -1] / 257)).max() <= 2


def test_sixteen_bits_with_transparent_value():
    grey = png(np.array([[[0], [200], [65535]]]), 16, 0, (b"tRNS", struct.pack(">H", 200)))
    assert decode(grey, channels=1).reshape(-1).tolist() == [0, 255, 255]
    rgb = np.array([[[0, 257, 514], [200, 300, 400]]])
    colour = png(rgb, 16, 2, (b"tRNS", struct.pack(">HHH", 200, 300, 400)))
    assert decode(colour).tolist() == [[[0, 1, 2], [255, 255, 255]]]


def test_cmyk_jpeg():
    data = encoded(Image.fromarray(RGB).convert("CMYK"), "JPEG", quality=95)
    assert np.array_equal(decode(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
    assert np.abs(decode(data) - RGB.astype(int)).mean() < 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation):
    turned = {
        1: RGB,
        2: RGB[:, ::-1],
        3: RGB[::-1, ::-1],
        4: RGB[::-1],
        5: RGB.swapaxes(0, 1),
        6: RGB[::-1].swapaxes(0, 1),
        7: RGB[::-1, ::-1].swapaxes(0, 1),
        8: RGB[:, ::-1].swapaxes(0, 1),
    }[orientation]
    tags = exif(orientation)
    assert np.array_equal(decode(encoded(RGB, "PNG", exif=tags)), turned)
    assert np.array_equal(decode(encoded(RGB, "WEBP", lossless=True, exif=tags)), turned)
    cmyk = encoded(Image.fromarray(RGB).convert("CMYK"), "JPEG", quality=95, exif=tags)
    for data in (encoded(RGB, "JPEG", quality=95, subsampling=0, exif=tags), cmyk):
        assert np.abs(decode(data) - turned.astype(int)).mean() < 4
    sixteen = png(RGB.astype(int) * 257, 16, 2, (b"eXIf", tags.tobytes().removeprefix(b"Exif\0\0")))
    assert np.array_equal(decode(sixteen), turned)


@pytest.mark.parametrize(("kind", "options"), [("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {})])
def test_first_frame_of_an_animation(kind, options):
    frames = [Image.fromarray(np.full((H, W, 3), value, np.uint8)) for value in (50, 200)]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert np.array_equal(decode(data), np.full((H, W, 3), 50))


BOMBS = {
    "PNG": png(RGB, 8, 2, size=(13000, 13000)),
    "BMP": encoded(RGB, "BMP")[:18] + struct.pack("<ii", 13000, 13000) + encoded(RGB, "BMP")[26:],
    "GIF": b"GIF89a" + struct.pack("<HH", 13000, 13000) + encoded(RGB, "GIF")[10:],
    "WebP": b"RIFF\x1e\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\xc7\x32\0\xc7\x32\0" + bytes(8),
    "lossless WebP": b"RIFF\x1e\0\0\0WEBPVP8L\x0a\0\0\0\x2f"
    + struct.pack("<I", 12999 << 14 | 12999)
    + bytes(9),
    "lossy WebP": b"RIFF\x1e\0\0\0WEBPVP8 \x0a\0\0\0"
    + bytes(6)
    + struct.pack("<HH", 13000, 13000)
    + bytes(9),
}
_JPEG = encoded(RGB, "JPEG")
_FRAME = _JPEG.index(b"\xff\xc0") + 5
BOMBS["JPEG"] = _JPEG[:_FRAME] + struct.pack(">HH", 13000, 13000) + _JPEG[_FRAME + 4 :]


@pytest.mark.parametrize("kind", BOMBS)
def test_size_is_checked_in_the_header(kind):
    assert "has 13000x13000 pixels, more than the 64 megapixels allowed" in message(BOMBS[kind])


def test_large_first_frame_of_a_small_gif():
    data = encoded(GREY, "GIF")
    frame = data.index(b",\0\0\0\0")
    grown = data[: frame + 5] + struct.pack("<HH", 60000, 60000) + data[frame + 9 :]
    assert "has 60000x60000 pixels" in message(grown)


def test_pixel_limit_can_be_set():
    data = encoded(RGB, "PNG")
    assert decode(data, max_pixels=H * W).shape == (H, W, 3)
    assert f"has {W}x{H} pixels, more than" in message(data, max_pixels=H * W - 1)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_files_that_end_early_are_refused(kind):
    data = encoded(RNG.integers(0, 256, (30, 40, 3), np.uint8), kind)
    for length in (*range(1, 60, 7), len(data) // 2, len(data) * 4 // 5):
        with pytest.raises(DataError):
            decode(data[:length])


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "the file is empty"),
        (b"<html>not found</html>", "not an image of a known format (JPEG, PNG, WebP, GIF, BMP, TIFF)"),
        (b"II*\0 a tiff", "the TIFF image is damaged ("),
        (b"8BPS\0\1", "not an image of a known format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "not an image of a known format"),
        (_JPEG[:30], "the JPEG image is damaged (it ends within the header)"),
        (_JPEG[:-2], "the JPEG image is damaged (its end is missing)"),
        (_JPEG[:2] + b"\xff\xd8\0\0" + _JPEG[4:], "the JPEG image is damaged (Could not determine"),
        (_JPEG[: _FRAME - 1] + b"\x0c" + _JPEG[_FRAME:], "has 12 bits per channel; only 8 are read"),
        (_JPEG[:_FRAME] + bytes(4) + _JPEG[_FRAME + 4 :], "the image has 0x0 pixels"),
        (png(RGB, 8, 2)[:-30], "the PNG image is damaged ("),
        (b"RIFF\0\0\0\0WEBPVP8X", "the WebP image is damaged (it ends within the header)"),
        (b"GIF89a\1\0\1\0\0\0\0", "the GIF image is damaged ("),
    ],
)
def test_damaged_files_are_told_apart(data, said):
    assert said in message(data)


def test_mutated_files_never_fail_otherwise():
    kinds = [encoded(RGB, kind) for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")]
    rng = np.random.default_rng(1)
    refused = []
    for number in range(600):
        data = bytearray(kinds[number % len(kinds)])
        for _ in range(rng.integers(1, 5)):
            data[rng.integers(len(data))] = rng.integers(256)
        try:
            assert decode(bytes(data), max_pixels=10**6).shape[-1] == 3
        except VitError as error:
            refused.append(str(error))
    assert len(refused) > 100
    assert not any("\n" in reason for reason in refused)


def test_unreadable_paths_are_named(tmp_path):
    with pytest.raises(
        DataError, match=r"none\.png cannot be read: No such file or directory; check the path"
    ):
        load_image(tmp_path / "none.png")
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        load_image(tmp_path)
    with pytest.raises(DataError, match="cannot be read"):
        read_bytes("a\0b")
    (tmp_path / "bad.jpg").write_bytes(_JPEG[:-2])
    with pytest.raises(DataError, match=r"bad\.jpg: the JPEG image is damaged \(its end is missing\)"):
        load_image(tmp_path / "bad.jpg")


def test_only_grey_and_colour_can_be_asked_for():
    with pytest.raises(ConfigError, match="decode to 1 or 3 channels, not 4"):
        decode(encoded(RGB, "PNG"), channels=4)


def test_channel_conversions():
    assert to_channels(RGB, 3) is RGB
    assert to_channels(GREY[..., None], 5).shape == (H, W, 5)
    grey = to_channels(RGB.astype(np.float32), 1)
    assert grey.dtype == np.float32
    assert np.abs(grey - to_channels(RGB, 1)).max() < 1
    with pytest.raises(DataError, match="has 4 channels, which cannot become 3"):
        to_channels(np.zeros((2, 2, 4), np.uint8), 3)
