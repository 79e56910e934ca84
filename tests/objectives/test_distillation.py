"""Distillation: the teacher sees what the student sees and says what it says alone; losses are their papers'."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vit_jax
from tests.reference.cases import load_case
from tests.tiny import assert_trees_close
from tests.weights.models import write
from vit_jax.errors import ConfigError, VitError
from vit_jax.inference.features import FeatureExtractor
from vit_jax.models.layers.encoder_config import replace
from vit_jax.models.preprocessing import Preprocessing
from vit_jax.models.resnet.config import ResNetConfig
from vit_jax.objectives.base import DataInfo, Moment
from vit_jax.objectives.distillation import losses
from vit_jax.objectives.distillation.objective import Distillation
from vit_jax.objectives.distillation.options import DistillationOptions
from vit_jax.objectives.feature_distillation import standard
from vit_jax.objectives.feature_distillation.objective import FeatureDistillation
from vit_jax.objectives.feature_distillation.options import FeatureDistillationOptions
from vit_jax.objectives.images import normalise
from vit_jax.objectives.options import parse_options
from vit_jax.training.config import default_config
from vit_jax.training.config.model import open_as
from vit_jax.training.experiment import build
from vit_jax.training.loop import train
from vit_jax.training.step import compile_step

SIZE, CLASSES = 8, ("cat", "dog", "eel")
STUDENT = dict(width=16, depth=1, heads=2, mlp_dim=32, unroll=1, in_channels=3)
MODEL = vit_jax.create_model("vit_mu_patch4_8", num_classes=3, **STUDENT).config
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A wider classifier, of larger images, other numbers and another order of the classes, trained for two steps."""
    folder = tmp_path_factory.mktemp("teacher")
    model = vit_jax.create_model(
        "vit_mu_patch4_8", seed=1, num_classes=3, image_size=12, **STUDENT | {"width": 32, "mlp_dim": 64},
        preprocessing=Preprocessing((0.4, 0.5, 0.6), (0.2, 0.3, 0.25)),
    )  # fmt: skip
    rng = np.random.default_rng(2)
    model.head.kernel[...] = jnp.asarray(rng.standard_normal(model.head.kernel.shape), jnp.float32)
    vit_jax.save(model, folder / "model", class_names=("eel", "cat", "dog"))
    return str(folder / "model")


def batch(size=8, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (size, SIZE, SIZE, 3), np.uint8)
    return {"image": jnp.asarray(images), "label": jnp.asarray(rng.integers(0, 3, size), jnp.int32)}


def at(objective, step=0, total=8):
    """The objective with its teachers, and fresh parameters and buffers."""
    frozen = {name: constant_params(constant) for name, constant in objective.constants().items()}
    params, buffers = jax.jit(objective.init)(KEY)
    return objective.at(Moment(jnp.int32(step), total, total, frozen)), params, buffers


def constant_params(constant):
    return open_as(constant.source, constant.config, "teacher", constant.options).params()


# ---- losses


def test_losses_are_deits_and_the_papers():
    arrays = {name: jnp.asarray(value) for name, value in load_case("aux_losses")[1].items()}
    student, said = arrays["in.dist"], arrays["in.teacher"]
    np.testing.assert_allclose(
        losses.soft_loss(student, said, 3.0).mean(), arrays["out.deit_soft"], rtol=1e-6
    )
    np.testing.assert_allclose(losses.hard_loss(student, said).mean(), arrays["out.deit_hard"], rtol=1e-6)
    # Hinton's: summed over classes. At a high temperature its gradient is that of half the squared gap of logits.
    np.testing.assert_allclose(
        losses.kl_loss(student, said, 3.0), 9 * losses.soft_loss(student, said, 3.0), rtol=1e-6
    )
    one, other = (x - x.mean(1, keepdims=True) for x in (student, said))
    gradient = jax.grad(lambda x: losses.kl_loss(x, said, 1e3).sum())(student)
    np.testing.assert_allclose(gradient, (one - other) / 9, atol=3e-3)
    np.testing.assert_allclose(losses.kl_loss(said, said, 1.0), 0, atol=1e-6)


# ---- the teacher


def test_the_teacher_says_of_mixed_pixels_what_it_says_alone(teacher):
    """With its own mean and deviation, its own size, and its classes in the order of the data's labels."""
    options = DistillationOptions(teacher=teacher, mixup=0.8, teacher_weight=1.0)
    objective, params, buffers = at(Distillation(MODEL, options, DataInfo(3, CLASSES)))
    prepared = objective.prepare(batch(), KEY)
    seen = objective.teacher.sees(prepared["image"], MODEL.preprocessing)
    said = objective.teacher(objective.moment.constants["teacher"], seen)
    own = vit_jax.load(teacher, verbose=False)
    mean, std = (np.asarray(x, np.float32) for x in (MODEL.preprocessing.mean, MODEL.preprocessing.std))
    raw = (prepared["image"] * std + mean) * 255  # not whole numbers: they are mixed
    large = jax.image.resize(raw, (8, 12, 12, 3), "bicubic", antialias=True)
    expected = own(normalise(large, own.config.preprocessing))
    np.testing.assert_allclose(said, np.asarray(expected)[:, [1, 2, 0]], rtol=2e-5, atol=2e-5)
    loss, out = jax.jit(objective.loss)(params, buffers, prepared, KEY)
    student = objective.functions.apply(params, prepared["image"])
    np.testing.assert_allclose(loss, losses.kl_loss(student, said, 1.0).mean(), rtol=1e-5)
    assert out.weight == 8
    assert float(out.metrics["loss"]) == float(loss)


def test_a_residual_network_teaches_with_the_statistics_that_it_has(tmp_path):
    sizes = dict(depths=(1, 1), widths=(8, 8), stem_width=8, image_size=16, num_classes=3)
    write(ResNetConfig(**sizes), tmp_path / "resnet", "hf")
    options = DistillationOptions(
        teacher=str(tmp_path / "resnet"), teacher_weight=1.0, teacher_labels="by-position"
    )
    objective, params, buffers = at(Distillation(MODEL, options, DataInfo(3, CLASSES)))
    prepared = objective.prepare(batch(), KEY)
    own = vit_jax.load(tmp_path / "resnet", verbose=False)
    assert np.abs(own.stem.norm.mean[...]).max() > 0.05
    seen = objective.teacher.sees(prepared["image"], MODEL.preprocessing)
    said = objective.teacher(objective.moment.constants["teacher"], seen)
    np.testing.assert_allclose(said, own(seen), rtol=1e-5, atol=1e-5)
    loss, out = jax.jit(objective.loss)(params, buffers, prepared, KEY)
    student = objective.functions.apply(params, prepared["image"])
    np.testing.assert_allclose(loss, losses.kl_loss(student, own(seen), 1.0).mean(), rtol=1e-5)
    assert not jax.tree.leaves(out.buffers)


def test_a_distillation_token_learns_from_the_teacher_and_the_class_token_from_labels(teacher):
    model = replace(MODEL, distillation_token=True)
    for share, head in ((1.0, "head_distillation"), (0.5, None)):
        options = DistillationOptions(teacher=teacher, teacher_loss="hard", teacher_weight=share)
        objective, params, buffers = at(Distillation(model, options, DataInfo(3, CLASSES)))
        prepared = objective.prepare(batch(), KEY)
        gradients, _ = jax.jit(jax.grad(objective.loss, has_aux=True))(params, buffers, prepared, KEY)
        touched = {name for name in ("head", "head_distillation") if np.any(gradients[name]["kernel"])}
        assert touched == ({head} if head else {"head", "head_distillation"})


def test_what_does_not_go_together_is_refused(teacher, tmp_path):
    def opened(model, names, options):
        parsed = parse_options({"name": "distillation", "teacher": teacher} | options)
        objective = Distillation(model, parsed, DataInfo(len(names), names))
        objective.refuses(None)
        return objective.constants()

    def refused(text, model=MODEL, names=CLASSES, **options):
        with pytest.raises(VitError, match=text) as error:
            opened(model, names, options)
        assert "\n" not in str(error.value)

    refused(r"objective.teacher is ''; it must be the checkpoint of a classifier", teacher="")
    refused(r"objective.teacher is 'logits.npy', which looks like stored outputs", teacher="logits.npy")
    refused(
        r"does not tell the data's 3 classes \(ant, .* apart; .*='by-position'", names=("ant", "bee", "fly")
    )
    refused(r"takes images of 3 channels, but the student of 1", model=replace(MODEL, in_channels=1))
    refused(r"teacher_weight is 0; .* choose objective.name='classification'", teacher_weight=0)
    refused(r"temperature is 2.0, but teacher_loss 'hard' has none", teacher_loss="hard", temperature=2.0)
    refused(r"class_weights is 'balanced'; the teacher's loss has no weights", class_weights="balanced")
    refused(r"teacher_size is -1; it must be pixels", teacher_size=-1)
    refused(r"nowhere", teacher=str(tmp_path / "nowhere"))
    assert opened(MODEL, ("ant", "bee", "fly"), {"teacher_labels": "by-position"})


# ---- standards


@pytest.mark.parametrize("order", [1, 2, 12, 16, 20, 28, 36, 44, 192, 384, 768, 1152])
def test_hadamard_matrices(order):
    found = standard.hadamard(order).astype(np.int64)
    assert set(np.unique(found)) <= {-1, 1}
    np.testing.assert_array_equal(found @ found.T, order * np.eye(order, dtype=np.int64))


def test_phi_s_gives_all_numbers_one_variance_and_keeps_distances():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((500, 12)) @ rng.standard_normal((12, 12)) * np.logspace(-2, 1, 12) + 5
    rows = jnp.asarray(rows, jnp.float32)
    known = standard.begin(12)
    for number, part in enumerate(jnp.split(rows, 5)):
        known = jax.jit(standard.measured, static_argnums=3)(known, standard.sums(part), number == 4, True)
    made = np.asarray(standard.standardised(rows, known), np.float64)
    np.testing.assert_allclose(made.mean(0), 0, atol=2e-4)
    np.testing.assert_allclose(made.var(0), 1, rtol=2e-3)
    pairs = np.asarray(rows[:50] - rows[50:100], np.float64)
    scale = float(known["scale"])
    apart = np.linalg.norm(made[:50] - made[50:100], axis=1)
    np.testing.assert_allclose(apart, scale * np.linalg.norm(pairs, axis=1), rtol=2e-4)
    np.testing.assert_allclose(scale, 1 / np.sqrt(np.asarray(rows, np.float64).var(0).mean()), rtol=1e-4)


# ---- features


def test_losses_of_features_are_means_over_teachers_kinds_and_rows(teacher):
    student = replace(MODEL, num_classes=0)
    for loss, weights in (("mse", (1.0, 3.0)), ("smooth_l1", ()), ("cosine", ())):
        options = FeatureDistillationOptions(
            (teacher, teacher), weights, loss=loss, standard="none", teacher_levels=("blocks/0", "")
        )
        objective, params, buffers = at(FeatureDistillation(student, options))
        prepared = objective.prepare(batch(), KEY)
        value, out = objective.loss(params, buffers, prepared, KEY)
        each = {
            name: float(out.metrics[f"loss_{name}"]) for name in ("0_pooled", "0_maps", "1_pooled", "1_maps")
        }
        shares = np.asarray(weights or (1, 1)) / sum(weights or (1, 1)) / 2
        expected = shares[0] * (each["0_pooled"] + each["0_maps"]) + shares[1] * (
            each["1_pooled"] + each["1_maps"]
        )
        np.testing.assert_allclose(value, expected, rtol=1e-6)
        # Of the first teacher by hand: a map of 3 x 3 patches against the student's 2 x 2.
        own, theirs = objective.functions, objective.teachers[0]
        image = prepared["image"]
        seen = theirs.sees(image, student.preprocessing)
        frozen = objective.moment.constants["teacher_0"]
        (target,) = theirs.functions.features(frozen, {}, seen, levels=["blocks/0"])
        (mine,) = own.features(params["encoder"], {}, image)
        layer = params["projectors"]["0_maps"]["fc1"]
        mine = np.asarray(mine @ layer["kernel"] + layer["bias"], np.float64)
        target = np.asarray(jax.image.resize(target, (8, 2, 2, 32), "bilinear", antialias=True), np.float64)
        gap = mine - target
        if loss == "cosine":
            lengths = np.linalg.norm(mine, axis=-1) * np.linalg.norm(target, axis=-1)
            hand = 1 - ((mine * target).sum(-1) / lengths).mean()
        elif loss == "mse":
            hand = np.square(gap).mean()
        else:
            hand = np.where(abs(gap) < 1, gap**2 / 2, abs(gap) - 0.5).mean()
        np.testing.assert_allclose(each["0_maps"], hand, rtol=2e-5)


def test_options_of_features_are_checked():
    def refused(text, **options):
        with pytest.raises(ConfigError, match=text):
            parse_options({"name": "feature_distillation", "teachers": "somewhere"} | options)

    refused("objective.teachers is .*; it must be a checkpoint of an image encoder, or several", teachers=())
    refused("objective.teachers is 'a.npy', which looks like stored outputs", teachers=("b", "a.npy"))
    refused("teacher_weights has 2 entries and objective.teachers 1", teacher_weights=(1.0, 2.0))
    refused("teacher_weights are all 0", teacher_weights=(0.0,))
    refused("choose maps, but features is 'pooled'", features="pooled", level="blocks/0")
    refused("measured_steps is 0; it must be at least 1", measured_steps=0)
    refused("objective.standard.*'phi_s'", standard="phis")


# ---- runs


def configuration(name, **options):
    config = default_config()
    config.duration = "4 steps"
    config.model.update(name="vit_mu_patch4_8", num_classes=3, **STUDENT)
    config.objective.name = name
    for option, value in options.items():
        config.objective[option] = value
    config.data.update(source="synthetic", size=32, batch_size=16, eval_batch_size=16)
    config.optimizer.update(name="sgd", learning_rate=0.1)
    config.sharding.update(min_size=0, max_replicated=1.0)
    config.evaluation.every = config.checkpoint.every = "2 steps"
    config.checkpoint.keep_last = 4
    config.log.update(every="1 steps", tensorboard=False, progress=False)
    return config


RUNS = {
    "distillation": lambda teacher: dict(teacher=teacher, teacher_labels="by-position", mixup=0.5),
    "feature_distillation": lambda teacher: dict(teachers=(teacher,), measured_steps=3, loss="mse"),
}


@pytest.mark.parametrize("name", RUNS)
def test_sharded_and_accumulated_are_one(name, teacher):
    states = []
    for devices, accumulation, mesh in ((1, 1, {}), (8, 2, dict(data=2, fsdp=4))):
        config = configuration(name, **RUNS[name](teacher))
        config.accumulation = accumulation
        config.mesh.update(mesh)
        experiment = build(config, devices=jax.devices()[:devices])
        constants = experiment.devices.constants
        step = compile_step(
            experiment.step, experiment.devices.state_shardings, None, experiment.devices.step_options,
            constants.shardings,
        )  # fmt: skip
        state, batches = experiment.init(), experiment.data.train_batches(0)
        for _ in range(3):
            state, metrics = step(state, experiment.devices.put(next(batches)), *constants.arguments)
        batches.close()
        states.append((jax.device_get(state.params), {name: float(value) for name, value in metrics.items()}))
        if devices == 8:
            kernel = next(iter(constants.values.values()))["blocks"]["mlp"]["fc1"]["kernel"]
            assert kernel.addressable_shards[0].data.size == kernel.size / 4  # divided, and not whole on each
    (alone, expected), (sharded, found) = states
    assert found == pytest.approx(expected, rel=2e-5, abs=1e-6)  # a cosine is a sum that may cancel
    assert_trees_close(sharded, alone, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("name", RUNS)
def test_a_run_resumes_bitwise_and_its_student_needs_no_teacher(name, teacher, compile_cache, tmp_path):
    there = shutil.copytree(teacher, tmp_path / "teacher")
    config = configuration(name, **RUNS[name](str(there)))
    result = train(config, tmp_path / "run")
    shutil.copytree(tmp_path / "run", tmp_path / "again")
    shutil.rmtree(tmp_path / "again" / "checkpoints" / "4")
    again = train(config, tmp_path / "again")
    for one, other in zip(jax.tree.leaves(result.state), jax.tree.leaves(again.state), strict=True):
        np.testing.assert_array_equal(one, other)
    assert again.metrics == result.metrics
    shutil.rmtree(there)
    model = vit_jax.load(tmp_path / "run", verbose=False)
    assert model.config.width == 16
    extractor = FeatureExtractor.load(tmp_path / "run")
    assert extractor.features([np.zeros((SIZE, SIZE, 3), np.uint8)]).shape == (1, 16)
    if name == "distillation":
        predictor = vit_jax.Predictor.load(tmp_path / "run")
        image = np.zeros((SIZE, SIZE, 3), np.uint8)
        assert len(predictor.predict([image])) == 1
        np.testing.assert_allclose(
            jax.nn.softmax(model(normalise(jnp.asarray(image)[None], model.config.preprocessing))).max(),
            max(predictor.predict([image])[0].probabilities),
            rtol=1e-5,
        )
