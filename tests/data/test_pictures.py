"""Whatever people hand over as pictures: one of each kind, several, once; and refused in one line."""

import io
import mmap
import struct
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from vit_jax.data.images.decode import decode, from_pillow, to_channels
from vit_jax.data.sources.pictures import each, find
from vit_jax.errors import DataError

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)
GREY = COLOUR[..., 0]


def contents(images, channels=3, size=(16, 16)):
    return [given.content for given in each(images, size, channels)]


def names(images):
    return [given.name for given in each(images, (16, 16), 3)]


def encoded(image, kind="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


PNG = encoded(Image.fromarray(COLOUR))


@pytest.fixture
def file(tmp_path):
    (tmp_path / "a.png").write_bytes(PNG)
    return tmp_path / "a.png"


# --- one picture of each kind


def test_files_are_named_and_not_read(file):
    for path in (file, str(file), "nowhere.png", np.str_("a.png")):
        assert list(each(path, (16, 16), 3)) == [(str(path), Path(path))]


def test_bytes_and_open_files(file):
    for given in (PNG, bytearray(PNG), memoryview(PNG), io.BytesIO(PNG)):
        assert list(each(given, (16, 16), 3)) == [("image 0", PNG)]
    with open(file, "r+b") as opened, mmap.mmap(opened.fileno(), 0) as mapped:
        assert contents(opened) == contents(mapped) == [PNG]
    later = io.BytesIO(b"1234" + PNG)
    later.seek(4)
    assert contents(later) == [PNG]


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 12])
def test_arrays_of_the_model_s_channels(channels):
    image = RNG.integers(0, 256, (6, 8, channels), dtype=np.uint8)
    (found,) = contents(image, channels)
    assert found is image
    for several in (image[None], [image], (image for _ in range(1)), np.stack([image] * 3)):
        for found in contents(several, channels):
            np.testing.assert_array_equal(found, image)
    assert len(contents(np.stack([image] * 3), channels)) == 3
    assert contents(np.zeros((0, 6, 8, channels), np.uint8), channels) == []


@pytest.mark.parametrize("channels", [1, 3])
def test_grey_arrays(channels):
    (found,) = contents(GREY, channels)
    np.testing.assert_array_equal(found, GREY[..., None])
    # Several, where nothing else can be meant: of the model's size, or square.
    for shape, size in (((5, 6, 8), (6, 8)), ((5, 28, 28), (16, 16)), ((1, 6, 8), (6, 8))):
        several = RNG.integers(0, 256, shape, dtype=np.uint8)
        found = contents(several, channels, size)
        np.testing.assert_array_equal(np.stack(found)[..., 0], several)
    assert len(contents(np.zeros((3, 28, 28), np.uint8), 1)) == 3


def test_arrays_of_other_libraries(file):
    class Tensor:
        """As those of JAX and PyTorch, and data sets of HDF5."""

        def __init__(self, values):
            self.values, self.shape, self.dtype = values, values.shape, values.dtype

        def __array__(self, dtype=None, copy=None):
            return self.values

        def __iter__(self):
            return map(Tensor, self.values)

    class OnDevice(Tensor):
        def __array__(self, dtype=None, copy=None):
            raise TypeError("it is on another device")

    (found,) = contents(Tensor(COLOUR))
    np.testing.assert_array_equal(found, COLOUR)
    assert len(contents(Tensor(np.stack([COLOUR, COLOUR])))) == 2
    (found,) = contents(OnDevice(COLOUR))
    assert str(found).startswith(
        "image 0 is an OnDevice of shape (6, 8, 3) that is not a NumPy array: it is on"
    )
    # As a column of a table: one axis, of objects.
    column = np.empty(2, object)
    column[:] = [file, COLOUR]
    assert names(column) == [str(file), "image 1"]
    assert names(np.array(["a.png", "b.png"])) == ["a.png", "b.png"]


def test_columns_and_tables_of_pandas():
    pandas = pytest.importorskip("pandas")
    assert names(pandas.Series(["a.png", "b.png"], index=[7, 3])) == ["a.png", "b.png"]
    with pytest.raises(DataError, match=r"the images are a DataFrame of shape \(1, 1\); give a path"):
        contents(pandas.DataFrame({"image": ["a.png"]}))


def test_floats_that_are_whole_numbers():
    for kind in (np.float16, np.float32, np.float64):
        (found,) = contents(COLOUR.astype(kind), 3)
        np.testing.assert_array_equal(found, COLOUR)
        assert found.dtype == np.uint8
    (black,) = contents(np.zeros((6, 8, 3)), 3)
    assert black.dtype == np.uint8


# --- Pillow's


SMOOTH = Image.fromarray(RNG.integers(0, 256, (6, 8, 4), dtype=np.uint8), "RGBA").resize((40, 30))
RGB = SMOOTH.convert("RGB")
SIXTEEN = Image.fromarray(RNG.integers(0, 65536, (30, 40), dtype=np.uint16))
TURNED = Image.Exif()
TURNED[274] = 6
FILES = {
    "L": (RGB.convert("L"), "PNG", {}),
    "L with a transparent value": (RGB.convert("L"), "PNG", {"transparency": 100}),
    "LA": (SMOOTH.convert("LA"), "PNG", {}),
    "P": (RGB.convert("P"), "PNG", {}),
    "P with a transparent colour": (RGB.convert("P"), "PNG", {"transparency": 3}),
    "1": (RGB.convert("1"), "PNG", {}),
    "RGB": (RGB, "PNG", {}),
    "RGB with a transparent colour": (RGB, "PNG", {"transparency": RGB.getpixel((0, 0))}),
    "RGBA": (SMOOTH, "PNG", {}),
    "I;16": (SIXTEEN, "PNG", {}),
    "I;16 with a transparent value": (SIXTEEN, "PNG", {"transparency": SIXTEEN.getpixel((3, 3))}),
    "turned PNG": (RGB, "PNG", {"exif": TURNED}),
    "JPEG": (RGB, "JPEG", {}),
    "grey JPEG": (RGB.convert("L"), "JPEG", {}),
    "CMYK": (RGB.convert("CMYK"), "JPEG", {}),
    "turned JPEG": (RGB, "JPEG", {"exif": TURNED}),
    "turned WebP": (RGB, "WEBP", {"exif": TURNED}),
    "WebP with alpha": (SMOOTH, "WEBP", {"lossless": True}),
    "GIF": (SMOOTH, "GIF", {}),
    "BMP": (RGB, "BMP", {}),
    "TIFF": (RGB, "TIFF", {"compression": "tiff_lzw"}),
    "TIFF of 16 bits": (SIXTEEN, "TIFF", {}),
    "TIFF with alpha": (SMOOTH, "TIFF", {}),
    "CMYK TIFF": (RGB.convert("CMYK"), "TIFF", {}),
    "turned TIFF": (RGB, "TIFF", {"exif": TURNED}),
}


@pytest.mark.parametrize("case", FILES)
@pytest.mark.parametrize("loaded", [False, True])
def test_images_of_pillow_are_their_files(case, loaded):
    image, kind, options = FILES[case]
    data = encoded(image, kind, **options)
    opened = Image.open(io.BytesIO(data))
    if loaded:
        opened.load()
    (found,) = contents(opened)
    for channels in (1, 3):
        np.testing.assert_array_equal(to_channels(found, channels), decode(data, channels))


def test_images_of_pillow_are_their_arrays():
    for mode in ("L", "RGB"):
        image = RGB.convert(mode)
        (by_image,), (by_array,) = contents(image), contents(np.asarray(image))
        np.testing.assert_array_equal(by_image, to_channels(by_array, 3))


def test_orientation_is_applied_once():
    opened = Image.open(io.BytesIO(encoded(RGB, "JPEG", exif=TURNED)))
    for same in (ImageOps.exif_transpose(opened), opened.convert("RGB")):
        np.testing.assert_array_equal(from_pillow(same), from_pillow(opened))
    assert from_pillow(opened).shape == (40, 30, 3)
    in_memory = RGB.copy()
    in_memory.getexif()[274] = 6
    assert from_pillow(in_memory).shape == (40, 30, 3)
    # Files are not turned by XMP, and Pillow would.
    in_memory = RGB.copy()
    in_memory.info["xmp"] = b'<x tiff:Orientation="6"/>'
    assert from_pillow(in_memory).shape == (30, 40, 3)


# --- several


def test_iterators_are_gone_through_once_and_named_in_order(file):
    mixed = [str(file), COLOUR, PNG, np.stack([COLOUR, COLOUR]), file, RGB]
    expected = [str(file), "image 1", "image 2", "image 3", "image 4", str(file), "image 6"]
    for images in (mixed, tuple(mixed), iter(mixed), (one for one in mixed)):
        assert names(images) == expected
    assert names([]) == names(iter([])) == []


def test_what_an_iterator_yields_may_change_afterwards():
    frame, picture = COLOUR.copy(), Image.new("L", (2, 2))

    def frames(thing, change):
        for value in range(3):
            change(value)
            yield thing

    for thing, change in ((frame, frame.fill), (picture, lambda value: picture.putpixel((0, 0), value))):
        assert [content[0, 0, 0] for content in contents(frames(thing, change))] == [0, 1, 2]


def test_only_as_much_is_asked_for_as_is_taken():
    def endless():
        while True:
            yield COLOUR

    pictures = each(endless(), (16, 16), 3)
    assert [next(pictures).name for _ in range(3)] == ["image 0", "image 1", "image 2"]


def test_folders_at_any_depth(tmp_path, monkeypatch):
    for name in ("b.png", "sub/a.JPEG", "sub/deeper/c.jpe", "notes.txt", ".hidden.png"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(PNG)
    photos = tmp_path / "photos"
    expected = [str(photos / name) for name in ("b.png", "sub/a.JPEG", "sub/deeper/c.jpe")]
    assert names(photos) == names(str(photos)) == expected
    assert names([COLOUR, photos, "x.png"]) == ["image 0", *expected, "x.png"]
    files, left_out = find([str(photos), "x.png"])
    assert (files, left_out) == ([*expected, "x.png"], {".txt": 1, "hidden files": 1})
    monkeypatch.setenv("HOME", str(tmp_path))
    assert names("~/photos") == ["~/photos/b.png", "~/photos/sub/a.JPEG", "~/photos/sub/deeper/c.jpe"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"folder '.*empty' has no images"):
        find([str(tmp_path / "empty")])
    (given,) = each(tmp_path / "empty", (16, 16), 3)
    assert "has no images" in str(given.content)


# --- refused


@pytest.mark.parametrize(
    ("image", "channels", "message"),
    [
        (COLOUR / 255, 3, r"image 0 is float64 of shape \(6, 8, 3\); it must be uint8 .*\(255 \* x\).round\(\)"),
        (GREY / 255, 1, r"image 0 is float64 of shape \(6, 8\); it must be uint8 \(h, w, c\) with c = 1, values"),
        (COLOUR - 0.5, 3, r"values from 0 to 255, and not from -0.5 to"),
        (COLOUR + 0.25, 3, r"with c = 3, (or whole numbers: x.round|values from 0 to 255, and not)"),
        (np.full((6, 8, 3), 2.5), 3, r"or whole numbers: x.round\(\).astype"),
        (np.full((6, 8, 3), np.nan), 3, r"values from 0 to 255, and not from nan to nan\.$"),
        (COLOUR % 2 * 1.0, 3, r"of values from 0 to 1 make"),
        ("https://host.invalid/a.jpg", 3, r"https://host.invalid/a.jpg is a URL; images are read from files"),
        (COLOUR.astype(np.int64), 3, r"image 0 is int64 of shape \(6, 8, 3\); it must be uint8"),
        (COLOUR > 99, 3, r"image 0 is bool of shape"),
        (GREY, 12, r"image 0 is uint8 of shape \(6, 8\); it must be uint8 \(h, w, c\) with c = 12"),
        (np.zeros((6, 8, 4), np.uint8), 3, r"image 0: the image has 4 channels, which cannot become 3; give uint8"),
        (np.zeros((64, 64, 12), np.uint8), 3, r"image 0: the image has 12 channels, which cannot become 3"),
        (np.zeros((6, 8, 2), np.uint8), 12, r"image 0: the image has 2 channels, which cannot become 12"),
        (np.zeros((12, 8, 6), np.uint8), 12, r"cannot become 12; .* Channels go last: x.transpose\(1, 2, 0\)"),
        (np.zeros((3, 28, 28), np.uint8), 3, r"image 0 is of shape \(3, 28, 28\), one image with its channels first"),
        (np.zeros((2, 3, 28, 28), np.uint8), 3, r"image 0: the image has 28 channels, .* Channels go last"),
        ([np.zeros((1, 2, 6, 8, 3), np.uint8)], 3, r"image 0 is uint8 of shape \(1, 2, 6, 8, 3\)"),
        (np.zeros((0, 8, 3), np.uint8), 3, r"image 0 is uint8 of shape \(0, 8, 3\)"),
        ([1, 2], 3, "image 0 is an int; give a path"),
        ([None], 3, "image 0 is a NoneType; give a path"),
        ([(COLOUR, 3)], 3, "image 0 is a tuple; give a path"),
        (io.StringIO("text"), 3, "image 0 is a file opened in text mode; open it with mode 'rb'"),
        (io.BytesIO(b""), 3, r"image 0 is an open file with nothing left to read; rewind it"),
        (Image.new("F", (4, 4)), 3, "the image is of mode F, which does not define white; give uint8, with its"),
        (Image.new("La", (4, 4)), 3, "image 0: the given image is damaged"),
        (Image.open(io.BytesIO(PNG[:60])), 3, "image 0: the PNG image is damaged"),
        (Image.new("1", (9000, 8000)), 3, "image 0: the image has 9000x8000 pixels, more than the 64 megapixels"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_one(image, channels, message):
    content = contents(image, channels)[0]
    assert isinstance(content, DataError)
    assert "\n" not in str(content)
    with pytest.raises(DataError, match="^" + message if message.startswith("image") else message):
        raise content


def test_the_others_are_there_all_the_same():
    closed = io.BytesIO(PNG)
    closed.close()
    good, bad, last = contents([PNG, closed, PNG])
    assert (good, last) == (PNG, PNG)
    assert "image 1 is an open file that cannot be read" in str(bad)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (None, "the images are a NoneType; give a path, .* or several of these"),
        (7, "the images are an int"),
        ({"a": PNG}, "the images are a dict"),
        (OrderedDict(a=PNG), "the images are an OrderedDict"),
        (np.uint8(3), "the images are an uint8|the images are a uint8"),
        (np.zeros((1, 1, 4, 4, 3), np.uint8), r"the images are a ndarray of shape \(1, 1, 4, 4, 3\)"),
    ],
)
def test_what_is_no_picture_at_all(images, message):
    with pytest.raises(DataError, match=message):
        contents(images)


def test_damaged_exif_turns_nothing():
    image = RGB.copy()
    image.info["exif"] = b"Exif\0\0II" + struct.pack("<HI", 42, 10**6)
    np.testing.assert_array_equal(from_pillow(image), np.asarray(RGB))
