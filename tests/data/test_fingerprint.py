"""Fingerprints of sources: equal for equal records wherever they lie, others for what a run should notice."""

import os
import shutil

import numpy as np
import pytest

from vit_jax.data import fingerprint
from vit_jax.data.base import Selection, Source, balanced
from vit_jax.data.cache import Cached
from vit_jax.data.mixture import Mixture
from vit_jax.data.sources.arrays import ArraySource
from vit_jax.data.sources.digits import open_digits
from vit_jax.data.sources.folder import FolderSource
from vit_jax.data.sources.synthetic import SyntheticSource
from vit_jax.data.transforms.decoding import Decode
from vit_jax.errors import DataError

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 4, 4, 3), dtype=np.uint8)
LABELS = np.arange(12) % 3


def arrays(images=IMAGES, labels=LABELS, **options):
    return ArraySource(images, labels, **options)


@pytest.fixture
def folder(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "one" / "train" / name).mkdir(parents=True)
        for i in range(4):
            (tmp_path / "one" / "train" / name / f"{i}.png").write_bytes(b"x" * (10 + i))
    return tmp_path / "one"


def of(folder):
    return FolderSource(folder, "train").fingerprint()


def test_arrays():
    known = arrays().fingerprint()
    assert arrays(IMAGES.copy(), LABELS.astype(np.int64), name="others").fingerprint() == known
    swapped = IMAGES[np.r_[1, 0, 2:12]]
    pixel = IMAGES.copy()
    pixel[5, 2, 2, 1] ^= 1
    others = [
        arrays(labels=(LABELS + 1) % 3),
        arrays(swapped),
        arrays(pixel),
        arrays(IMAGES[:11], LABELS[:11]),
        arrays(IMAGES.reshape(12, 4, 2, 6)),
        arrays(IMAGES.astype(np.float32)),
    ]
    assert len({known, *(source.fingerprint() for source in others)}) == 7


def test_arrays_in_any_layout():
    fortran = np.asfortranarray(IMAGES)
    assert arrays(fortran).fingerprint() == arrays().fingerprint()
    assert arrays(np.repeat(IMAGES, 2, 0)[::2]).fingerprint() == arrays().fingerprint()


def test_large_arrays_are_sampled(monkeypatch):
    monkeypatch.setattr(fingerprint, "WHOLE", IMAGES.nbytes // 4)
    known = arrays().fingerprint()
    for record, seen in ((0, True), (1, False), (4, True), (11, True)):
        changed = IMAGES.copy()
        changed[record] ^= 255
        assert (arrays(changed).fingerprint() != known) == seen
    assert arrays(labels=(LABELS + 1) % 3).fingerprint() != known  # all labels count


def test_folders_do_not_depend_on_place_and_time(folder, tmp_path, monkeypatch):
    known = of(folder)
    copy = tmp_path / "elsewhere"
    shutil.copytree(folder, copy)
    os.utime(copy / "train" / "cat" / "0.png", (1, 1))
    assert of(copy) == known
    monkeypatch.chdir(copy.parent)
    assert FolderSource("elsewhere", "train").fingerprint() == known


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "cat" / "1.png").write_bytes(b"x" * 99),
        lambda root: (root / "cat" / "1.png").rename(root / "cat" / "9.png"),
        lambda root: (root / "cat" / "1.png").rename(root / "dog" / "1b.png"),
        lambda root: (root / "cat" / "1.png").unlink(),
        lambda root: shutil.copy(root / "cat" / "1.png", root / "cat" / "5.png"),
        lambda root: (root / "cat").rename(root / "eel"),
    ],
)
def test_a_changed_folder(folder, change):
    known = of(folder)
    change(folder / "train")
    assert of(folder) != known


def test_sizes_of_files_in_folders_of_folders(tmp_path, monkeypatch):
    monkeypatch.setattr(fingerprint, "_TASK", 2)
    names = [f"{folder}/{i}" for folder in ("a", "a/b", "c") for i in range(5)] + ["top"]
    for size, name in enumerate(names):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * size)
    (tmp_path / names[3]).unlink()
    sizes = fingerprint.file_sizes(tmp_path, [*names, "nowhere/1", "n\0"])
    assert sizes.tolist() == [0, 1, 2, -1, *range(4, 16), -1, -1]
    assert not len(fingerprint.file_sizes(tmp_path, []))


def test_sources_made_of_others():
    whole, other = arrays(), arrays(labels=(LABELS + 1) % 3)
    assert Cached(whole, Decode(3)).fingerprint() == whole.fingerprint()
    some = [
        *(Selection(source, indices) for source in (whole, other) for indices in ([0, 1], [1, 0], [0, 1, 1])),
        *(Mixture([whole, other], weights) for weights in ([1, 1], [1, 2])),
        Mixture([other, whole], [1, 1]),
        balanced(arrays(labels=np.minimum(LABELS, 1))),
        whole,
        other,
        SyntheticSource(12, (4, 4, 3), 3),
        SyntheticSource(12, (4, 4, 3), 3, seed=1),
        SyntheticSource(12, (4, 4, 3), 4),
        open_digits("train"),
        open_digits("test"),
    ]
    assert len({source.fingerprint() for source in some}) == len(some)
    assert open_digits("train").fingerprint() == open_digits("train").fingerprint()


class Own(Source):
    """Somebody's own source, which says nothing about its records."""

    class_names = ("a", "b")

    def __init__(self, images, labels):
        self.images, self.targets = images, labels

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        if self.images[index] is None:
            raise DataError(f"record {index} cannot be read")
        return {"image": self.images[index], "label": self.targets[index], "record": "r"}


def test_any_other_source_is_sampled():
    images = [bytes([i]) * 9 for i in range(200)]
    known = Own(images, [0] * 200).fingerprint()
    assert Own(list(images), [0] * 200).fingerprint() == known
    others = [
        Own(images[:199], [0] * 199),
        Own(images, [1] + [0] * 199),
        Own([*images[:-1], b"other"], [0] * 200),
        Own([None, *images[1:]], [0] * 200),
    ]
    assert len({known, *(source.fingerprint() for source in others)}) == 5


def test_parts_are_told_from_each_other():
    values = [
        ("ab", "c"),
        ("a", "bc"),
        ("abc",),
        (b"ab", b"c"),
        (["ab", "c"],),
        ("ab", ["c"]),
        ("1",),
        (1,),
        (),
    ]
    values += [
        (None,),
        (np.zeros(0),),
        (np.zeros(2),),
        (np.zeros((2, 1)),),
        (np.zeros(()),),
        (np.zeros(2, int),),
    ]
    assert len({fingerprint.digest(*parts) for parts in values}) == len(values)
    assert fingerprint.digest("\udcff") != fingerprint.digest("ff")  # a byte in a name that is no text
