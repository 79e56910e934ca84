"""Swin Transformers are trained like any other model: on digits, sharded, resumed, accumulated, adapted."""

import shutil

import jax
import numpy as np
import pytest

import vit_jax
from tests.starts import initial
from tests.tiny import assert_trees_close
from vit_jax import trees
from vit_jax.training.config import default_config, load_config, validate
from vit_jax.training.experiment import build
from vit_jax.training.parts.treatments import treatments
from vit_jax.training.step import compile_step

NAMES = {"first": "swin_tiny_patch4_window7_224", "second": "swinv2_tiny_window8_256"}
SHAPE = dict(
    image_size=8, patch_size=2, in_channels=1, width=16, depths=(2, 2), heads=(2, 4), window_size=2, unroll=1
)


def configuration(version="first", **changes):
    config = default_config()
    config.duration = "4 steps"
    config.model = {"name": NAMES[version], **SHAPE}
    config.data.update(batch_size=64, eval_batch_size=360)
    config.optimizer.update(learning_rate=3e-3)
    config.evaluation.update(every="4 steps", illustrate=2)
    config.checkpoint.every = "2 steps"
    config.log.update(every="1 step", tensorboard=False, progress=False)
    for key, value in changes.items():
        section, _, name = key.partition("__")
        if name:
            config[section][name] = value
        else:
            config[section] = value
    validate(config)
    return config


def learning(version):
    """Long enough to learn, with randomness in every step."""
    return configuration(
        version, duration="100 steps", evaluation__every="100 steps", evaluation__illustrate=2 * (version == "first"),
        checkpoint__every="90 steps", model__drop_path_rate=0.05, optimizer__learning_rate=5e-3,
        schedule__warmup="10 steps",
    )  # fmt: skip


@pytest.fixture(scope="module")
def first(compile_cache, tmp_path_factory):
    folder = tmp_path_factory.mktemp("first")
    return folder, vit_jax.train(learning("first"), folder)


def assert_learned(result):
    assert result.metrics["accuracy"] > 0.7
    assert result.metrics["loss"] < 1.0 < np.log(10)


def test_the_first_version_learns_digits(first):
    assert_learned(first[1])


def test_the_second_version_learns_digits(compile_cache, tmp_path):
    assert_learned(vit_jax.train(learning("second"), tmp_path))


def test_it_is_resumed_bitwise(first, tmp_path):
    folder, whole = first
    shutil.copytree(folder, tmp_path / "parts")
    shutil.rmtree(tmp_path / "parts" / "checkpoints" / "100")
    resumed = vit_jax.train(learning("first"), tmp_path / "parts")
    ours, other = trees.flatten(resumed.state.params), trees.flatten(whole.state.params)
    for path, leaf in ours.items():
        np.testing.assert_array_equal(np.asarray(leaf), np.asarray(other[path]), path)


def after_two_steps(version, mesh, **changes):
    """Parameters and metrics after two steps from the same state, on some of the devices."""
    config = configuration(
        version, data__source="synthetic", data__size=16, data__batch_size=8, optimizer__name="sgd",
        data__eval_batch_size=8, sharding__min_size=0, sharding__max_replicated=0.5,
        mesh=dict(zip(("data", "fsdp", "tensor"), mesh)), model__num_classes=8, model__depths=(2, 1), **changes,
    )  # fmt: skip
    experiment = build(config, devices=jax.devices()[: int(np.prod(mesh))])
    state = initial(experiment)
    step = compile_step(experiment.step, jax.tree.map(lambda x: x.sharding, state), None)
    batches = experiment.data.train_batches(0)
    for _ in range(2):
        state, metrics = step(state, experiment.devices.put(next(batches)))
    batches.close()
    return jax.device_get(state.params), {name: float(value) for name, value in metrics.items()}, state.params


@pytest.fixture(scope="module")
def alone():
    return {version: after_two_steps(version, (1, 1, 1)) for version in NAMES}


@pytest.mark.parametrize(
    ("version", "mesh"), [("first", (2, 2, 2)), ("second", (2, 2, 2)), ("first", (1, 8, 1))]
)
def test_eight_devices_are_one(alone, version, mesh):
    params, metrics, placed = after_two_steps(version, mesh)
    expected, expected_metrics, _ = alone[version]
    assert_trees_close(params, expected, rtol=2e-5, atol=1e-7)
    assert metrics == pytest.approx(expected_metrics, rel=2e-5)
    flat = trees.flatten(placed)
    for path in ("stages/1/merge/reduction/kernel", "stages/0/blocks/mlp/fc1/kernel"):
        assert not flat[path].sharding.is_fully_replicated, path


def test_accumulation_is_the_large_batch(alone):
    params, metrics, _ = after_two_steps("first", (1, 1, 1), accumulation=4)
    expected, expected_metrics, _ = alone["first"]
    assert_trees_close(params, expected, rtol=2e-5, atol=1e-7)
    assert metrics["loss"] == pytest.approx(expected_metrics["loss"], rel=2e-5)


def test_rates_fall_by_layer_over_all_stages_and_first_blocks_are_frozen():
    section = configuration(optimizer__layer_decay=0.5).optimizer
    experiment = build(configuration())
    network, params = experiment.task.objective.network, experiment.abstract_state.params
    rates = {path: how.rate.ravel().tolist() for path, how in treatments(section, params, network).items()}
    assert rates["patch_embed/kernel"] == [0.5**5]
    assert rates["stages/0/blocks/mlp/fc1/kernel"] == [0.5**4, 0.5**3]
    assert rates["stages/1/merge/reduction/kernel"] == [0.5**3]
    assert rates["stages/1/blocks/attn/position_bias"] == [0.5**2, 0.5]
    assert rates["head/kernel"] == [1.0]
    section = configuration(optimizer__frozen_blocks=3).optimizer
    frozen = {path: how.frozen.tolist() for path, how in treatments(section, params, network).items()}
    assert frozen["stages/0/blocks/norm1/scale"] is frozen["stages/1/merge/norm/bias"] is True
    assert frozen["stages/1/blocks/attn/qkv/kernel"] == [True, False]


def test_a_run_tunes_low_rank_factors_of_its_checkpoint(first, tmp_path):
    config = configuration(lora=dict(rank=2, alpha=4.0, targets=("query", "fc1")), evaluation__illustrate=0)
    config.model = {"checkpoint": str(first[0])}
    result = vit_jax.train(config, tmp_path / "tuned")
    assert {path.split("/")[0] for path in trees.flatten(result.state.params)} >= {"lora", "stages", "head"}


def test_stages_are_set_from_the_command_line(tmp_path):
    path = tmp_path / "config.py"
    path.write_text(
        "from vit_jax.training.config import default_config\n\n\ndef get_config():\n"
        "    config = default_config()\n    config.model.name = 'swin_tiny_patch4_window7_224'\n    return config\n"
    )
    given = ["model.heads=(2, 4)", "model.depths=(2, 2)", "model.window_size=4", "model.image_size=(32, 64)"]
    config = load_config(str(path), given)
    assert (config.model.heads, config.model.depths, config.model.window_size) == ((2, 4), (2, 2), 4)
