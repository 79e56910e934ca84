"""Joint embedding: the loss view by view, a teacher that follows, a run over devices and in parts, what is refused."""

import math
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vit_jax
from tests.objectives.steps import after_two_steps, configuration
from tests.tiny import assert_trees_close, randomised
from vit_jax.errors import ConfigError
from vit_jax.models.flops import forward_macs
from vit_jax.models.layers.norm import unit
from vit_jax.models.registry import model_config
from vit_jax.models.vit.config import replace
from vit_jax.objectives.options import OBJECTIVES, parse_options
from vit_jax.objectives.protocol import DataInfo, Moment
from vit_jax.objectives.registry import build_objective
from vit_jax.objectives.views import losses
from vit_jax.random import fold
from vit_jax.training.experiment import build
from vit_jax.training.loop import train
from vit_jax.trees import flatten

MODEL = dict(
    name="vit_mu_patch2_8", in_channels=1, width=16, depth=1, heads=2, mlp_dim=32, unroll=1, pool="cls"
)
SMALL = dict(hidden_dim=24, output_dim=12)
PAIR = {"global_crops": (2, 8, 8, 1)}
MANY = PAIR | {"local_crops": (3, 4, 4, 1)}
METHODS = [name for name, place in OBJECTIVES.items() if ".views." in place]


def objective(name, shapes=PAIR, model=None, **options):
    model = model_config(**MODEL) if model is None else model
    return build_objective(
        parse_options({"name": name, **SMALL, **options}), model, DataInfo(0, shapes=shapes)
    )


def state(task):
    params, buffers = jax.eval_shape(task.init, jax.random.key(0))
    return randomised(params), randomised(buffers, seed=1)


def crops(shapes, rows=6):
    rng = np.random.default_rng(0)
    return {name: rng.integers(0, 256, (rows, *shape), np.uint8) for name, shape in shapes.items()}


def by_hand(tree, x):
    """A projector or predictor of `(b, d)` with the batch's statistics, and the statistics of each norm."""
    found = []
    *hidden, last = (layer for _, layer in sorted(jax.tree.map(np.asarray, tree["layers"]).items()))
    for index, layer in enumerate(hidden):
        norm = tree["norms"][str(index)]
        x = x @ layer["kernel"]
        found.append((x.mean(0), x.var(0, ddof=1)))
        x = np.maximum((x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5) * norm["scale"] + norm["bias"], 0)
    return x @ last["kernel"] + last["bias"], found


def test_there_are_eight_methods_and_each_has_a_loss_and_terms():
    assert METHODS == [
        "barlow_twins", "byol", "lejepa", "moco_v3", "simclr", "simsiam", "vicreg", "visreg",
    ]  # fmt: skip
    for name in METHODS:
        shapes = MANY if name in ("lejepa", "visreg") else PAIR
        task = objective(name, shapes)
        params, buffers = jax.eval_shape(task.init, jax.random.key(0))
        batch = jax.eval_shape(task.prepare, crops(shapes), jax.random.key(0))
        loss, out = jax.eval_shape(task.loss, params, buffers, batch, jax.random.key(0))
        assert loss.shape == ()
        assert {"loss", "feature_std", "projection_std"} <= set(out.metrics)
        assert set(out.buffers) == set(buffers) - {"teacher"} == set(params) - {"encoder"}
        for part, tree in out.buffers.items():
            assert jax.tree.structure(tree) == jax.tree.structure(buffers[part])
        assert ("teacher" in buffers) == ("teacher" in task.encoders) == (name in ("byol", "moco_v3"))
        assert next(iter(task.encoders.values())) == "params/encoder"


def test_byol_predicts_the_teacher_of_the_other_view():
    task = objective("byol", predictor_dim=10).at(Moment(jnp.int32(5), 10, 5, {}))
    params, buffers = state(task)
    batch = task.prepare(crops(PAIR), jax.random.key(3))
    compute = jax.jit(jax.value_and_grad(task.loss, has_aux=True))
    (loss, out), gradient = compute(params, buffers, batch, jax.random.key(4))
    apply = jax.jit(task.functions.apply)
    teacher, found, means = buffers["teacher"], [], []
    for view in range(2):
        pooled = np.asarray(apply(params["encoder"], batch["global_crops"][:, view]))
        said, own = by_hand(params["projector"], pooled)
        means.append(own)
        taught = np.asarray(apply(teacher["encoder"], batch["global_crops"][:, view]))
        found.append((by_hand(params["predictor"], said)[0], by_hand(teacher["projector"], taught)[0]))
    (p1, t1), (p2, t2) = found
    cosines = [(unit(jnp.asarray(p)) * unit(jnp.asarray(t))).sum(-1).mean() for p, t in ((p1, t2), (p2, t1))]
    np.testing.assert_allclose(loss, 4 - 2 * sum(cosines), rtol=1e-4)
    assert min(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(gradient["projector"])) > 0
    # Each view has its own statistics, one after the other.
    running = buffers["projector"]["norms"]["0"]
    for own in means:
        running = {
            "mean": 0.9 * running["mean"] + 0.1 * own[0][0],
            "variance": 0.9 * running["variance"] + 0.1 * own[0][1],
        }
    for name, value in running.items():
        np.testing.assert_allclose(out.buffers["projector"]["norms"]["0"][name], value, rtol=1e-4, atol=1e-6)
    # The teacher follows parameters and statistics; half of the run is over.
    after = {**buffers, **out.buffers}
    moved = task.after_update(params, after, jnp.int32(5))["teacher"]
    share = 1 - 0.004 / 2
    for tree, path in ((params, "kernel"), (after, "mean")):
        part = tree["projector"]["layers" if path == "kernel" else "norms"]["0"][path]
        old = teacher["projector"]["layers" if path == "kernel" else "norms"]["0"][path]
        new = moved["projector"]["layers" if path == "kernel" else "norms"]["0"][path]
        np.testing.assert_allclose(new, share * old + (1 - share) * part, rtol=1e-4, atol=1e-6)
    begun = task.begin(params, buffers)["teacher"]
    assert begun["encoder"]["class_token"] is params["encoder"]["class_token"]
    assert begun["projector"]["norms"]["0"]["mean"] is buffers["projector"]["norms"]["0"]["mean"]


def test_lejepa_takes_global_and_local_views_together():
    task = objective("lejepa", MANY, directions=7, around="global", hidden_layers=1)
    params, buffers = state(task)
    batch = task.prepare(crops(MANY), jax.random.key(3))
    loss, out = jax.jit(task.loss)(params, buffers, batch, jax.random.key(4))
    apply = jax.jit(task.functions.apply)
    pooled = [apply(params["encoder"], batch["global_crops"][:, view]) for view in range(2)]
    pooled += [apply(params["encoder"], batch["local_crops"][:, view]) for view in range(3)]
    said, _ = by_hand(params["projector"], np.concatenate(pooled))
    views = jnp.asarray(said.reshape(5, 6, -1))
    directions = losses.unit_directions(fold(jax.random.key(4), "directions"), 12, 7)
    expected, terms = losses.lejepa_loss(views, views[:2], directions, 0.02)
    np.testing.assert_allclose(loss, expected, rtol=1e-4)
    for name, value in terms.items():
        np.testing.assert_allclose(out.metrics[name], value, rtol=1e-4)
    assert out.metrics["feature_std"] == pytest.approx(float(losses.spread(pooled[0])), rel=1e-5)
    assert out.weight == 6


def test_training_counts_all_crops_and_the_teacher():
    lejepa = objective("lejepa", MANY)
    whole, near = forward_macs(lejepa.model), forward_macs(replace(lejepa.model, image_size=4))
    projector = 16 * 24 + 24 * 24 + 24 * 12
    assert lejepa.train_flops == 6 * (2 * whole + 3 * near + 5 * projector)
    byol = objective("byol", predictor_dim=10)
    teacher = 2 * (whole + 16 * 24 + 24 * 12)
    assert byol.train_flops == 2 * (3 * (teacher + 2 * (12 * 10 + 10 * 12)) + teacher)


def test_collapse_is_seen_and_named():
    task = objective("lejepa", MANY)
    assert task.concerns({"feature_std": 0.5, "projection_std": 0.9}) == {}
    found = task.concerns({"feature_std": 0.5, "projection_std": 0.001})
    assert (
        "projections of all images are nearly the same (projection_std is 0.0010" in found["projection_std"]
    )
    params, buffers = state(task)
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1), np.uint8)
    evaluate = jax.jit(task.evaluate)

    def metrics(images, mask):
        sums = evaluate(params, buffers, {"image": images, "mask": np.asarray(mask)})
        return task.summarise(jax.device_get(sums))

    some = metrics(images, [True] * 4 + [False])
    assert set(some) == set(task.metric_modes)
    features = task.features(params, buffers, {"image": images[:4]})
    assert some["feature_std"] == pytest.approx(float(losses.spread(features)), rel=1e-3)
    assert some["projection_std"] > 0
    same = metrics(np.broadcast_to(images[:1], images.shape), [True] * 5)
    assert max(same.values()) < 1e-2


def small(name, **options):
    config = configuration(dict(name=name, **SMALL, **options), pool="cls")
    local = ", local_count=2" if name in ("lejepa", "visreg") else ", local_count=0"
    config.data.train_transforms = (
        f"multi_crop(8, 4{local}, global_transforms='flip_lr', local_transforms='flip_lr')"
    )
    return config


@pytest.mark.parametrize("name", ["moco_v3", "lejepa"])
def test_over_eight_devices_it_is_one(name):
    options = dict(predictor_dim=10) if name == "moco_v3" else dict(directions=5)
    alone = after_two_steps(small(name, **options))
    spread = after_two_steps(small(name, **options), 8, data=2, fsdp=4)
    assert spread[2] == pytest.approx(alone[2], rel=1e-4)
    for part in ("params", "buffers"):
        assert_trees_close(getattr(spread[1], part), getattr(alone[1], part), rtol=1e-4, atol=2e-5)


@pytest.fixture(scope="module")
def whole(compile_cache, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("byol") / "run"
    return train(small("byol", predictor_dim=10), workdir), workdir


def test_it_resumes_bitwise_with_its_teacher(whole, tmp_path):
    result, workdir = whole
    shutil.copytree(workdir, tmp_path / "again")
    shutil.rmtree(tmp_path / "again" / "checkpoints" / "4")
    again = train(small("byol", predictor_dim=10), tmp_path / "again")
    for (path, one), other in zip(flatten(again.state).items(), flatten(result.state).values(), strict=True):
        np.testing.assert_array_equal(one, other, err_msg=path)
    assert again.metrics == result.metrics
    assert set(result.metrics) == {"feature_std", "projection_std"}


def test_its_networks_are_found_by_name_and_start_another(whole):
    result, workdir = whole
    state = jax.device_get(result.state)
    trees = {"student": state.params["encoder"], "teacher": state.buffers["teacher"]["encoder"]}
    assert np.abs(trees["student"]["class_token"] - trees["teacher"]["class_token"]).max() > 0
    for name, tree in trees.items():
        kernel = vit_jax.load(workdir, weights=name, verbose=False).blocks.mlp.fc1.kernel[...]
        np.testing.assert_array_equal(kernel, tree["blocks"]["mlp"]["fc1"]["kernel"])
    config = small("moco_v3", predictor_dim=10)
    config.model = {"checkpoint": str(workdir), "unroll": 1}
    experiment = build(config)
    started = experiment.init()
    for tree in (started.params, started.buffers["teacher"]):
        np.testing.assert_array_equal(tree["encoder"]["class_token"], trees["student"]["class_token"])
    teacher, student = started.buffers["teacher"]["projector"], started.params["projector"]
    np.testing.assert_array_equal(teacher["layers"]["2"]["kernel"], student["layers"]["2"]["kernel"])
    assert experiment.task.fresh == ["predictor", "projector"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(name="lejepa", weight=1.5), "objective.weight is 1.5; it must be between 0 and 1"),
        (dict(name="lejepa", around="globals"), "objective.around is 'globals'; .* Did you mean 'global'"),
        (dict(name="lejepa", directions=0), "objective.directions is 0; it must be between 1 and"),
        (dict(name="visreg", weights=(1, 2)), r"objective.weights is \(1, 2\); it must be 3 numbers"),
        (dict(name="vicreg", weights=(1, -2, 1)), r"objective.weights is \(1, -2, 1\); it must be 3 numbers"),
        (dict(name="simclr", temperature=0.0), "objective.temperature is 0.0; it must be between"),
        (dict(name="byol", momentum=2.0), "objective.momentum is 2.0; it must be between 0 and 1"),
        (dict(name="simsiam", momentum=0.9), "objective.momentum is not an option of 'simsiam'"),
        (dict(name="barlow_twin"), "Did you mean 'barlow_twins'"),
        (dict(name="simsiam", hidden_layers=-1), "objective.hidden_layers is -1; it must be between 0"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ConfigError, match=message):
        parse_options(options)


@pytest.mark.parametrize(
    ("name", "shapes", "message"),
    [
        (
            "vicreg",
            MANY,
            "2 global crops and 3 local ones, but this objective compares two; .* local_count=0",
        ),
        ("byol", {"global_crops": (1, 8, 8, 1)}, "makes 1 global crops, but this objective compares two"),
        (
            "lejepa",
            {"global_crops": (1, 8, 8, 1)},
            "one crop of an image has nothing that it could agree with",
        ),
        ("lejepa", PAIR | {"local_crops": (1, 5, 5, 1)}, "5x5, which patches of 2x2 do not divide"),
        ("visreg", PAIR | {"local_crops": (1, 12, 12, 1)}, "12x12, larger than the model's images, 8x8"),
    ],
)
def test_crops_that_do_not_go_with_the_method_are_refused(name, shapes, message):
    with pytest.raises(ConfigError, match=message):
        objective(name, shapes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            dict(accumulation=2),
            "accumulation is 2, but objective 'simsiam' compares the images of the whole batch",
        ),
        (dict(batch_size=1), "data.batch_size is 1, but objective 'simsiam' compares at least 2 images"),
    ],
)
def test_runs_that_cannot_be_are_refused(change, message):
    config = small("simsiam")
    for name, value in change.items():
        (config if name in config else config.data)[name] = value
    with pytest.raises(ConfigError, match=message):
        build(config)


def test_a_model_with_batch_statistics_keeps_them_and_its_teacher_follows():
    cvt = model_config(
        "cvt-13", image_size=16, in_channels=1, widths=(8, 16), depths=(1, 1), head_dim=8, kernels=(7, 3),
        strides=(4, 2), pads=(2, 1),
    )  # fmt: skip
    task = objective("byol", {"global_crops": (2, 16, 16, 1)}, cvt)
    params, buffers = jax.eval_shape(task.init, jax.random.key(0))
    assert set(buffers) == {"encoder", "projector", "predictor", "teacher"}
    batch = jax.eval_shape(task.prepare, crops({"global_crops": (2, 16, 16, 1)}), jax.random.key(0))
    _, out = jax.eval_shape(task.loss, params, buffers, batch, jax.random.key(0))
    assert jax.tree.structure(out.buffers["encoder"]) == jax.tree.structure(buffers["encoder"])
    statistics = [path for path in flatten(buffers["teacher"]["encoder"]) if path.endswith("/variance")]
    assert statistics
    assert math.prod(flatten(buffers["teacher"]["encoder"])[statistics[0]].shape) > 0
