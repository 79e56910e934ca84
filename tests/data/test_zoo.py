"""Every file of the zoo decodes to the pixels it was made from, or to a line that says why not."""

import numpy as np
import pytest

from tests.data import zoo
from vit_jax.data.images.decode import decode, load_image
from vit_jax.data.transforms.fusion import fused
from vit_jax.data.transforms.spec import parse
from vit_jax.errors import DataError

FILES = zoo.files()


def test_there_are_many():
    assert len(FILES) >= 150
    assert {name.partition(":")[0] for name in FILES} == {
        "JPEG",
        "PNG",
        "WebP",
        "GIF",
        "BMP",
        "TIFF",
        "other",
    }


@pytest.mark.parametrize("name", FILES)
def test_zoo(name, capfd):
    file = FILES[name]
    if isinstance(file.pixels, str):
        with pytest.raises(DataError) as caught:
            decode(file.data)
        line = str(caught.value)
        assert file.pixels in line
        assert line.isprintable()
    else:
        pixels = decode(file.data)
        assert (pixels.dtype, pixels.shape) == (np.uint8, file.pixels.shape)
        assert np.abs(pixels - file.pixels.astype(float)).mean() <= file.tolerance
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", [name for name in FILES if not isinstance(FILES[name].pixels, str)])
def test_crops_of_the_zoo(name):
    """Decoded with the crop, every file has the pixels of the whole."""
    data = FILES[name].data
    example = {"image": data, "label": 0, "record": "r"}
    transforms = parse("decode|random_resized_crop(5, interpolation='nearest')|flip_lr")
    for seed in range(3):
        apart = together = example
        rng, same = np.random.default_rng(seed), np.random.default_rng(seed)
        for transform in transforms:
            apart = transform(apart, rng)
        for transform in fused(transforms):
            together = transform(together, same)
        np.testing.assert_array_equal(apart["image"], together["image"])


def test_names_do_not_matter(tmp_path):
    (tmp_path / "really_png.jpg").write_bytes(FILES["PNG: plain"].data)
    (tmp_path / "really_jpeg.png").write_bytes(FILES["JPEG: plain"].data)
    np.testing.assert_array_equal(load_image(tmp_path / "really_png.jpg"), zoo.RGB)
    assert load_image(tmp_path / "really_jpeg.png").shape == zoo.RGB.shape
