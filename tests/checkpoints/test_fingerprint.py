import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from vit_jax.checkpoints.fingerprint import BLOCK, combine, entry_of_host, fingerprint, table

DTYPES = ["float32", "bfloat16", "float16", "int32", "uint32", "int8", "uint8", "bool", "float64", "int64"]


def example(dtype, shape=(8, 12)):
    values = np.random.default_rng(0).normal(size=shape) * 50
    return (values > 0) if dtype == "bool" else values.astype(jnp.dtype(dtype))


def put(value, mesh_shape, spec):
    devices = np.array(jax.devices()[: int(np.prod(mesh_shape))]).reshape(mesh_shape)
    mesh = jax.sharding.Mesh(devices, ("a", "b"), axis_types=(AxisType.Auto, AxisType.Auto))
    return jax.device_put(value, NamedSharding(mesh, PartitionSpec(*spec)))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "bool"])
def test_equal_on_every_mesh(dtype):
    value = example(dtype)
    expected = fingerprint({"x": value})
    layouts = [
        ((1, 1), ()),
        ((8, 1), ("a",)),
        ((4, 2), ("a", "b")),
        ((2, 2), (None, ("a", "b"))),
        ((2, 4), ()),
    ]
    assert {fingerprint({"x": put(value, *layout)}) for layout in layouts} == {expected}


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_flipped_bit_changes_it(dtype):
    value = example(dtype, (3, 5))
    expected = table({"x": value})["x"][2]
    seen = set()
    for index in np.ndindex(value.shape):
        if dtype == "bool":
            flips = [~value[index]]
        else:
            raw = value[index : index + 1] if value.ndim == 1 else value[index].reshape(1)
            bits = raw.view(f"u{raw.itemsize}")
            flips = [
                (bits ^ (bits.dtype.type(1) << bits.dtype.type(bit))).view(value.dtype)[0]
                for bit in range(raw.itemsize * 8)
            ]
        for flipped in flips:
            other = value.copy()
            other[index] = flipped
            seen.add(table({"x": other})["x"][2])
    assert expected not in seen
    assert len(seen) == value.size * (1 if dtype == "bool" else value.itemsize * 8)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (7,), (3, 5, 2), (0, 4), (BLOCK + 5,)])
def test_the_host_computes_the_same(dtype, shape):
    value = np.asarray(example(dtype, shape))
    assert entry_of_host(value) == table({"x": value})["x"]


def test_order_sign_and_shape_count():
    value = example("float32")
    seen = {fingerprint({"x": value}), fingerprint({"x": value.T}), fingerprint({"x": value.reshape(12, 8)})}
    rng = np.random.default_rng(1)
    for i in range(50):
        j = rng.integers(i + 1, value.size)
        swapped = value.flatten()
        swapped[[i, j]] = swapped[[j, i]]
        seen.add(fingerprint({"x": swapped.reshape(value.shape)}))
    signed = np.array([1.0, -1.0], np.float32)
    seen |= {fingerprint({"x": signed}), fingerprint({"x": signed[::-1].copy()})}
    assert len(seen) == 55


def test_path_and_dtype_count():
    zeros = np.zeros(4, np.float32)
    trees = [
        {"x": zeros},
        {"y": zeros},
        {"x": {"y": zeros}},
        {"x": zeros.astype(np.int32)},
        {"x": np.zeros(5, np.float32)},
        {"x": zeros, "y": zeros},
        {"x": np.array([0.0, 0.0, 0.0, -0.0], np.float32)},
    ]
    assert len({fingerprint(tree) for tree in trees}) == len(trees)


def test_nan_has_a_fingerprint_and_scalars_and_empty_arrays_too():
    tree = {"nan": np.float32("nan"), "scalar": jnp.int32(3), "empty": np.zeros((0, 3), np.float32)}
    assert fingerprint(tree) == fingerprint(jax.tree.map(jnp.asarray, tree))
    assert len(fingerprint(tree)) == 16


def test_any_container_and_any_order_of_entries():
    leaf = np.arange(3)
    assert fingerprint((leaf, {"a": leaf})) == fingerprint({"0": leaf, "1": {"a": leaf}})
    entries = table({"a": leaf, "b": leaf + 1})
    assert combine(dict(reversed(entries.items()))) == combine(entries)


@pytest.mark.parametrize("dtype", ["float64", "int64", "uint64"])
def test_wide_numbers_on_host_and_device_agree(dtype):
    value = example(dtype)
    expected = fingerprint({"x": value})
    with jax.enable_x64(True):
        on_device = jnp.asarray(value)
        assert on_device.dtype == dtype
        assert fingerprint({"x": on_device}) == expected


def test_it_is_the_same_in_every_version():
    """Stored with every checkpoint: a change here makes all of them unreadable."""
    tree = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array([True, False]), "c": np.int32(7)}
    assert table(tree) == {
        "a": ["float32", [2, 3], "61e3a7f4"],
        "b": ["bool", [2], "e41857c5"],
        "c": ["int32", [], "18c9aec4"],
    }
