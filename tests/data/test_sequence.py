"""Records that a program has itself, of every kind that people hand over."""

import io
import pickle

import numpy as np
import pytest
from PIL import Image

from vit_jax.data import fingerprint
from vit_jax.data.pipeline import train_batches
from vit_jax.data.sources.arrays import ArraySource
from vit_jax.data.sources.files import FileSource
from vit_jax.data.sources.sequence import PictureList, SequenceSource, as_image, as_source, as_sources
from vit_jax.data.transforms.spec import parse
from vit_jax.errors import DataError

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 5, 4, 3), dtype=np.uint8)
SIZES = [np.full((3 + i, 4, 3), i, np.uint8) for i in range(6)]
NAMES = ["dog", "cat", "dog", "cat", "eel", "eel"]


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


class Dataset:
    """As PyTorch's are: with a length and an index, and nothing else."""

    def __init__(self, records):
        self.records = records

    def __len__(self):
        return len(self.records)

    def __getitem__(self, index):
        return self.records[index]


@pytest.fixture
def paths(tmp_path):
    for i, pixels in enumerate(PIXELS):
        (tmp_path / f"{i}.png").write_bytes(png(pixels))
    return [tmp_path / f"{i}.png" for i in range(6)]


def images(source):
    decoded = parse("decode")
    return [decoded[0](source[i], np.random.default_rng(0))["image"] for i in range(len(source))]


def test_every_kind_of_image(paths):
    kinds = [
        PIXELS[0],
        Image.fromarray(PIXELS[1]),
        png(PIXELS[2]),
        str(paths[3]),
        paths[4],
        PIXELS[5].astype(np.float32),
    ]
    for records in (
        Dataset([*zip(kinds, NAMES)]),
        [{"image": image, "label": name, "more": 1} for image, name in zip(kinds, NAMES)],
    ):
        source = SequenceSource(records)
        assert (source.class_names, source.named) == (("cat", "dog", "eel"), True)
        assert source.labels.tolist() == [1, 0, 1, 0, 2, 2]
        assert [source[i]["label"] for i in range(6)] == [1, 0, 1, 0, 2, 2]
        assert source[2]["record"] == "record 2 of the records"
        for found, expected in zip(images(source), PIXELS):
            np.testing.assert_array_equal(found, expected)
    assert as_image(PIXELS[0, ..., 0], "r").shape == (5, 4, 1)
    assert as_image(Image.fromarray(PIXELS[0, ..., 0]), "r").shape[:2] == (5, 4)


def test_with_names_nothing_is_read_before_it_is_needed():
    class Lazy(Dataset):
        def __getitem__(self, index):
            raise AssertionError("no need to")

    source = SequenceSource(Lazy([0] * 1000), ["a", "b"])
    assert (len(source), source.labels, source.class_names) == (1000, None, ("a", "b"))


def test_labels_may_be_arrays_of_no_dimension():
    for label in (np.int64(1), np.array(1), np.uint8(1)):
        assert SequenceSource([(PIXELS[0], label)], ["a", "b"])[0]["label"] == 1


def test_other_keys():
    records = [{"pixels": PIXELS[0], "kind": 0}]
    assert SequenceSource(records, keys=("pixels", "kind"))[0]["label"] == 0
    with pytest.raises(
        DataError, match="record 0 of the records has no 'image', it has pixels, kind; name those"
    ):
        SequenceSource(records)


def test_batches_in_threads_and_processes():
    records, transforms = Dataset([*zip(SIZES, NAMES)]), parse("decode|resize(4)")
    options = dict(input_shape=(4, 4, 3), num_classes=3)
    found = []
    for source in (SequenceSource(records), pickle.loads(pickle.dumps(SequenceSource(records)))):
        batches = train_batches(source, transforms, 6, 0, 0, **options)
        found.append(next(batches))
        batches.close()
    np.testing.assert_array_equal(found[0]["image"], found[1]["image"])
    # Each image is of one value: which says whose label it is.
    expected = np.array([1, 0, 1, 0, 2, 2])[found[0]["image"][:, 0, 0, 0]]
    np.testing.assert_array_equal(found[0]["label"], expected)


@pytest.mark.parametrize(
    ("records", "names", "said"),
    [
        ([], None, "the records are empty"),
        (
            iter([1]),
            None,
            "the records are of type list_iterator; they must be a sequence, with len() and [index]",
        ),
        ({"a": 1}, None, "the records are of type dict"),
        ("text", None, "the records are of type str"),
        ([PIXELS[0]], None, "record 0 of the records is ndarray of shape (5, 4, 3); it must be a pair"),
        ([(PIXELS[0], 0, 1)], None, "record 0 of the records is tuple; it must be a pair of image and label"),
        ([(PIXELS[0], "a"), (PIXELS[0], None)], None, "record 1 of the records has no label"),
        ([(PIXELS[0], 1)], None, "are from 1 to 1, but none is 0"),
        (
            [(PIXELS[0], "b")],
            ["a"],
            "record 0 of the records has label 'b', which is none of the 1 classes (a).",
        ),
        ([(PIXELS[0], 0.5)], ["a"], "record 0 of the records has label 0.5; it must be a whole number"),
        ([(3, 0)], None, "the image of record 0 of the records is int; it must be a uint8 array"),
        ([(PIXELS[:, :, :, 0:0][0], 0)], None, "has shape (5, 4, 0)"),
        ([(PIXELS, 0)], None, "has shape (6, 5, 4, 3); it must be (h, w) or (h, w, c)"),
        ([(PIXELS[0].astype(np.int64), 0)], None, "have type int64; it must be uint8"),
        ([(PIXELS[0] / np.float32(255), 0)], None, "must be from 0 to 255: multiply by 255"),
        ([("nowhere.png", 0)], None, "nowhere.png cannot be read: No such file or directory"),
    ],
)
def test_wrong_records_are_named(records, names, said):
    with pytest.raises(DataError) as caught:
        SequenceSource(records, names)[0]
    assert said in str(caught.value)


def test_a_record_that_the_sequence_cannot_read():
    class Broken(Dataset):
        def __getitem__(self, index):
            raise FileNotFoundError("a file is gone")

    with pytest.raises(DataError, match="record 0 of the records cannot be read: a file is gone"):
        SequenceSource(Broken([0]), ["a"])[0]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            IndexError("no"),
            "record 0 of the records does not exist (no), but their len() is 2; it must be the number",
        ),
        (KeyError("a"), "record 0 of the records raised KeyError: 'a'."),
        (ValueError("wrong"), "record 0 of the records raised ValueError: wrong."),
    ],
)
def test_what_a_sequence_raises_is_told(error, said):
    class Broken(Dataset):
        def __getitem__(self, index):
            raise error

    with pytest.raises(DataError) as caught:
        SequenceSource(Broken([0, 1]), ["a"])[0]
    assert said in str(caught.value)
    assert caught.value.__cause__ is error


def test_labels_that_are_true_and_false():
    source = SequenceSource([(PIXELS[0], True), (PIXELS[1], False)])
    assert source.class_names == ("False", "True")
    assert [source[i]["label"] for i in range(2)] == source.labels.tolist() == [1, 0]


class Foreign:
    """As arrays of JAX and PyTorch are."""

    def __init__(self, values):
        self.values, self.shape, self.dtype = values, values.shape, values.dtype

    def __array__(self, dtype=None, copy=None):
        return self.values


def test_images_may_be_arrays_of_other_libraries():
    np.testing.assert_array_equal(as_image(Foreign(PIXELS[0]), "one"), PIXELS[0])
    source = as_source(Foreign(PIXELS), NAMES)
    assert source.fingerprint() == as_source(PIXELS, NAMES).fingerprint()


def test_as_source_takes_arrays_as_they_always_were():
    source = as_source(PIXELS, [0, 1, 0, 1, 2, 2])
    assert isinstance(source, ArraySource)
    assert (source.class_names, source.named, source.image_shape) == (("0", "1", "2"), False, (5, 4, 3))
    same = as_source(list(PIXELS), NAMES)
    assert isinstance(same, ArraySource)
    assert (same.class_names, same.labels.tolist()) == (("cat", "dog", "eel"), [1, 0, 1, 0, 2, 2])
    np.testing.assert_array_equal(same.take(np.arange(6))["image"], PIXELS)
    assert as_source(source) is source


def test_as_source_takes_images_of_several_sizes():
    source = as_source(SIZES, NAMES)
    assert isinstance(source, PictureList)
    assert [found.shape for found in images(source)] == [image.shape for image in SIZES]
    mixed = as_source([SIZES[0], Image.fromarray(SIZES[1]), png(SIZES[2])], [0, 1, 1])
    assert [found.shape for found in images(mixed)] == [image.shape for image in SIZES[:3]]


@pytest.mark.parametrize("kind", [list, tuple, np.array, lambda paths: np.array(list(map(str, paths)))])
def test_as_source_takes_paths(paths, kind):
    source = as_source(kind(paths), NAMES)
    assert isinstance(source, FileSource)
    assert source[0] == {"image": png(PIXELS[0]), "label": 1, "record": str(paths[0])}
    assert source.name_of(5) == str(paths[5])


def test_as_source_takes_columns_of_tables(paths):
    class Series:  # of pandas, which tests need not have
        def __init__(self, values):
            self.values, self.index = values, range(5, 5 + len(values))

        def __len__(self):
            return len(self.values)

        def __iter__(self):
            return iter(self.values)

        def __getitem__(self, label):
            return self.values[self.index.index(label)]

    source = as_source(Series(list(map(str, paths))), Series(NAMES))
    assert source.labels.tolist() == [1, 0, 1, 0, 2, 2]
    assert source.files == list(map(str, paths))


def test_as_source_takes_records():
    assert isinstance(as_source([*zip(SIZES, NAMES)]), SequenceSource)
    assert as_source([*zip(SIZES, NAMES)], class_names=["eel", "dog", "cat"])[0]["label"] == 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((PIXELS, [0, 1]), "labels of the images have shape (2,); it must be (6,)"),
        ((SIZES, [0, 1]), "the images are 6, but there are 2 labels; give one per image"),
        ((["a.png"], [0, 1]), "the images are 1, but there are 2 labels; give one per image"),
        (
            (["nowhere.png"], [0]),
            "nowhere.png, the first of the images, does not exist; paths must be absolute or",
        ),
        ((SIZES, "abc"), "labels of the images are 'abc'; give a sequence, one per image"),
        (("folder", NAMES), "the images got str"),
        ((PIXELS, 3), "labels of the images are 3; give a sequence"),
        (([*SIZES, 3], [0] * 7), "the image of record 6 of the images is int"),
        (([*SIZES, SIZES[1] * 0.001], [0] * 7), "must be from 0 to 255: multiply by 255"),
        (
            (as_source(PIXELS, NAMES), NAMES),
            "the images are a source, which has its own labels and class names",
        ),
    ],
)
def test_what_as_source_refuses(given, said):
    with pytest.raises(DataError) as caught:
        as_source(*given)
    assert said in str(caught.value)


def test_a_pair_has_the_classes_of_training():
    train, evaluation = as_sources(([*zip(SIZES, NAMES)], [(SIZES[0], "eel")]))
    assert (evaluation.class_names, evaluation[0]["label"]) == (train.class_names, 2)
    assert evaluation[0]["record"] == "record 0 of the evaluation records"
    assert as_sources((train, evaluation)) == (train, evaluation)
    for wrong in (train, [*zip(SIZES, NAMES)], (train,)):
        with pytest.raises(DataError, match="give a pair: training records and evaluation records"):
            as_sources(wrong)


def test_fingerprints(paths, tmp_path, monkeypatch):
    lists = [
        as_source(SIZES, NAMES),
        as_source(SIZES, NAMES[::-1]),
        as_source([*SIZES[:5], SIZES[5] + 1], NAMES),
    ]
    assert len({source.fingerprint() for source in lists}) == 3
    assert as_source([image.copy() for image in SIZES], NAMES).fingerprint() == lists[0].fingerprint()
    monkeypatch.setattr(fingerprint, "WHOLE", 100)
    changed = [image.copy() for image in SIZES]
    changed[1][0, 0, 0] = 99  # of the rest, a share is looked at
    assert as_source(changed, NAMES).fingerprint() == as_source(SIZES, NAMES).fingerprint()
    assert as_source(SIZES, NAMES).fingerprint() != as_source(SIZES, NAMES[::-1]).fingerprint()

    known = as_source(paths, NAMES).fingerprint()
    (tmp_path / "moved").mkdir()
    moved = [tmp_path / "moved" / path.name for path in paths]
    for old, new in zip(paths, moved):
        new.write_bytes(old.read_bytes())
    assert as_source(moved, NAMES).fingerprint() == known
    monkeypatch.chdir(tmp_path / "moved")
    assert as_source([path.name for path in moved], NAMES).fingerprint() == known
    moved[3].write_bytes(b"other")
    assert as_source(moved, NAMES).fingerprint() != known
    assert as_source(paths, NAMES[::-1]).fingerprint() != known

    records = [SequenceSource([*zip(SIZES, NAMES)]), SequenceSource([*zip(SIZES[::-1], NAMES)])]
    assert records[0].fingerprint() != records[1].fingerprint()
