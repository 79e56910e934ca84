"""Label maps: ids are what files say, whatever they would look like."""

import io

import numpy as np
import pytest
from PIL import Image

from vit_jax.data.fields.kind import IGNORE
from vit_jax.data.images.decode import decode
from vit_jax.data.images.label_maps import decode_labels, encode_labels
from vit_jax.data.images.overlays import boxed, caption, colours, drawn, overlaid
from vit_jax.errors import DataError

IDS = np.random.default_rng(0).integers(0, 200, (7, 9)).astype(np.uint8)


def saved(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def with_palette(ids):
    image = Image.fromarray(ids).convert("P")
    image.putpalette(np.random.default_rng(1).integers(0, 256, 768, np.uint8).tobytes())
    return image


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_values_are_kept_and_not_colours(kind):
    for image in (Image.fromarray(IDS), with_palette(IDS)):
        ids = decode_labels(saved(image, kind))
        assert ids.dtype == np.int32
        np.testing.assert_array_equal(ids, IDS)


def test_a_palette_of_few_colours_keeps_its_indices():
    few = IDS % 4
    image = with_palette(few)
    data = saved(image, bits=2)
    assert data[24] == 2
    np.testing.assert_array_equal(decode_labels(data), few)
    np.testing.assert_array_equal(
        decode_labels(saved(image, transparency=1)), few
    )  # which is no colour either
    np.testing.assert_array_equal(decode_labels(saved(Image.fromarray(few > 1))), few > 1)


def test_sixteen_bits_are_kept():
    ids = IDS.astype(np.uint16) * 300 + 7
    for kind in ("PNG", "TIFF"):
        np.testing.assert_array_equal(decode_labels(saved(Image.fromarray(ids), kind)), ids)
    np.testing.assert_array_equal(decode_labels(encode_labels(ids)), ids)
    assert decode(saved(Image.fromarray(ids)), 1).max() < 256  # as an image they would be gone


@pytest.mark.parametrize("alpha", [False, True])
def test_three_channels_are_one_id(alpha):
    ids = np.random.default_rng(2).integers(0, 2**24, (5, 6))
    channels = [ids % 256, ids // 256 % 256, ids // 65536] + [np.full_like(ids, 255)] * alpha
    image = Image.fromarray(np.stack(channels, -1).astype(np.uint8))
    np.testing.assert_array_equal(decode_labels(saved(image)), ids)


def test_it_is_turned_as_an_image_is():
    exif = Image.Exif()
    for orientation in range(1, 9):
        exif[0x0112] = orientation
        data = saved(Image.fromarray(IDS), "TIFF" if orientation % 2 else "PNG", exif=exif)
        np.testing.assert_array_equal(decode_labels(data), decode(data, 1)[..., 0])


@pytest.mark.parametrize("kind", ["JPEG", "WebP", "GIF"])
def test_formats_that_change_values_are_refused(kind):
    with pytest.raises(
        DataError, match=f"a label map cannot be {kind}, which changes values; save it as PNG"
    ):
        decode_labels(saved(Image.fromarray(IDS), kind))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (saved(Image.fromarray(IDS))[:-30], "the PNG image is damaged"),
        (b"", "the file is empty"),
        (b"nothing", "not an image of a known format"),
        (saved(Image.fromarray(np.zeros((3, 4, 4), np.uint8))), "cannot be uint8 of 4 channels"),
    ],
)
def test_what_is_no_label_map_is_told(data, said):
    with pytest.raises(DataError, match=said):
        decode_labels(data)


def test_damage_is_always_one_line():
    random = np.random.default_rng(4)
    for kind in ("PNG", "TIFF", "BMP"):
        data = saved(with_palette(IDS), kind)
        for _ in range(200):
            damaged = bytearray(data[: random.integers(1, len(data) + 1)])
            damaged[random.integers(len(damaged))] = random.integers(256)
            try:
                assert decode_labels(bytes(damaged)).dtype == np.int32
            except DataError as error:
                assert str(error).isprintable()  # noqa: PT017


def test_too_many_pixels_are_refused():
    with pytest.raises(DataError, match="more than the 5e-05 megapixels"):
        decode_labels(saved(Image.fromarray(IDS)), 50)


def test_what_is_encoded_comes_back():
    for ids in (IDS, IDS.astype(int) * 4):
        np.testing.assert_array_equal(decode_labels(encode_labels(ids, colours(256))), ids)
    with pytest.raises(DataError, match="the id -1; ids must be from 0 to 65535"):
        encode_labels(np.array([[-1]]))


def test_overlays_show_classes_in_colours_of_their_own():
    palette = colours(150)
    assert len(np.unique(palette, axis=0)) == 150
    np.testing.assert_array_equal(colours(3), palette[:3])
    image = np.full((6, 8, 1), 100, np.uint8)
    classes = np.full((6, 8), IGNORE)
    classes[:, :4] = 1
    drawn = overlaid(image, classes)
    assert (drawn[:, 4:] == 100).all()
    assert np.abs(drawn[0, 0].astype(int) - (0.45 * 100 + 0.55 * palette[1])).max() < 1
    framed = boxed(image, np.array([[1, 1, 5, 4], [0, 0, 0, 0]]), np.array([2, IGNORE]))
    assert (framed[1, 1:5] == palette[2]).all()
    assert (framed[2, 2:4] == 100).all()
    assert (framed[0] == 100).all()


def test_a_record_is_drawn_and_told_by_what_it_has():
    image, classes = np.full((6, 8, 3), 100, np.uint8), np.zeros((6, 8), int)
    boxes = np.array([[1, 1, 5, 4]])
    assert drawn({"image": image, "label": np.int32(1)}) is image
    np.testing.assert_array_equal(drawn({"image": image, "segmentation": classes}), overlaid(image, classes))
    both = drawn({"image": image.astype(np.float32), "segmentation": classes, "boxes": boxes})
    np.testing.assert_array_equal(both, boxed(overlaid(image, classes), boxes))
    names = ("a", "b", "c")
    assert caption({"label": np.int32(2)}, names) == "c"
    assert caption({"labels": np.array([1, np.nan, 1])}, names) == "a, c"
    assert caption({"value": np.array([0.5, 12345.678])}, ()) == "0.5, 12345.7"
    assert caption({"segmentation": np.array([[1, IGNORE], [1, 0]])}, names) == "a, b"
    assert caption({"classes": np.array([2, IGNORE]), "id": np.int32(3)}, names) == "c"
    assert caption({"depth": np.zeros((2, 2)), "id": np.int32(3)}, ()) == "record 3"


def test_ids_beyond_the_palette_stay():
    ids = np.array([[0, 1, 255]])
    np.testing.assert_array_equal(decode_labels(encode_labels(ids, np.zeros((2, 3), np.uint8))), ids)
