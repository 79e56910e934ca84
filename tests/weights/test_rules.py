"""Rules say once how arrays correspond, and are used both ways."""

import numpy as np
import pytest

from tests.weights.checks import refused
from vit_jax.weights.rules import (
    CONV,
    FLAT,
    MATRIX,
    ONE,
    ROW,
    SAME,
    Rule,
    grid,
    matrix,
    pixel_shuffle,
    plain_matrix,
    rule,
)
from vit_jax.weights.target import Whole, aligned, place

RNG = np.random.default_rng(0)


def array(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def through(item, params):
    """Parameters written by a rule and read again, and the arrays between."""
    files = {name: np.ascontiguousarray(make()) for name, make in item.write(params)}
    shapes = {path: leaf.shape for path, leaf in params.items()}
    found = {}
    for path in item.ours:
        target = Whole(shapes[path])
        item.read(path, shapes, files.__getitem__, target)
        found[path] = target.array
    return found, {name: file.shape for name, file in files.items()}


@pytest.mark.parametrize(
    ("form", "ours", "theirs"),
    [
        (SAME, (3, 4), (3, 4)),
        (FLAT, (3, 2, 4), (24,)),
        (ROW, (5, 4), (1, 5, 4)),
        (ONE, (), (1,)),
        (CONV, (2, 3, 4, 5), (5, 4, 2, 3)),
        (MATRIX, (3, 2, 4), (8, 3)),
        (matrix(2), (2, 4, 3), (3, 8)),
        (plain_matrix(), (3, 2, 4), (3, 8)),
        (grid((2, 3)), (6, 4), (1, 2, 3, 4)),
        (pixel_shuffle((2, 3), 4), (5, 24), (24, 5, 1, 1)),
        (pixel_shuffle((2, 3), 4), (24,), (24,)),
    ],
)
def test_forms_go_both_ways(form, ours, theirs):
    params = {"w": array(*ours)}
    found, shapes = through(rule("w", "x", form=form), params)
    assert shapes == {"x": theirs}
    assert np.array_equal(found["w"], params["w"])


def test_blocks_are_arrays_of_their_own_or_stacked():
    params = {"blocks/w": array(3, 4, 5)}
    for item, names in ((rule("blocks/w", "b.{l}.w", form=MATRIX), 3), (rule("blocks/w", "b.w"), 1)):
        found, shapes = through(item, params)
        assert len(shapes) == names == len(list(item.names(3)))
        assert np.array_equal(found["blocks/w"], params["blocks/w"])


def test_several_of_theirs_make_one_of_ours():
    params = {"blocks/qkv": array(2, 6, 3, 2, 3)}
    found, shapes = through(rule("blocks/qkv", "{l}.q", "{l}.k", "{l}.v", form=MATRIX, axis=1), params)
    assert shapes == {f"{i}.{part}": (6, 6) for i in range(2) for part in "qkv"}
    assert np.array_equal(found["blocks/qkv"], params["blocks/qkv"])


def test_one_of_theirs_makes_several_of_ours():
    params = {"q/kernel": array(6, 2, 3), "kv/kernel": array(6, 2, 2, 3)}
    item = Rule(("q/kernel", "kv/kernel"), ("in_proj",), MATRIX, axis=1)
    found, shapes = through(item, params)
    assert shapes == {"in_proj": (18, 6)}
    assert all(np.array_equal(found[path], params[path]) for path in params)


def test_errors_name_the_array_of_the_block():
    item = rule("blocks/w", "b.{l}.w", form=MATRIX)
    files = {"b.0.w": array(5, 4), "b.1.w": array(5, 3)}
    line = refused(
        lambda: item.read("blocks/w", {"blocks/w": (2, 4, 5)}, files.__getitem__, Whole((2, 4, 5))),
        "b.1.w has shape (5, 3), which does not fit blocks/w of (4, 5)",
    )
    assert "{l}" not in line


def test_axes_of_one_may_differ_and_no_others():
    found, _ = through(rule("w", "x"), {"w": array(4)})
    target = Whole((4,))
    rule("w", "x").read("w", {"w": (4,)}, lambda _: found["w"].reshape(1, 1, 1, 4), target)
    assert np.array_equal(target.array, found["w"])
    refused(
        lambda: rule("w", "x").read("w", {"w": (2, 2)}, lambda _: found["w"], Whole((2, 2))), "does not fit w"
    )


def test_memory_that_devices_take_over():
    memory = aligned((3, 5))
    assert memory.ctypes.data % 64 == 0
    memory[...] = 7
    assert np.array_equal(place(memory), np.full((3, 5), 7))
