"""Rows come one for one, in order, whatever the batches; read ahead by no more than two batches."""

import io
import itertools
import threading
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from tests.tiny import tiny
from vit_jax.errors import ConfigError, DataError
from vit_jax.evaluation.preprocess import Preprocessor
from vit_jax.inference.stream import fitting, stacked, stream

PREPROCESSOR = Preprocessor(tiny(image_size=(4, 8)))
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (11, 4, 8, 3), dtype=np.uint8)


def means(batch):
    """What a model could give: two numbers an image."""
    return np.stack([batch.mean((1, 2, 3)), batch[:, 0, 0, 0].astype(float)], axis=1)


def rows(images, batch_size=4, compute=means, **options):
    return list(stream(compute, PREPROCESSOR, images, batch_size, **options))


def encoded(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8, 11])
@pytest.mark.parametrize(
    "kind", [np.asarray, list, lambda x: [*map(encoded, x)], iter, lambda x: map(encoded, x)]
)
def test_one_row_for_each_image_in_order(count, kind):
    seen = []

    def compute(batch):
        seen.append(len(batch))
        return means(batch)

    found = rows(kind(IMAGES[:count]), compute=compute)
    assert [row.name for row in found] == [f"image {i}" for i in range(count)]
    np.testing.assert_array_equal(stacked(found, 2), means(IMAGES[:count]).astype(np.float32))
    # One program serves all: that of a whole batch, or of the few there are.
    assert seen == [fitting(4, count)] * -(-count // 4)


def test_nothing_comes_of_nothing():
    assert rows([]) == rows(iter([])) == []
    assert stacked([], 7).shape == (0, 7)


def test_bad_images_are_errors_or_rows_that_say_why(tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    images = [*IMAGES[:5], bad, IMAGES[6], np.zeros((4, 8, 5), np.uint8), IMAGES[8]]
    found = rows(images, bad="skip")
    assert [bool(row.error) for row in found] == [i in (5, 7) for i in range(9)]
    assert found[5].name == str(bad)
    assert found[5].error.startswith(f"{bad}: not an image of a known format")
    assert found[7].error.startswith("image 7: the image has 5 channels")
    values = stacked(found, 2)
    good = [i for i in range(9) if i not in (5, 7)]
    np.testing.assert_array_equal(values[good], means(IMAGES[good]).astype(np.float32))
    assert np.isnan(values[[5, 7]]).all()
    assert rows([bad], bad="skip")[0].values is None
    given = []
    with pytest.raises(DataError, match=f"^{bad}: not an image"):
        given.extend(stream(means, PREPROCESSOR, images, 4))
    assert [row.name for row in stream(means, PREPROCESSOR, images[:5], 4)] == [
        f"image {i}" for i in range(5)
    ]
    with pytest.raises(
        ConfigError, match=r"bad is 'skipp'; it must be one of error, skip. Did you mean 'skip'"
    ):
        stream(means, PREPROCESSOR, [], 4, bad="skipp")  # at once, not when rows are asked for


def test_rows_come_before_all_is_asked_for():
    asked = itertools.count()

    def endless():
        for i in asked:
            yield IMAGES[i % 11]

    before = set(threading.enumerate())
    found = stream(means, PREPROCESSOR, endless(), 4)
    assert next(found).name == "image 0"
    assert next(asked) <= 9  # two batches
    own = [t for t in threading.enumerate() if t not in before and t.name.startswith("ThreadPoolExecutor")]
    assert own
    found.close()
    assert not any(thread.is_alive() for thread in own)


def test_memory_does_not_grow_with_the_number_of_images():
    image = encoded(RNG.integers(0, 256, (100, 150, 3), dtype=np.uint8))

    def peak(count):
        tracemalloc.start()
        for _ in stream(means, PREPROCESSOR, itertools.repeat(image, count), 4):
            pass
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(8)  # what is made once
    # An image has 45,000 bytes, and how far threads have read ahead is chance: three batches of four at most.
    assert peak(400) < peak(40) + 12 * 45_000


def test_a_bar_on_terminals_where_there_is_more_than_a_batch(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    for count, progress, shown in ((11, True, True), (3, True, False), (11, False, False)):
        terminal = Terminal()
        monkeypatch.setattr("sys.stderr", terminal)
        rows(IMAGES[:count], progress=progress)
        assert ("11/11" in terminal.getvalue()) == shown
        assert bool(terminal.getvalue()) == shown
