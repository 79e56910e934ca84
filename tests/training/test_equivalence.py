"""The same training on every mesh: one device, and all factorizations of 2, 4 and 8."""

import jax
import numpy as np
import pytest

from tests.starts import initial
from tests.tiny import assert_trees_close
from vit_jax.training.config import default_config, validate
from vit_jax.training.experiment import build
from vit_jax.training.step import compile_step
from vit_jax.trees import flatten

OBJECTIVES = {
    "plain": {"name": "classification"},
    "noisy": {"name": "classification", "mixup": 0.4, "label_smoothing": 0.1},
    "mae": {
        "name": "mae",
        "mask_ratio": 0.5,
        "decoder_width": 16,
        "decoder_depth": 1,
        "decoder_heads": 8,
        "decoder_mlp_dim": 16,
    },
}
MESHES = [
    (data, fsdp, tensor)
    for data in (1, 2, 4, 8)
    for fsdp in (1, 2, 4, 8)
    for tensor in (1, 2, 4, 8)
    if data * fsdp * tensor <= 8
]
# Random numbers and the second objective take long to compile: where all axes act together.
CASES = [("plain", mesh) for mesh in MESHES[1:]]
CASES += [("noisy", (2, 2, 2)), ("mae", (2, 2, 2))]


def configuration(objective, mesh):
    config = default_config()
    config.duration = "4 steps"
    config.objective = OBJECTIVES[objective]
    config.model.update(name="vit_mu_patch4_8", width=16, depth=1, heads=8, mlp_dim=16, num_classes=8)
    config.model.update(in_channels=1, unroll=1)
    if objective == "noisy":
        config.model.update(dropout_rate=0.1, drop_path_rate=0.2, drop_path_schedule="constant")
    config.data.update(source="synthetic", size=16, batch_size=8)
    config.optimizer.update(name="sgd", learning_rate=0.1, weight_decay=0.1)
    # Divide everything, down to the biases; a few of them do not divide.
    config.sharding.update(min_size=0, max_replicated=0.05)
    config.mesh.update(dict(zip(("data", "fsdp", "tensor"), mesh)))
    validate(config)
    return config


def train(objective, mesh):
    """Parameters and metrics after two steps."""
    experiment = build(configuration(objective, mesh), devices=jax.devices()[: int(np.prod(mesh))])
    assert tuple(experiment.devices.mesh.shape.values()) == mesh
    state = initial(experiment)
    step = compile_step(experiment.step, jax.tree.map(lambda x: x.sharding, state), None)
    batches = experiment.data.train_batches(0)
    metrics = {}
    for _ in range(2):
        state, metrics = step(state, experiment.devices.put(next(batches)))
    batches.close()
    return state.params, {name: float(value) for name, value in metrics.items()}


@pytest.fixture(scope="module")
def alone():
    """The results on one device, by objective."""
    return {objective: train(objective, (1, 1, 1)) for objective in OBJECTIVES}


def test_all_factorizations_are_here():
    assert [sum(np.prod(mesh) == count for mesh in MESHES) for count in (1, 2, 4, 8)] == [1, 3, 6, 10]


@pytest.mark.parametrize(("objective", "mesh"), CASES)
def test_every_mesh_is_one_device(alone, objective, mesh):
    params, metrics = train(objective, mesh)
    expected, expected_metrics = alone[objective]
    assert_trees_close(jax.device_get(params), jax.device_get(expected), rtol=1e-5, atol=0)
    assert metrics == pytest.approx(expected_metrics, rel=1e-5)
    # What is divided really is: a device holds its share of the largest matrices.
    names = ("fc1", "fc2", "qkv", "out")
    for path, leaf in flatten(params).items():
        if path.endswith("kernel") and any(f"{name}/" in path for name in names):
            share = leaf.addressable_shards[0].data.size / leaf.size
            assert share == 1 / (mesh[1] * mesh[2]), path
