"""What the tests of weight files compare and provoke."""

import numpy as np

from vit_jax.errors import CheckpointError, VitError


def same(tensors, arrays):
    """The tensors of a file are these arrays: names, shapes, dtypes and bits."""
    assert set(tensors) == set(arrays)
    for name, array in arrays.items():
        read = tensors[name].read()
        assert read.shape == tensors[name].shape == array.shape, name
        assert read.dtype == tensors[name].dtype == array.dtype, name
        assert np.ascontiguousarray(read).tobytes() == np.ascontiguousarray(array).tobytes(), name


def refused(action, why, may_pass=False):
    """The action raises a `CheckpointError` of one line that says why; returns the line."""
    try:
        action()
    except CheckpointError as error:
        line = str(error)
        assert line.isprintable(), "a message is one printable line"
        assert len(line) < 600
        assert why in line, line
        return line
    assert may_pass, "not refused"
    return ""


def line_of(action):
    """What an action refuses with, or nothing if it does not."""
    try:
        action()
    except VitError as error:
        return str(error)
    return ""


def damages(content, count):
    """Versions of a file with bytes flipped, lost or cut off."""
    rng = np.random.default_rng(1)
    for _ in range(count):
        changed, place = bytearray(content), int(rng.integers(len(content)))
        match rng.integers(3):
            case 0:
                changed[place] ^= 1 << int(rng.integers(8))
            case 1:
                del changed[place:]
            case 2:
                del changed[place : place + int(rng.integers(1, 9))]
        yield bytes(changed)
