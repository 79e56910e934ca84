"""The digits that scikit-learn comes with, read without importing it: that takes longer than a small run's start."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from vit_jax.data.holdout import stratified_split
from vit_jax.data.sources.arrays import ArraySource
from vit_jax.errors import DataError, choose

TEST_SHARE, SEED = 0.2, 0


def open_section(section: Any, split: str, shape: Any) -> ArraySource:
    """Return what `data.source='digits'` means."""
    return open_digits(split)


def open_digits(split: str) -> ArraySource:
    """Return scikit-learn's digits: 8 by 8 grey images of 10 classes, 1437 to train on and 360 held out.

    The split is `train_test_split(test_size=0.2, random_state=0, stratify=target)`, so that results can be
    compared with any scikit-learn classifier on the same images.

    Args:
      split: `train` or `test`.

    Raises:
      DataError: scikit-learn is not installed, or has its file no more.

    Reference: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998.
    """
    choose(split, ("train", "test"), "the split of the digits")
    file = scikit_learn() / "datasets" / "data" / "digits.csv.gz"
    try:
        table = np.loadtxt(file, delimiter=",")
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error}; reinstall scikit-learn.") from error
    pixels, target = table[:, :-1], table[:, -1].astype(np.int64)
    indices = stratified_split(target, TEST_SHARE, SEED)[0 if split == "train" else 1]
    # Pixels count from 0 to 16.
    images = np.rint(pixels[indices] * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    return ArraySource(images, target[indices], num_classes=10, name=f"the digits ({split})")


def scikit_learn() -> Path:
    """Return the folder in which scikit-learn is installed.

    Raises:
      DataError: it is not.
    """
    package = find_spec("sklearn")
    if package is None or package.origin is None:
        raise DataError(
            "the digits come with scikit-learn, which is not installed; run pip install scikit-learn."
        )
    return Path(package.origin).parent
