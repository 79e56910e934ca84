"""Which records are held out of a set: a seeded share of each class."""

import numpy as np

from vit_jax.data.base import Selection, Source
from vit_jax.data.classes import some
from vit_jax.errors import DataError

SHARE = 0.1
FEWEST = 10  # records of which some can be held out


def hold_out(source: Source, seed: int, share: float = SHARE) -> tuple[Source, Source, str]:
    """Return the records to train on and those held out, a share of each class, and what to tell of it.

    Which ones is a matter of the seed and not of their order. A class with one record is trained on.

    Args:
      source: records whose labels are known.
      seed: of the choice.
      share: of the records that are held out, rounded up to a whole number.

    Raises:
      DataError: there are too few records to hold some out.
    """
    assert source.labels is not None
    counts = np.bincount(source.labels, minlength=source.num_classes)
    several = np.flatnonzero(counts[source.labels] > 1)
    if len(source) < FEWEST or not len(several):
        why = f"{len(source)} images" if len(source) < FEWEST else "one image of each class"
        raise DataError(
            f"fit got {why}, too few to hold any out; give at least {FEWEST}, or validation=(images, labels)."
        )
    labels = np.unique(source.labels[several], return_inverse=True)[1]
    held_out = np.sort(several[stratified_split(labels, share, seed)[1]])
    kept = np.delete(np.arange(len(source)), held_out)
    absent = np.setdiff1d(source.labels, source.labels[held_out])
    notice = ""
    if len(absent):
        names = [source.class_names[label] for label in absent]
        notice = (
            f"{len(held_out)} of {len(source)} images are held out, none of them from {len(absent)} classes with "
            f"few images: {some(names, 5)}"
        )
    return Selection(source, kept), Selection(source, held_out), notice


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
