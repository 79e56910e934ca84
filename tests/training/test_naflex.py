"""Models whose images keep their aspect ratio: trained, resumed, divided, evaluated and exported like any other."""

import jax
import numpy as np
import pytest

import vit_jax
from tests.starts import initial
from tests.tiny import assert_trees_close
from vit_jax import trees
from vit_jax.data.sources.composed_digits import FramedDigits
from vit_jax.errors import ConfigError, DataError
from vit_jax.inference.export.export import export_predictor
from vit_jax.inference.export.exported import ExportedPredictor
from vit_jax.inference.features import FeatureExtractor
from vit_jax.inference.predictor import Predictor
from vit_jax.models.flops import forward_macs, parameter_count
from vit_jax.models.patches import Patches
from vit_jax.models.registry import model_config
from vit_jax.objectives.multi_label.objective import MultiLabel
from vit_jax.objectives.multi_label.options import MultiLabelOptions
from vit_jax.objectives.protocol import DataInfo
from vit_jax.training.config import default_config, validate
from vit_jax.training.experiment import build
from vit_jax.training.report.callbacks import Callback
from vit_jax.training.report.samples import samples
from vit_jax.training.step import compile_step


def configuration(**changes):
    config = default_config()
    config.duration = "4 steps"
    config.model.update(
        name="vit_mu_patch4_16", width=16, depth=1, heads=8, mlp_dim=16, num_classes=10, unroll=1
    )
    config.model.max_patches = 20
    config.data.update(source="framed_digits", size=24, batch_size=8, eval_batch_size=16)
    config.optimizer.update(learning_rate=3e-3)
    config.evaluation.update(every="4 steps", illustrate=2)
    config.checkpoint.every = "2 steps"
    config.log.update(every="1 step", tensorboard=False, progress=False)
    for key, value in changes.items():
        section, _, name = key.partition("__")
        config[section] = {**config[section].to_dict(), name: value} if name else value
    validate(config)
    return config


class Stop(Exception):
    pass


class Stopping(Callback):
    def on_step(self, step, metrics):
        if step == 2:
            raise Stop


@pytest.fixture(scope="module")
def run(compile_cache, tmp_path_factory):
    """A finished run, its folder, and its evaluation records."""
    folder = tmp_path_factory.mktemp("naflex")
    result = vit_jax.train(configuration(model__drop_path_rate=0.2), folder)
    test = FramedDigits("test", 24)
    return folder, result, [test[index]["image"] for index in range(24)], test.labels


def test_it_is_resumed_bitwise(run, tmp_path):
    config = configuration(model__drop_path_rate=0.2)
    with pytest.raises(Stop):
        vit_jax.train(config, tmp_path, callbacks=[Stopping()])
    resumed = vit_jax.train(config, tmp_path)
    ours, other = trees.flatten(resumed.state.params), trees.flatten(run[1].state.params)
    for path, leaf in ours.items():
        np.testing.assert_array_equal(np.asarray(leaf), np.asarray(other[path]), path)
    assert resumed.metrics == run[1].metrics


def test_it_predicts_images_of_any_shape_as_it_was_evaluated(run, tmp_path):
    folder, result, images, labels = run
    predictor = Predictor.load(folder)
    assert predictor.eval_transforms == "decode|naflex(20, 4, 'bicubic')"
    chances = predictor.probabilities(images)
    assert np.mean(chances.argmax(axis=1) == labels) == pytest.approx(result.metrics["accuracy"])
    assert vit_jax.evaluate(folder)["loss"] == pytest.approx(result.metrics["loss"], rel=1e-5)
    # One alone, which nothing is padded for but its own budget.
    alone = np.concatenate([predictor.probabilities(image) for image in images[:3]])
    np.testing.assert_allclose(alone, chances[:3], atol=1e-6)
    model = vit_jax.load(folder)
    inputs = vit_jax.preprocessing(model)(images[:3])
    assert isinstance(inputs, Patches)
    assert inputs.values.shape == (3, 20, 48)
    np.testing.assert_allclose(jax.nn.softmax(jax.jit(model)(inputs)), chances[:3], atol=1e-6)
    assert FeatureExtractor.load(folder).features(images[:3]).shape == (3, 16)
    # Also as a program, of any number of images and of two at a time.
    export_predictor(predictor, tmp_path / "any")
    export_predictor(predictor, tmp_path / "two", batch_sizes=(2,))
    for name in ("any", "two"):
        exported = ExportedPredictor.load(tmp_path / name)
        np.testing.assert_allclose(exported.probabilities(images[:3]), chances[:3], atol=1e-6)


def test_pictures_are_images_again(run):
    folder, *_ = run
    assert (folder / "illustration.png").stat().st_size > 1000
    assert len(list((folder / "samples").glob("*.png"))) == 2
    pictures, names = samples(configuration(), count=6)
    assert {picture.shape[2] for picture in pictures} == {3}
    assert len({picture.shape for picture in pictures}) > 2
    assert all(picture.shape[0] * picture.shape[1] <= 20 * 16 for picture in pictures)
    assert set(names) <= {*map(str, range(10))}


def after_two_steps(mesh, **changes):
    config = configuration(
        optimizer__name="sgd", optimizer__learning_rate=0.1, sharding__min_size=0, sharding__max_replicated=0.05,
        mesh=dict(zip(("data", "fsdp", "tensor"), mesh)), **changes,
    )  # fmt: skip
    experiment = build(config, devices=jax.devices()[: int(np.prod(mesh))])
    state = initial(experiment)
    step = compile_step(experiment.step, jax.tree.map(lambda x: x.sharding, state), None)
    batches = experiment.data.train_batches(0)
    for _ in range(2):
        state, metrics = step(state, experiment.devices.put(next(batches)))
    batches.close()
    return jax.device_get(state.params), {name: float(value) for name, value in metrics.items()}


def test_eight_devices_and_microbatches_are_one_batch(compile_cache):
    params, metrics = after_two_steps((1, 1, 1))
    assert metrics["finite"] == 1
    for mesh, changes in (((2, 2, 2), {}), ((1, 1, 1), {"accumulation": 4})):
        found, said = after_two_steps(mesh, **changes)
        assert_trees_close(found, params, rtol=2e-5, atol=1e-7)
        assert said == pytest.approx(metrics, rel=2e-5)


def test_arithmetic_counts_the_budget():
    plain = model_config("vit_mu_patch4_16", num_classes=10)
    native = model_config("vit_mu_patch4_16", num_classes=10, max_patches=16)
    assert forward_macs(native) == forward_macs(plain)
    assert parameter_count(native) == parameter_count(plain)
    assert native.input_shape == (16, 48)
    longer = model_config("vit_mu_patch4_16", num_classes=10, max_patches=64)
    assert forward_macs(longer) == forward_macs(model_config("vit_mu_patch4_32", num_classes=10))


def test_several_labels_take_them_too():
    model = configuration().model.to_dict()
    name = model.pop("name")
    objective = MultiLabel(model_config(name, **model), MultiLabelOptions(), DataInfo(10))
    batch = {
        "image": np.zeros((2, 20, 48), np.uint8),
        "grid": np.ones((2, 2), np.int32),
        "labels": np.zeros((2, 10), np.float32),
    }
    assert {name: field.shape for name, field in objective.fields.items()} == {
        "image": (20, 48), "grid": (2,), "labels": (10,),
    }  # fmt: skip
    batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch)

    def loss(key, batch):
        return objective.loss(*objective.init(key), objective.prepare(batch, key), key)[0]

    assert jax.eval_shape(loss, jax.random.key(0), batch).shape == ()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (dict(objective__mixup=0.2), ConfigError, r"objective.mixup is 0.2, which needs images of one shape, but"),
        (dict(objective__erase_probability=0.1), ConfigError, r"erase_probability is 0.1, which needs images of one"),
        (
            dict(objective={"name": "mae"}),
            ConfigError,
            "objective 'mae' needs images of one shape, but model.max_patches lets them keep their own",
        ),
        (
            dict(
                objective={"name": "segmentation"}, data__source="digit_scenes",
                data__train_transforms="decode|resize(16)", data__eval_transforms="decode|resize(16)",
            ),
            ConfigError,
            "the model takes images of any shape as up to 20 patches, which are no map; set max_patches to 0",
        ),
        (dict(model__patch_drop_rate=0.5), ConfigError, "max_patches is 20, but this model has patch_drop_rate 0.5"),
        (dict(model__max_patches=-1), ConfigError, "max_patches is -1; it must be 0 or more"),
        (
            dict(data__train_transforms="decode|naflex(20, 8)"),
            DataError,
            r"has shape \(20, 192\) after the transforms, but the model takes \(20, 48\), patches and values of each; "
            r"end them with naflex\(20, PATCH\)",
        ),
        (dict(data__train_transforms="decode|resize(16)"), DataError, r"has shape \(16, 16, 3\) after the transforms"),
        (
            dict(model__max_patches=0, data__train_transforms="decode|naflex(20, 4)"),
            DataError,
            r"has shape \(20, 48\) after the transforms, but the model takes \(16, 16, 3\)",
        ),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_one_line(changes, error, message):
    with pytest.raises(error, match=message) as info:
        build(configuration(**changes))
    assert "\n" not in str(info.value)


def test_words_in_transforms_stand_for_the_models():
    spec = "decode|flip_lr|naflex({patches}, {patch}, {interpolation})"
    data = build(configuration(data__train_transforms=spec)).data
    assert data.transforms[0] == "decode|flip_lr|naflex(20, (4, 4), 'bicubic')"
    assert {name: field.shape for name, field in data.fields.items()} == {
        "image": (20, 48), "grid": (2,), "label": (),
    }  # fmt: skip
