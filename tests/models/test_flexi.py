"""FlexiViT: training draws a patch size for each step, and is the model that would be loaded at that size."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import vit_jax
from tests.tiny import assert_trees_close, functions, labelled, parameters, pixels, randomised, run, tiny
from vit_jax import trees
from vit_jax.errors import ConfigError
from vit_jax.models import functional
from vit_jax.models.draws import choices, drawing
from vit_jax.models.flops import forward_macs, training_flops
from vit_jax.models.layers.positions.resample import resample_patch_kernel
from vit_jax.models.names.resolve import resolve
from vit_jax.models.vit.config import replace
from vit_jax.objectives.base import DataInfo
from vit_jax.objectives.classification.options import ClassificationOptions
from vit_jax.objectives.mae.options import MaeOptions
from vit_jax.objectives.registry import build_objective
from vit_jax.objectives.segmentation.options import SegmentationOptions
from vit_jax.training.config import default_config
from vit_jax.training.report.callbacks import Callback
from vit_jax.training.state import TrainState
from vit_jax.training.step import as_drawn, make_step

FLEXI = tiny(depth=1, patch_sizes=(2, 4, 8))
KEY = jax.random.key(3)


def test_training_at_a_size_is_the_model_loaded_at_it(tmp_path):
    vit_jax.save(functions(FLEXI).bind(parameters(FLEXI)), tmp_path)
    for size in (2, 8):  # finer and coarser than its own
        loaded = vit_jax.load(tmp_path, patch_size=size, verbose=False)
        expected = run(loaded.config, pixels(), params=functional.parameters(loaded))

        def call(images, size=size):
            with drawing(size):
                return functions(FLEXI).apply(parameters(FLEXI), images, KEY, capture="embedded")

        found, values = jax.jit(call)(pixels())
        assert values["embedded"].shape == (2, 1 + (16 // size) ** 2, 32)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    # Its own size, and outside of training, is the plain model.
    assert run(FLEXI, pixels(), KEY, capture=("embedded",))[1]["embedded"].shape == (2, 17, 32)


def test_big_visions_files_are_resized_as_published(tmp_path):
    model = functions(replace(FLEXI, activation="gelu_tanh", patch_sizes=())).bind(parameters(FLEXI))
    for name, rule in (("flexivit_s_i1k", ("bilinear", False)), ("vit_s_i1k", ("bicubic", True))):
        vit_jax.save(model, tmp_path / f"{name}.npz", format="npz")
        loaded = vit_jax.load(tmp_path / f"{name}.npz", patch_size=2, verbose=False)
        kernel = np.asarray(parameters(FLEXI)["patch_embed"]["kernel"])
        expected = resample_patch_kernel(kernel, (2, 2), "flexi", *rule)
        found = functional.parameters(loaded)["patch_embed"]["kernel"]
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)


def objective_of(config):
    return build_objective(ClassificationOptions(), config, DataInfo(5))


def test_each_size_is_drawn_as_often_and_by_the_step_alone():
    def size(step):
        drawn = lambda: jnp.int32(parameters_seen())  # noqa: E731
        return as_drawn(objective_of(FLEXI), 7, step, drawn)

    def parameters_seen():
        shape = jax.eval_shape(
            lambda images: functions(FLEXI).apply(parameters(FLEXI), images, KEY, capture="embedded")[1],
            pixels(),
        )["embedded"].shape
        return shape[1] - 1

    tokens = np.asarray(jax.jit(lambda steps: jax.lax.map(size, steps))(jnp.arange(600)))
    counts = {count: int((tokens == count).sum()) for count in (64, 16, 4)}
    assert sum(counts.values()) == 600
    assert min(counts.values()) > 160


def stepped(devices=1, accumulation=1):
    objective, optimizer = objective_of(replace(FLEXI, patch_sizes=(4, 8))), optax.sgd(0.1)
    params = randomised(jax.eval_shape(objective.init, KEY)[0])
    state = TrainState(jnp.zeros((), jnp.int32), params, {}, optimizer.init(params), None)
    batch = labelled(16)
    if devices > 1:
        mesh = Mesh(np.asarray(jax.devices()[:devices]), ("data",))
        batch = jax.device_put(batch, NamedSharding(mesh, PartitionSpec("data")))
        state = jax.device_put(state, NamedSharding(mesh, PartitionSpec()))
    step = jax.jit(make_step(objective, optimizer, lambda step: 0.1, seed=1, accumulation=accumulation))
    with jax.numpy_dtype_promotion("standard"):  # for optax
        for _ in range(3):
            state, metrics = step(state, batch)
    assert step._cache_size() == 1
    return state.params, float(metrics["loss"])


def test_steps_are_the_same_on_many_devices_and_in_parts():
    expected, loss = stepped()
    found, other = stepped(devices=8, accumulation=2)
    assert_trees_close(found, expected, rtol=5e-6)
    np.testing.assert_allclose(other, loss, rtol=1e-5)


def configuration():
    config = default_config()
    config.model.update(
        name="vit_mu_patch4_8", in_channels=1, width=16, depth=1, heads=2, mlp_dim=32, patch_sizes=(2, 4)
    )
    config.data.update(batch_size=32, eval_batch_size=360)
    config.duration = "4 steps"
    config.evaluation.update(every="4 steps", illustrate=0)
    config.checkpoint.every = "2 steps"
    config.log.update(every="1 steps", tensorboard=False, progress=False)
    return config


class Stop(Exception):
    pass


class Stopping(Callback):
    def on_step(self, step, metrics):
        if step == 2:
            raise Stop


def test_it_is_resumed_bitwise(compile_cache, tmp_path):
    whole = vit_jax.train(configuration(), tmp_path / "whole")
    with pytest.raises(Stop):
        vit_jax.train(configuration(), tmp_path / "parts", callbacks=[Stopping()])
    resumed = vit_jax.train(configuration(), tmp_path / "parts")
    ours, theirs = (trees.flatten(result.state.params) for result in (resumed, whole))
    for path, leaf in theirs.items():
        np.testing.assert_array_equal(ours[path], leaf, err_msg=path)


def test_what_is_counted_is_the_mean_over_sizes():
    config = resolve("flexivit_small")[1]
    flexi = replace(config, patch_sizes=(16, 48))
    parts = [forward_macs(replace(config, patch_size=size)) for size in (16, 48)]
    assert training_flops(flexi) == 6 * (sum(parts) // 2)
    assert forward_macs(flexi) == forward_macs(config)
    assert (config.image_size, config.load_resample, choices(config)) == ((240, 240), "bilinear", ())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            dict(patch_sizes=(4, 5)),
            "image_size has height 16, not divisible by one of patch_sizes, 5; the nearest",
        ),
        (dict(patch_sizes=(4, 0)), r"patch_sizes are \(4, 0\); each must be at least 1"),
        (dict(patch_sizes=4), "patch_sizes is 4; it must be a list of integers"),
        (dict(patch_sizes=(4,), stem=(8,)), "patch_sizes cannot change behind a stem; leave them out"),
    ],
)
def test_sizes_that_cannot_be_drawn_are_one_line(options, message):
    with pytest.raises(ConfigError, match=message) as caught:
        tiny(**options)
    assert "\n" not in str(caught.value)


def test_objectives_of_one_size_say_so():
    with pytest.raises(ConfigError, match=r"encoder .* has patch_sizes \(2, 4, 8\); it must be \(\)"):
        build_objective(MaeOptions(decoder_width=16, decoder_depth=1, decoder_heads=2), FLEXI, DataInfo(5))
    with pytest.raises(
        ConfigError, match=r"model.patch_sizes are \(2, 4, 8\), but SemanticSegmentation trains"
    ):
        build_objective(SegmentationOptions(), FLEXI, DataInfo(5))
