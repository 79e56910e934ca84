"""Meshes: filling, impossible sizes, batches over devices."""

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from vit_jax.errors import ConfigError
from vit_jax.training import mesh as meshes


def _make(data=-1, fsdp=1, tensor=1, devices=None):
    return meshes.make_mesh(dict(data=data, fsdp=fsdp, tensor=tensor), devices)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ((-1, 1, 1), (8, 1, 1)),
        ((-1, 2, 2), (2, 2, 2)),
        ((1, -1, 1), (1, 8, 1)),
        ((2, 2, -1), (2, 2, 2)),
        ((8, -1, 1), (8, 1, 1)),
        ((2, 4, 1), (2, 4, 1)),
    ],
)
def test_sizes(asked, expected):
    mesh = _make(*asked)
    assert mesh.axis_names == ("data", "fsdp", "tensor")
    assert tuple(mesh.shape.values()) == expected
    assert mesh.axis_types == (AxisType.Auto,) * 3
    assert set(mesh.devices.flat) == set(jax.devices())


def test_chosen_devices():
    mesh = _make(fsdp=3, devices=jax.devices()[2:5])
    assert dict(mesh.shape) == dict(data=1, fsdp=3, tensor=1)
    assert list(mesh.devices.flat) == jax.devices()[2:5]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ((0, 1, 1), "mesh.data is 0; it must be at least 1, or -1"),
        ((1, -2, 1), "mesh.fsdp is -2"),
        ((-1, -1, 1), "data=-1 fsdp=-1 tensor=1; only one axis can be -1"),
        (
            (3, 1, 1),
            "data=3 fsdp=1 tensor=1, which does not make 8 devices; possible are data=8 fsdp=1 tensor=1",
        ),
        ((-1, 1, 3), "possible are data=2 fsdp=1 tensor=4; data=4 fsdp=1 tensor=2"),
        ((4, 4, 1), "possible are data=4 fsdp=2 tensor=1; data=2 fsdp=4 tensor=1"),
        ((16, 1, 1), "does not make 8"),
    ],
)
def test_impossible_sizes(asked, message):
    with pytest.raises(ConfigError, match=message):
        _make(*asked)


def test_check_batch():
    mesh = _make(-1, 2, 2)
    meshes.check_batch(64, 2, mesh, "data.batch_size")
    meshes.check_batch(4, 1, mesh, "data.batch_size")
    with pytest.raises(
        ConfigError, match=r"data.batch_size is 65; .* multiple of 8 .*, for example 64 or 72\."
    ):
        meshes.check_batch(65, 2, mesh, "data.batch_size")
    with pytest.raises(ConfigError, match=r"data.eval_batch_size is 3; .*, for example 4\."):
        meshes.check_batch(3, 1, mesh, "data.eval_batch_size")
    with pytest.raises(ConfigError, match=r"data.batch_size is 0; .*, for example 4\."):
        meshes.check_batch(0, 1, mesh, "data.batch_size")
    with pytest.raises(ConfigError, match="accumulation is 0"):
        meshes.check_batch(8, 0, mesh, "data.batch_size")


def test_hosts_need_rows_of_their_own(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    meshes.check_batch(8, 1, _make(2, 1, 4), "data.batch_size")
    with pytest.raises(ConfigError, match="not a multiple of the 2 hosts"):
        meshes.check_batch(8, 1, _make(1, 1, 8), "data.batch_size")


def test_shard_batch():
    mesh = _make(-1, 2, 2)
    batch = {"image": np.arange(8 * 6, dtype=np.uint8).reshape(8, 6), "label": np.arange(8, dtype=np.int32)}
    with jax.transfer_guard("disallow"):
        sharded = meshes.shard_batch(batch, mesh)
    for name, rows in batch.items():
        assert sharded[name].sharding == meshes.batch_sharding(mesh)
        assert sharded[name].addressable_shards[0].data.shape == (2, *rows.shape[1:])
        assert sharded[name].dtype == rows.dtype
        np.testing.assert_array_equal(sharded[name], rows)


def test_shardings():
    mesh = _make(-1, 2, 2)
    assert meshes.batch_sharding(mesh).spec == PartitionSpec(("data", "fsdp"))
    assert meshes.replicated(mesh).is_fully_replicated
