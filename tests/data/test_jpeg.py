"""JPEG decoding: whole, in part and reduced; what libjpeg warns of."""

import io

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from vit_jax.data.images.decode import decode
from vit_jax.data.images.jpeg import decode_jpeg, read_header
from vit_jax.errors import DataError


def photograph(height, width, channels=3, seed=0):
    """Smooth shapes and some noise, so that files have the size and statistics of photographs."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (-(-height // 16), -(-width // 16), channels), np.uint8)
    image = np.asarray(Image.fromarray(small.squeeze()).resize((width, height), Image.Resampling.BICUBIC))
    noisy = image + rng.normal(0, 4, image.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)


def jpeg(image, **options):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", **{"quality": 90} | options)
    return buffer.getvalue()


KINDS = {
    "420": {"subsampling": "4:2:0"},
    "422": {"subsampling": "4:2:2"},
    "444": {"subsampling": "4:4:4"},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_rows": 1},
    "grey": {},
    "440": {},
    "411": {},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(200, 130), (333, 97), (64, 64)])
def test_rows_above_the_end_of_a_crop_are_those_of_the_whole(kind, size):
    image = photograph(size[0], size[1], 1 if kind == "grey" else 3)
    if kind in ("440", "411"):  # Pillow writes none
        data = simplejpeg.encode_jpeg(image, colorsubsampling=kind)
    else:
        data = jpeg(image, **KINDS[kind])
    header = read_header(data)
    whole = decode_jpeg(data, header)
    np.testing.assert_array_equal(whole, np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
    saved = 0
    for bottom in (*range(1, 34), 100, size[0]):
        if bottom <= size[0]:
            part = decode_jpeg(data, header, bottom)
            assert len(part) >= bottom
            np.testing.assert_array_equal(part[:bottom], whole[:bottom])
            saved += len(part) < len(whole)
    assert bool(saved) == (kind != "progressive")


@pytest.mark.parametrize("reduction", [2, 4, 8])
def test_reduced_rows_too(reduction):
    data = jpeg(photograph(333, 250))
    header = read_header(data)
    whole = decode_jpeg(data, header, None, reduction)
    assert whole.shape == (-(-333 // reduction), -(-250 // reduction), 3)
    for bottom in (1, 40, 97, 200):
        part = decode_jpeg(data, header, bottom, reduction)
        rows = bottom // reduction
        assert len(part) < len(whole)
        np.testing.assert_array_equal(part[:rows], whole[:rows])
    # What the transform domain leaves out is what averaging leaves out.
    mean = np.asarray(Image.fromarray(decode_jpeg(data, header)).reduce(reduction)).astype(int)
    assert np.abs(whole - mean).mean() < 2


def test_grey_files():
    image = photograph(90, 70, 1)
    data = jpeg(image)
    header = read_header(data)
    assert header.components == 1
    found = decode_jpeg(data, header, 20)
    reference = np.asarray(Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(found[:20], np.repeat(reference[:20, :, None], 3, axis=-1))


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("big_endian", [False, True])
def test_orientation(orientation, big_endian):
    image = photograph(40, 60)
    exif = Image.Exif()
    exif.endian = ">" if big_endian else "<"
    exif[0x010F] = "a maker"
    exif[0x0112] = orientation
    data = jpeg(image, exif=exif)
    plain = decode(jpeg(image))
    turned = {2: plain[:, ::-1], 3: plain[::-1, ::-1], 4: plain[::-1], 5: plain.transpose(1, 0, 2)}
    turned |= {6: np.rot90(plain, -1), 7: np.rot90(plain, 2).transpose(1, 0, 2), 8: np.rot90(plain)}
    assert read_header(data).orientation == (orientation if 0 < orientation < 9 else 1)
    np.testing.assert_array_equal(decode(data), turned.get(orientation, plain))


def test_a_broken_orientation_is_none():
    data = jpeg(photograph(40, 60), exif=b"Exif\0\0MM\0\x2a\0\0\0\x08\xff\xff\x01\x12")
    assert read_header(data).orientation == 1


def test_files_that_end_early_are_errors_wherever_they_end():
    data = jpeg(photograph(300, 200))
    header = read_header(data)
    for share in (0.1, 0.5, 0.9):
        cut = data[: header.scan + int(share * (len(data) - header.scan))]
        for damaged in (cut, cut + b"\xff\xd9"):
            with pytest.raises(DataError, match="the JPEG image is damaged"):
                decode(damaged)
    with pytest.raises(DataError, match="premature end"):
        decode_jpeg(data[: header.scan + 400] + b"\xff\xd9", header, 200)


def test_damage_below_a_crop_is_not_seen():
    data = jpeg(photograph(300, 200))
    header = read_header(data)
    whole = decode_jpeg(data, header)
    place = header.scan + (len(data) - header.scan) * 3 // 4
    for damaged in (data[:place] + b"\xff\xd9", data[:place] + bytes(50) + data[place + 600 :]):
        np.testing.assert_array_equal(decode_jpeg(damaged, header, 150)[:150], whole[:150])
    with pytest.raises(DataError, match="premature end"):
        decode_jpeg(data[:place] + b"\xff\xd9", header)


@pytest.mark.parametrize("kind", KINDS)
def test_whole_and_part_agree_on_damaged_files(kind):
    """Whatever libjpeg makes of a flipped bit: where both are decoded, the rows are the same."""
    image = photograph(120, 90, 1 if kind == "grey" else 3)
    data = simplejpeg.encode_jpeg(image, colorsubsampling=kind) if kind in ("440", "411") else None
    data = data or jpeg(image, **KINDS[kind])
    header = read_header(data)
    rng = np.random.default_rng(0)
    both = 0
    for _ in range(150):
        damaged = bytearray(data)
        damaged[rng.integers(header.scan, len(data) - 2)] ^= 1 << rng.integers(8)
        bottom = int(rng.integers(1, 110))
        try:
            whole, part = (decode_jpeg(bytes(damaged), header, rows) for rows in (None, bottom))
        except DataError:
            continue
        both += 1
        np.testing.assert_array_equal(part[:bottom], whole[:bottom])
    assert both > 20


@pytest.mark.parametrize("bottom", [None, 50])
def test_damage_behind_a_harmless_warning_is_found(bottom):
    data = jpeg(photograph(100, 80))
    version = data.index(b"JFIF") + 5
    future = data[:version] + b"\7" + data[version + 1 :]
    header = read_header(future)
    np.testing.assert_array_equal(decode_jpeg(future, header, bottom)[:50], decode(data)[:50])
    with pytest.raises(DataError, match="premature end"):
        decode_jpeg(future[: header.scan + 300] + b"\xff\xd9", header, bottom)


def test_bytes_between_segments_harm_nothing():
    data = jpeg(photograph(100, 80))
    padded = data[:-2] + bytes(100) + b"\xff\xd9"
    np.testing.assert_array_equal(decode(padded), decode(data))


def test_endless_progressive_files_are_refused():
    data = jpeg(photograph(64, 64), progressive=True)
    scan = b"\xff\xda\0\x08\1\1\0\0\x3f\0"
    bomb = bytearray(data[:-2] + scan * 200 + b"\xff\xd9")
    frame = read_header(data).frame
    bomb[frame + 5 : frame + 9] = b"\x1f\x40\x1f\x40"
    with pytest.raises(DataError, match=r"8000x8000 pixels in \d+ bytes; above 12 megapixels every 100 need"):
        decode(bytes(bomb))
    bomb[frame + 5 : frame + 9] = b"\x07\xd0\x07\xd0"
    with pytest.raises(DataError, match=r"2000x2000 pixels 2\d\d times"):
        decode(bytes(bomb))


def test_baseline_files_too_small_for_their_pixels_are_refused():
    data = jpeg(np.full((2000, 2000), 128, np.uint8), quality=1, optimize=True)  # two bits a block
    assert decode(data).shape == (2000, 2000, 3)
    frame = read_header(data).frame
    with pytest.raises(DataError, match="bytes cannot have 4000x4000 pixels"):
        decode(data[: frame + 5] + b"\x0f\xa0\x0f\xa0" + data[frame + 9 :])
