"""ZeRO-1: optimizer state and moving average divided over `data`, the same training, checkpoints both ways."""

import dataclasses

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh
from jax.sharding import PartitionSpec as P

from tests.libtpu import needs_libtpu, printed_with_libtpu
from tests.starts import initial
from tests.tiny import assert_trees_close
from tests.training.test_equivalence import configuration
from vit_jax.checkpoints.checkpoints import Checkpoints
from vit_jax.training.devices.mesh import AXES
from vit_jax.training.devices.sharding import RULES, divided_specs
from vit_jax.training.experiment import build
from vit_jax.training.step import compile_step
from vit_jax.trees import flatten

LARGE = {
    "blocks/mlp/fc1/kernel": jax.ShapeDtypeStruct((24, 1024, 4096), np.float32),
    "blocks/mlp/fc1/bias": jax.ShapeDtypeStruct((24, 4096), np.float32),
    "blocks/attn/qkv/kernel": jax.ShapeDtypeStruct((24, 1024, 3, 16, 64), np.float32),
    "head/bias": jax.ShapeDtypeStruct((1000,), np.float32),
    "pos_embed": jax.ShapeDtypeStruct((1, 196, 1024), np.float32),
}


@pytest.mark.parametrize(
    ("sizes", "min_size", "expected"),
    [
        (
            (8, 16, 1),
            2**16,
            {
                "blocks/mlp/fc1/kernel": P(None, "data", "fsdp"),
                # No dimension but the blocks' is free: what is divided is divided once more.
                "blocks/mlp/fc1/bias": P(None, ("fsdp", "data")),
                "blocks/attn/qkv/kernel": P(None, "fsdp", None, None, "data"),
                "head/bias": P(None),
                "pos_embed": P(None, None, "data"),
            },
        ),
        (
            (128, 1, 2),
            2**18,
            {
                "blocks/mlp/fc1/kernel": P(None, "data", "tensor"),
                "blocks/mlp/fc1/bias": P(None, "tensor"),
                "blocks/attn/qkv/kernel": P(None, "data", None, "tensor", None),
                "head/bias": P(None),
                "pos_embed": P(None, None, None),
            },
        ),
        (
            (1, 16, 1),
            2**18,
            {
                "blocks/mlp/fc1/kernel": P(None, None, "fsdp"),
                "blocks/mlp/fc1/bias": P(None, None),
                "blocks/attn/qkv/kernel": P(None, "fsdp", None, None, None),
                "head/bias": P(None),
                "pos_embed": P(None, None, None),
            },
        ),
    ],
)
def test_specs(sizes, min_size, expected):
    assert divided_specs(LARGE, AbstractMesh(sizes, AXES), RULES, min_size) == expected


def experiment_of(mesh, zero1, accumulation=1):
    config = configuration("plain", mesh)
    config.optimizer.update(name="adamw", epsilon=1e-3, learning_rate=0.01)
    config.ema.update(decay=0.9)
    config.sharding.zero1 = zero1
    config.accumulation = accumulation
    return build(config, devices=jax.devices()[: int(np.prod(mesh))])


def compiled(experiment):
    shardings = experiment.devices.state_shardings
    return compile_step(experiment.step, shardings, None)


def two_steps(experiment):
    state, step, batches = initial(experiment), compiled(experiment), experiment.data.train_batches(0)
    average = jax.tree.map(lambda x, there: jax.device_put(x + 1, there.sharding), state.params, state.ema)
    state = dataclasses.replace(state, ema=average)
    metrics = {}
    for _ in range(2):
        state, metrics = step(state, experiment.devices.put(next(batches)))
    batches.close()
    return state, {name: float(value) for name, value in metrics.items()}


@pytest.fixture(scope="module")
def alone():
    """One device, without ZeRO-1, by accumulation."""
    return {count: two_steps(experiment_of((1, 1, 1), False, count)) for count in (1, 2)}


@pytest.mark.parametrize(
    ("mesh", "accumulation"),
    [
        ((8, 1, 1), 1),
        ((4, 2, 1), 1),
        ((2, 4, 1), 1),
        ((4, 1, 2), 1),
        ((2, 1, 4), 1),
        ((2, 2, 2), 1),
        ((2, 2, 2), 2),
    ],
)
def test_the_same_training_in_less_memory(alone, mesh, accumulation):
    experiment = experiment_of(mesh, True, accumulation)
    state, metrics = two_steps(experiment)
    expected, expected_metrics = alone[accumulation]
    # Sums over devices are of float32, in another order.
    for ours, one in ((state.params, expected.params), (state.ema, expected.ema)):
        assert_trees_close(jax.device_get(ours), jax.device_get(one), rtol=1e-5, atol=0)
    assert_trees_close(jax.device_get(state.opt_state), jax.device_get(expected.opt_state), rtol=2e-5)
    assert metrics == pytest.approx(expected_metrics, rel=1e-5)

    # It stays where it was put, after steps that are compiled.
    for path, leaf in flatten(experiment.abstract_state).items():
        assert flatten(state)[path].sharding == leaf.sharding, path
    data, fsdp, tensor = mesh
    params, derived = flatten(state.params), flatten({"ema": state.ema, "opt_state": state.opt_state})
    found = 0
    for path, leaf in derived.items():
        name = next((name for name in params if path.endswith(f"/{name}")), None)
        if name is None or not name.endswith("kernel") or "mlp" not in name:
            continue
        share = leaf.addressable_shards[0].data.size / leaf.size
        kept = params[name].addressable_shards[0].data.size / leaf.size
        assert kept == 1 / (fsdp * tensor), path
        assert share == 1 / (data * fsdp * tensor), path
        found += 1
    assert found == 6  # two kernels: both moments and the average


def test_every_gradient_is_told_where_its_parts_go():
    experiment = experiment_of((8, 1, 1), True)
    lowered = compiled(experiment).lower(experiment.abstract_state, experiment.abstract_batch())
    plain = experiment_of((8, 1, 1), False)
    other = compiled(plain).lower(plain.abstract_state, plain.abstract_batch())
    count = lowered.as_text().count("sharding_constraint")
    assert count - other.as_text().count("sharding_constraint") == len(flatten(plain.abstract_state.params))


def test_checkpoints_go_both_ways(tmp_path):
    on, off = experiment_of((2, 4, 1), True), experiment_of((2, 4, 1), False)
    for name, (first, second) in {"on": (on, off), "off": (off, on)}.items():
        state = jax.block_until_ready(first.init())
        with Checkpoints(tmp_path / name) as checkpoints:
            checkpoints.save(1, state, {}, None)
            checkpoints.wait()
        with Checkpoints(tmp_path / name) as checkpoints:
            restored, _ = checkpoints.restore(second.abstract_state)
        for path, leaf in flatten(restored).items():
            assert leaf.sharding == flatten(second.abstract_state)[path].sharding
            np.testing.assert_array_equal(leaf, flatten(state)[path])


COMPILED = """
import json
import jax
from jax.experimental.topologies import get_topology_desc
from vit_jax.training.config import default_config
from vit_jax.training.experiment import build
from vit_jax.training.step import compile_step

found = []
for zero1 in (False, True):
    config = default_config()
    config.compute_dtype = "bfloat16"
    config.model.update(width=256, depth=1, heads=2, mlp_dim=512, image_size=32, patch_size=16, num_classes=8)
    config.data.update(source="synthetic", size=16, batch_size=16)
    config.optimizer.name = "sgd"
    config.ema.decay = 0.9
    config.sharding.update(zero1=zero1, min_size=1024)
    experiment = build(config, devices=get_topology_desc(platform="tpu", topology_name="v5e:2x2").devices)
    state = experiment.abstract_state
    step = compile_step(experiment.step, jax.tree.map(lambda x: x.sharding, state), None)
    compiled = step.lower(state, experiment.abstract_batch()).compile()
    scattered = "calls=%all-reduce-scatter" in compiled.as_text()
    found.append([scattered, compiled.memory_analysis().argument_size_in_bytes])
print(json.dumps(found))
"""


@needs_libtpu
def test_a_tpu_sums_gradients_by_reduce_scatter_and_holds_less():
    (all_reduced, before), (scattered, after) = printed_with_libtpu(COMPILED)
    # TPU's reduce-scatter is a fusion of this name.
    assert not all_reduced
    assert scattered
    # Parameters stay whole; momentum and the average are a quarter each: (1 + 2 / 4) / 3. Biases stay, too.
    assert 0.5 < after / before < 0.57
