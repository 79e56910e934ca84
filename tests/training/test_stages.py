"""Models in stages in training: on digits, resumed, sharded, and with batch norms in microbatches."""

import shutil

import jax
import numpy as np
import pytest

import vit_jax
from tests.starts import initial
from tests.tiny import assert_trees_close
from vit_jax import trees
from vit_jax.inference.features import FeatureExtractor
from vit_jax.inference.predictor import Predictor
from vit_jax.models.functional import buffers_of
from vit_jax.training.config import default_config
from vit_jax.training.experiment import build
from vit_jax.training.step import compile_step, microbatches

TWO = dict(kernels=(7, 3), strides=(1, 2), pads=(2, 1))
SMALL = {
    "cvt": dict(name="cvt-13", widths=(8, 16), depths=(1, 2), head_dim=8, **TWO, unroll=1),
    "mvit": dict(
        name="mvitv2_tiny",
        width=8,
        depths=(1, 2),
        head_dim=8,
        patch_stride=1,
        class_token=True,
        pool="cls",
    ),
}
DIVIDED = {
    "cvt": "stages/1/blocks/attn/query/dense/kernel",
    "mvit": "stages/1/runs/0/blocks/attn/qkv/kernel",
}


def configuration(family, **changes):
    config = default_config()
    config.duration = "30 steps"
    config.model.update(SMALL[family], image_size=8, in_channels=1, num_classes=10, drop_path_rate=0.1)
    config.data.update(batch_size=64, eval_batch_size=360)
    config.optimizer.update(learning_rate=1e-2, weight_decay=0.05, layer_decay=0.9)
    config.sharding.min_size = 0
    config.evaluation.update(every="30 steps", illustrate=2)
    config.checkpoint.every = "15 steps"
    config.log.update(every="1 step", tensorboard=False, progress=False)
    for key, value in changes.items():
        section, _, name = key.partition("__")
        config[section][name] = value
    return config


@pytest.fixture(scope="module", params=SMALL)
def run(request, compile_cache, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return request.param, folder, vit_jax.train(configuration(request.param), folder)


def test_it_learns_digits_and_is_used(run):
    _, folder, result = run
    assert result.metrics["loss"] < np.log(10)
    predictor = Predictor.load(folder)
    image = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 1), np.uint8)
    assert predictor.probabilities(image).shape == (2, 10)
    assert FeatureExtractor.load(folder).features(image).shape == (2, 16)
    model = vit_jax.load(folder)
    for path, leaf in trees.flatten(buffers_of(model)).items():
        np.testing.assert_array_equal(leaf, trees.flatten(result.state.buffers)[path])
    assert list(folder.rglob("*.png"))


def test_it_is_resumed_bitwise_with_its_statistics(run, tmp_path):
    family, folder, whole = run
    shutil.copytree(folder, tmp_path / "half")
    shutil.rmtree(tmp_path / "half" / "checkpoints" / "30")
    resumed = vit_jax.train(configuration(family), tmp_path / "half")
    for part in ("params", "buffers"):
        ours, theirs = (trees.flatten(getattr(result.state, part)) for result in (resumed, whole))
        assert ours.keys() == theirs.keys()
        for path, leaf in ours.items():
            np.testing.assert_array_equal(np.asarray(leaf), np.asarray(theirs[path]), path)


def stepped(family, mesh):
    """The state after two steps, noise everywhere before."""
    config = configuration(
        family, model__drop_path_rate=0.0, optimizer__name="sgd", optimizer__learning_rate=0.01
    )
    config.mesh.update(dict(zip(("data", "fsdp", "tensor"), mesh)))
    experiment = build(config, devices=jax.devices()[: int(np.prod(mesh))])
    state = initial(experiment)
    step = compile_step(experiment.step, jax.tree.map(lambda x: x.sharding, state), None)
    batches = experiment.data.train_batches(0)
    for _ in range(2):
        state, _ = step(state, experiment.devices.put(next(batches)))
    batches.close()
    return experiment, jax.device_get(state)


@pytest.mark.parametrize("family", SMALL)
def test_every_stage_is_looked_at_where_numbers_are_not_finite(family):
    experiment = build(configuration(family), devices=jax.devices()[:1])
    state, objective = experiment.abstract_state, experiment.task.objective

    def looked_at(params, buffers, batch):
        key = jax.random.key(0)
        return objective.activations(params, buffers, objective.prepare(batch, key), key)

    found = jax.eval_shape(looked_at, state.params, state.buffers, experiment.abstract_batch())
    assert [name for name in found if name.startswith("stages/")] == ["stages/0", "stages/1"]


@pytest.mark.parametrize("family", SMALL)
def test_eight_devices_are_one(family):
    _, expected = stepped(family, (1, 1, 1))
    experiment, state = stepped(family, (2, 2, 2))
    assert_trees_close(state.params, expected.params, rtol=1e-4, atol=1e-6)
    assert_trees_close(state.buffers, expected.buffers, rtol=1e-5, atol=1e-6)
    spec = trees.flatten(experiment.abstract_state.params)[DIVIDED[family]].sharding.spec
    assert {"fsdp", "tensor"} <= set(spec)


def test_microbatches_have_statistics_of_their_own_in_turn(compile_cache):
    """As in torch: each is normalised by itself, so that the sum is not the large batch's."""
    config = configuration("cvt", model__drop_path_rate=0.0, model__depths=(1, 1))
    config.accumulation = 2
    experiment = build(config, devices=jax.devices()[:1])
    state = initial(experiment)
    batch = experiment.devices.put(next(experiment.data.train_batches(0)))
    buffers, objective = state.buffers, experiment.task.objective
    prepared = objective.prepare(batch, jax.random.key(0))
    for half in range(2):
        part = jax.tree.map(lambda x, half=half: x[half], microbatches(prepared, 2))
        _, out = jax.jit(objective.loss)(state.params, buffers, part, jax.random.key(0))
        buffers = out.buffers
    expected = jax.device_get(buffers)
    after, _ = jax.jit(experiment.step)(state, batch)
    assert_trees_close(jax.device_get(after.buffers), expected, rtol=1e-5, atol=1e-6)
