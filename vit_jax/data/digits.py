"""The digits that scikit-learn comes with, read without importing it: that takes longer than a small run's start."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from vit_jax.data.arrays import ArraySource
from vit_jax.errors import DataError, choose

TEST_SHARE, SEED = 0.2, 0


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
    package = find_spec("sklearn")
    if package is None or package.origin is None:
        raise DataError(
            "the digits come with scikit-learn, which is not installed; pip install scikit-learn."
        )
    file = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
    try:
        table = np.loadtxt(file, delimiter=",")
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error}; install scikit-learn anew.") from error
    pixels, target = table[:, :-1], table[:, -1].astype(np.int64)
    indices = stratified_split(target, TEST_SHARE, SEED)[0 if split == "train" else 1]
    # Pixels count from 0 to 16.
    images = np.rint(pixels[indices] * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    return ArraySource(images, target[indices], num_classes=10, name=f"the digits ({split})")


def stratified_split(labels: np.ndarray, test_share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices to train on and those held out, as scikit-learn's `train_test_split` stratifies them.

    Args:
      labels: integers `(n,)`, each from 0 to the largest there at least once.
      test_share: the part held out, rounded up to a whole number.
      seed: of the same random numbers.
    """
    random = np.random.RandomState(seed)
    held_out = int(np.ceil(test_share * len(labels)))
    counts = np.bincount(labels)
    trained = _shares(counts, len(labels) - held_out, random)
    tested = _shares(counts - trained, held_out, random)
    train, test = [], []
    for label, first, second in zip(range(len(counts)), trained, tested):
        shuffled = np.flatnonzero(labels == label)[random.permutation(counts[label])]
        train.append(shuffled[:first])
        test.append(shuffled[first : first + second])
    return random.permutation(np.concatenate(train)), random.permutation(np.concatenate(test))


def _shares(counts: np.ndarray, total: int, random: np.random.RandomState) -> np.ndarray:
    """Return how many of `total` each class gets: in proportion, and where parts are equal, by lot."""
    exact = counts / counts.sum() * total
    shares = np.floor(exact)
    missing = int(total - shares.sum())
    parts = exact - shares
    for part in np.unique(parts)[::-1]:
        if not missing:
            break
        (classes,) = np.where(parts == part)
        chosen = random.choice(classes, size=min(len(classes), missing), replace=False)
        shares[chosen] += 1
        missing -= len(chosen)
    return shares.astype(int)
