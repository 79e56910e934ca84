"""Meshes: filling, impossible sizes, batches over devices, several slices and processes."""

from dataclasses import dataclass

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from tests.libtpu import needs_libtpu, printed_with_libtpu
from vit_jax.errors import ConfigError
from vit_jax.training.devices import mesh as meshes


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
            "data=3 fsdp=1 tensor=1, which does not multiply to 8 devices; possible are data=8 fsdp=1 tensor=1",
        ),
        ((-1, 1, 3), "possible are data=2 fsdp=1 tensor=4; data=4 fsdp=1 tensor=2"),
        ((4, 4, 1), "possible are data=4 fsdp=2 tensor=1; data=2 fsdp=4 tensor=1"),
        ((16, 1, 1), "does not multiply to 8"),
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


# ---- several slices, several processes


@dataclass(frozen=True)
class Device:
    """What a mesh asks of a device."""

    id: int
    process_index: int = 0
    slice_index: int = 0
    platform: str = "tpu"
    device_kind: str = "TPU v5p"
    core_on_chip: int = 0

    @property
    def coords(self):
        return (self.id % 4, 0, 0)


def _of(mesh, attribute):
    return np.vectorize(lambda device: getattr(device, attribute))(mesh.devices)


def _two_slices(first=4, second=4):
    # Not in the order of slices: nothing promises that.
    devices = [Device(i, slice_index=0) for i in range(first)]
    devices += [Device(first + i, slice_index=1) for i in range(second)]
    return devices[::2] + devices[1::2]


@pytest.mark.parametrize(
    ("asked", "sizes"), [((-1, 2, 1), (4, 2, 1)), ((2, -1, 1), (2, 4, 1)), ((2, 2, 2), (2, 2, 2))]
)
def test_data_lies_across_slices(monkeypatch, asked, sizes):
    monkeypatch.setattr(meshes, "Mesh", lambda devices, axes, axis_types: Arranged(devices, axes, axis_types))
    mesh = _make(*asked, devices=_two_slices())
    assert mesh.devices.shape == sizes
    assert mesh.axis_types == (AxisType.Auto,) * 3
    slices = _of(mesh, "slice_index")
    half = sizes[0] // 2
    assert (slices[:half] == 0).all()
    assert (slices[half:] == 1).all()
    assert sorted(_of(mesh, "id").flat) == list(range(8))


@dataclass(frozen=True)
class Arranged:
    """The mesh as it was asked for; jax's own wants real devices."""

    devices: np.ndarray
    axes: tuple[str, ...]
    axis_types: tuple[AxisType, ...]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            (1, 8, 1),
            r"data=1 fsdp=8 tensor=1, but the 8 devices are in 2 slices, and mesh.data must be a multiple of that; "
            r"possible are data=2 fsdp=4 tensor=1;",
        ),
        ((-1, 4, 2), r"data=1 fsdp=4 tensor=2, but .* possible are data=2 fsdp=2 tensor=2;"),
        (
            (3, 1, 1),
            r"does not multiply to 8 devices; possible are data=2 fsdp=1 tensor=4;|data=4 fsdp=1 tensor=2",
        ),
    ],
)
def test_slices_are_not_mixed(asked, message):
    with pytest.raises(ConfigError, match=message):
        _make(*asked, devices=_two_slices())


def test_slices_have_one_size():
    with pytest.raises(
        ConfigError, match=r"the 6 devices are slices of 4, 2 devices; all slices must have the same size"
    ):
        _make(-1, 1, 1, devices=sorted(_two_slices(4, 2), key=lambda device: device.id))


@pytest.mark.parametrize(("asked", "inside"), [((-1, 4, 1), 1), ((-1, 2, 2), 1), ((-1, 8, 1), 2)])
def test_fsdp_and_tensor_stay_inside_a_process_where_they_fit(monkeypatch, asked, inside):
    monkeypatch.setattr(meshes, "Mesh", lambda devices, axes, axis_types: Arranged(devices, axes, axis_types))
    # Hosts of GPUs are "slices" of their own for jax; one mesh may well go over several.
    devices = [Device(i, i % 2, i % 2, platform="gpu", device_kind="a GPU") for i in range(8)]
    mesh = _make(*asked, devices=devices)
    for row in _of(mesh, "process_index"):
        assert len(set(row.flat)) == inside


TOPOLOGY = """
import collections, itertools, json
import jax
from jax.experimental.topologies import get_topology_desc
from vit_jax.errors import ConfigError
from vit_jax.training.devices.mesh import make_mesh

found = {}
for name, slices in (("v5e:2x2", 1), ("v5e:2x2", 2), ("v5e:2x4", 4), ("v6e:4x4", 2), ("v5p:2x2x2", 2)):
    chip = {"chip_config_name": "megacore"} if name.startswith("v5p") else {}
    devices = get_topology_desc(platform="tpu", topology_name=name, num_slices=slices, **chip).devices
    count = len(devices)
    for fsdp, tensor in itertools.product((1, 2, 4, 8), repeat=2):
        if count % (fsdp * tensor):
            continue
        asked = dict(data=-1, fsdp=fsdp, tensor=tensor)
        try:
            mesh = make_mesh(asked, devices)
        except ConfigError as error:
            found[f"{name} {slices} {fsdp} {tensor}"] = str(error)
            continue
        # A row is what one index of `data` sees: fsdp and tensor.
        rows = [{getattr(device, "slice_index", 0) for device in row.flat} for row in mesh.devices]
        found[f"{name} {slices} {fsdp} {tensor}"] = [
            list(mesh.devices.shape), [sorted(row) for row in rows], len(set(mesh.devices.flat)) == count
        ]
print(json.dumps(found))
"""


@needs_libtpu
def test_meshes_of_real_topologies():
    found = printed_with_libtpu(TOPOLOGY)
    assert len(found) > 25
    refused = 0
    for case, outcome in found.items():
        slices, fsdp, tensor = map(int, case.split()[1:])
        if isinstance(outcome, str):
            refused += 1
            assert f"are in {slices} slices, and mesh.data must be a multiple" in outcome
            continue
        (data, *inside), rows, complete = outcome
        assert inside == [fsdp, tensor]
        assert complete
        # The first rows are the first slice's, and so on.
        assert rows == [[row * slices // data] for row in range(data)]
    assert refused
