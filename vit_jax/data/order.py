"""The order of training records: shuffled afresh each epoch, computed for any position without a table.

Grain's own index shuffle walks a 16-bit block cipher one index at a time, 40 microseconds each for small
sets (measured), which is more than a training step of a small model can hide. This one computes a whole batch
with a few NumPy operations, and does not change with the version of a library.
"""

import math

import numpy as np

# Four rounds of good functions make a good permutation of a large domain (Luby and Rackoff, 1988). In the
# small ones here six still leave positions uneven (chi-square, 10 records); eight do not.
_ROUNDS = 8


def shuffled(positions: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Return which record is at each position of an endless training run.

    Positions `[e * count, (e + 1) * count)` are epoch `e` and hold every record once, in an order that
    depends on `seed` and `e`. Memory does not depend on `count`.

    A Feistel network over pairs (left, right) of numbers below `a` and `b`, `a * b >= count`, with modular
    addition; results beyond `count` are permuted again until they fall inside ("cycle walking").
    Reference: Black and Rogaway, Ciphers with Arbitrary Finite Domains, CT-RSA 2002.

    Args:
      positions: int64 `(b,)`, from 0.
      count: number of records, from 1.
      seed: of the run.

    Returns:
      int64 `(b,)`, each from 0 to `count - 1`.
    """
    epochs, values = np.divmod(np.asarray(positions, np.int64).astype(np.uint64), np.uint64(count))
    keys = _mix(_mix(np.array([seed], np.int64).astype(np.uint64)) + epochs)
    rows = math.isqrt(count - 1) + 1
    columns = -(-count // rows)
    values = _permuted(values, keys, rows, columns)
    outside = np.flatnonzero(values >= count)
    while len(outside):
        values[outside] = _permuted(values[outside], keys[outside], rows, columns)
        outside = outside[values[outside] >= count]
    return values.astype(np.int64)


def distinct_positions(positions: np.ndarray, batch_size: int, repeats: int) -> np.ndarray:
    """Return the position of each row's record among different records, where a batch repeats its own.

    A batch begins with its `ceil(batch_size / repeats)` records, one after the other, then begins again until it is
    full. So rows of the same record lie far apart, and mixing neighbours mixes different ones.

    Args:
      positions: int64 `(b,)`, of rows in the endless sequence of batches.
      batch_size: rows of a batch.
      repeats: how often a record is repeated, from 1.
    """
    steps, rows = np.divmod(positions, batch_size)
    records = -(-batch_size // repeats)
    return steps * records + rows % records


def substitute(position: int, attempt: int) -> np.ndarray:
    """Return a position `(1,)` whose record may take the place of a bad one: far beyond any run, always the same."""
    return np.array([2**60 + (position << 4) + attempt], np.int64)


def _permuted(values: np.ndarray, keys: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Return a permutation of `[0, rows * columns)` applied to values, one per key; all uint64."""
    a, b = np.uint64(rows), np.uint64(columns)
    left, right = np.divmod(values, b)
    for step in range(0, _ROUNDS, 2):
        left = (left + _mix(_distinct(right, step) + keys) % a) % a
        right = (right + _mix(_distinct(left, step + 1) + keys) % b) % b
    return left * b + right


def _distinct(values: np.ndarray, step: int) -> np.ndarray:
    """Return numbers that differ for every pair of value and round."""
    return values * np.uint64(_ROUNDS) + np.uint64(step)


def _mix(values: np.ndarray) -> np.ndarray:
    """Return SplitMix64's output for each uint64 state (Steele, Lea and Flood, OOPSLA 2014)."""
    values = (values + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
