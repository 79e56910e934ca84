"""Parts of splits and sums of parts: what is in them, that nothing is in two, and what is said of wrong ones."""

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest

from vit_jax.data.section import COLUMNS
from vit_jax.data.sources.arrays import ArraySource
from vit_jax.data.sources.digits import open_digits
from vit_jax.data.sources.opening import open_source
from vit_jax.data.sources.synthetic import SyntheticSource
from vit_jax.data.split import SplitPart, Sum, has_shared, open_split, parse_split
from vit_jax.errors import ConfigError, DataError


def numbered(count, first=0, names=None, called="a"):
    """Records that are told from each other by their one pixel."""
    images = np.arange(first, first + count, dtype=np.float32).reshape(count, 1, 1, 1)
    return ArraySource(images, np.arange(count) % 3, names, 3 if names is None else None, called)


def values(source):
    return [int(source[index]["image"].item()) for index in range(len(source))]


def part(text, count=50):
    return values(open_split(text, lambda name: numbered(count, called=name)))


def test_parts_cover_the_whole_and_share_nothing():
    source = ArraySource(np.zeros((1000, 1, 1, 1), np.uint8), np.sort(np.arange(1000) % 10))
    images = [open_split(f"train[{bounds}]", lambda name: source) for bounds in (":90%", "90%:")]
    assert [len(part) for part in images] == [900, 100]
    assert np.bincount(images[0].labels).tolist() == [100 - n for n in np.bincount(images[1].labels)]
    # Of a source sorted by class, every class is in both.
    assert np.bincount(images[1].labels, minlength=10).min() > 0


@pytest.mark.parametrize(
    ("text", "count"),
    [("a", 37), ("a[:]", 37), ("a[:10]", 10), ("a[-3:]", 3), ("a[5:8]", 3), ("a[50%:]", 19)],
)
def test_sizes(text, count):
    images = part(text, 37)
    assert len(set(images)) == len(images) == count
    assert images == sorted(images)


@pytest.mark.parametrize("text", ["a[", "a[1:2:3]", "a[x:]", "[1:]", "a[1]", "a[:5%]b"])
def test_mistakes(text):
    with pytest.raises(ConfigError, match="write 'train', 'train"):
        part(text)


def test_empty_parts():
    with pytest.raises(DataError, match=r"split 'a\[5:5\]' has no record; the whole has 50"):
        part("a[5:5]")


@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [
        ("train", "train", True),
        ("train", "test", False),
        ("train[:80%]", "train[80%:]", False),
        ("train[:80%]", "train[79%:]", True),
        ("train", "train[90%:]", True),
        ("train[:20%]+train[40%:]", "train[20%:40%]", False),
        ("train[:20%]+train[40%:]", "test+train[39%:41%]", True),
        ("train[:100]", "train[100:]", False),
        ("train[:100]", "train[99:]", True),
        ("train[:-100]", "train[-100:]", False),
        ("train[:-100]", "train[-200:]", True),
        ("train[:100]", "train[50%:]", False),  # who knows
        ("train[:100]", "train", True),
        ("train", "all", True),
    ],
)
def test_what_two_splits_share(one, other, shared):
    assert has_shared(one, other) is has_shared(other, one) is shared


def test_parts_of_a_text():
    assert parse_split("train") == (SplitPart("train", None, None),)
    assert parse_split("a[:20%] + a[40%:]+ b") == (
        SplitPart("a", None, "20%"),
        SplitPart("a", "40%", None),
        SplitPart("b", None, None),
    )


def test_a_sum_is_its_parts_one_after_the_other():
    assert part("a[:20%]+a[40%:]") == part("a[:20%]") + part("a[40%:]")
    assert part("a[40%:]+a[:20%]") == part("a[40%:]") + part("a[:20%]")
    assert sorted(part("a[:20%]+a[20%:40%]+a[40%:]")) == list(range(50))


@pytest.mark.parametrize("folds", [2, 3, 5, 7])
def test_folds_cover_everything_once(folds):
    """k-fold cross-validation: the rest of each fold is trained on."""
    bounds = [round(100 * i / folds) for i in range(folds + 1)]
    seen = []
    for first, last in pairwise(bounds):
        held_out = part(f"a[{first}%:{last}%]", 53)
        rest = [f"a[:{first}%]"] * (first > 0) + [f"a[{last}%:]"] * (last < 100)
        trained = part("+".join(rest), 53)
        assert sorted(held_out + trained) == list(range(53))
        seen += held_out
    assert sorted(seen) == list(range(53))


def test_sums_of_different_splits():
    wholes = {"train": numbered(5), "validation": numbered(4, first=100, called="b")}
    source = open_split("train+validation[:2]", wholes.__getitem__)
    assert len(source) == 7
    assert values(source)[:5] == [0, 1, 2, 3, 4]
    assert {value // 100 for value in values(source)[5:]} == {1}
    assert (source.class_names, source.image_shape) == (("0", "1", "2"), (1, 1, 1))
    rows = np.array([6, 0, 5, 2, 2])
    taken = source.take(rows)
    np.testing.assert_array_equal(taken["image"], [source[row]["image"] for row in rows])
    np.testing.assert_array_equal(taken["label"], source.labels[rows])
    assert source.name_of(6) == wholes["validation"].name_of(values(source)[6] - 100)


def test_each_split_is_opened_once():
    opened = []

    def whole(name):
        opened.append(name)
        return numbered(50, called=name)

    open_split("a[:20%]+b+a[40%:]", whole)
    assert opened == ["a", "b"]


def test_one_part_is_what_it_always_was():
    """Runs of earlier versions go on with the very same records."""
    assert part("a[:10]", 37) == [1, 9, 10, 11, 18, 26, 28, 30, 32, 35]
    whole = numbered(5)
    assert open_split("a", lambda name: whole) is whole


def test_unnamed_classes_may_be_fewer_in_a_part():
    few = ArraySource(np.zeros((2, 1, 1, 1), np.uint8), [0, 1])
    assert Sum([few, numbered(3)], "a+b").class_names == ("0", "1", "2")
    named = numbered(3, names=["a", "b", "c"])
    for other in (numbered(3, names=["a", "c", "b"]), numbered(3, names=["a", "b", "c", "d"]), numbered(3)):
        with pytest.raises(DataError, match=r"the parts of split 'a\+b' differ in class"):
            Sum([named, other], "a+b")


def test_sources_of_several_kinds_are_not_stacked():
    mixed = Sum([numbered(3), SyntheticSource(3, (2, 2, 1), 3)], "a+b")
    assert (mixed.image_shape, mixed.take(np.arange(4))) == (None, None)
    kinds = Sum([numbered(3), SyntheticSource(3, (1, 1, 1), 3)], "a+b")
    assert kinds.take(np.arange(4)) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a+a", "has 50 records of 'a' twice; its parts must not overlap"),
        ("a[:20%]+a[9:]", "has 1 record of 'a' twice"),
        ("a[:20%]+b+a[-45:]", "has 5 records of 'a' twice"),
        ("a[:5]+a[10:10]", r"has no record in a\[10:10\]; the whole has 50"),
    ],
)
def test_what_a_sum_must_not_be(text, said):
    with pytest.raises(DataError, match=said):
        part(text)


@pytest.mark.parametrize("text", ["+", "a+", "+a", "a++b", "a[:5]b+c", "a[1:2]+[3:]", ""])
def test_what_a_sum_cannot_be(text):
    with pytest.raises(ConfigError, match="or a sum of these: 'train"):
        parse_split(text)


def section(**values):
    empty = dict.fromkeys(("path", "name", *COLUMNS), "")
    return SimpleNamespace(**{**empty, "size": 30, "train_split": "train", **values})


def test_sums_for_every_source(tmp_path):
    for split in ("train", "test"):
        np.savez(
            tmp_path / f"{split}.npz", images=np.zeros((20, 2, 2, 3), np.uint8), labels=np.arange(20) % 4
        )
        for name in ("cat", "dog"):
            (tmp_path / "folder" / split / name).mkdir(parents=True)
            for i in range(10):
                (tmp_path / "folder" / split / name / f"{i}.png").touch()
    for data in (
        section(source="digits"),
        section(source="synthetic"),
        section(source="arrays", path=str(tmp_path)),
        section(source="folder", path=str(tmp_path / "folder")),
    ):
        sizes = [
            len(open_source(data, text))
            for text in ("train", "test", "train+test[:50%]", "train[:5]+train[8:]")
        ]
        assert sizes[2] == sizes[0] + round(sizes[1] / 2)
        assert sizes[3] == sizes[0] - 3
        assert len(open_source(data, "train+test").labels) == sizes[0] + sizes[1]
    folder = section(source="folder", path=str(tmp_path / "folder"), train_split="train+test")
    assert open_source(folder, "test").class_names == ("cat", "dog")


def test_one_split_under_two_names_is_one(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "val" / name).mkdir(parents=True)
        (tmp_path / "val" / name / "1.png").touch()
    data = section(source="folder", path=str(tmp_path), train_split="val")
    with pytest.raises(DataError, match="has 2 records of 'val' twice"):
        open_source(data, "val+validation")


def test_all_holds_the_others(tmp_path):
    (tmp_path / "cat").mkdir()
    for i in range(30):
        (tmp_path / "cat" / f"{i}.png").touch()
    data = section(source="folder", path=str(tmp_path))
    assert len(open_source(data, "all[:50%]")) == 15
    with pytest.raises(DataError, match="'all\\+test' has the records of 'test' twice"):
        open_source(data, "all+test")


def test_fingerprints_of_sums():
    texts = (
        "train[:20%]+train[40%:]",
        "train[:20%]+train[41%:]",
        "train[40%:]+train[:20%]",
        "train",
        "train[:20%]",
    )
    assert len({open_split(text, open_digits).fingerprint() for text in texts}) == len(texts)
