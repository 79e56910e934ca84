"""DINO and what DINOv2 and DINOv3 add: the loss of a step crop by crop, and a run with its teacher."""

import math
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vit_jax
from tests.tiny import assert_trees_close, randomised
from vit_jax.errors import CheckpointError, ConfigError
from vit_jax.inference.evaluating import evaluate_workdir
from vit_jax.inference.features import FeatureExtractor
from vit_jax.models.flops import forward_macs
from vit_jax.models.layers.positions.resample import resample_grid
from vit_jax.models.registry import model_config, model_functions
from vit_jax.models.vit.config import replace
from vit_jax.objectives.dino import losses
from vit_jax.objectives.dino.objective import build as build_dino
from vit_jax.objectives.dino.options import DinoOptions
from vit_jax.objectives.options import parse_options
from vit_jax.objectives.protocol import DataInfo, Moment
from vit_jax.training.config import default_config, load_config
from vit_jax.training.experiment import build
from vit_jax.training.loop import train
from vit_jax.training.report.beginning import beginning
from vit_jax.training.step import compile_step
from vit_jax.trees import flatten

MODEL = dict(
    name="vit_mu_patch2_8", in_channels=1, width=16, depth=1, heads=2, mlp_dim=32, unroll=1, pool="cls"
)
HEAD = dict(prototypes=24, hidden_dim=16, bottleneck_dim=8)
PATCHES = dict(patch_weight=1.0, mask_ratio=(0.2, 0.6))
LATER = dict(targets="sinkhorn", koleo_weight=0.1, **PATCHES)
CONFIGS = Path(__file__).parents[3] / "configs"
CROPS = {"global_crops": (2, 8, 8, 1), "local_crops": (3, 4, 4, 1)}


def objective(shapes=CROPS, model=None, **options):
    model = model_config(**MODEL) if model is None else model
    return build_dino(model, DinoOptions(**HEAD, **options), DataInfo(0, shapes=shapes))


def state(task):
    params, buffers = jax.eval_shape(task.init, jax.random.key(0))
    return randomised(params), randomised(buffers, seed=1)


def crops(rows=3, seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.integers(0, 256, (rows, *shape), np.uint8) for name, shape in CROPS.items()}


def at(task, step, total=10, per_epoch=5, **constants):
    return task.at(Moment(jnp.asarray(step, jnp.int32), total, per_epoch, constants))


@pytest.mark.parametrize(
    "options",
    [
        dict(temperature_epochs=1, first_temperature=0.08, teacher_temperature=0.06),
        dict(**LATER, patch_prototypes=12, norm_last_layer=False),
    ],
)
def test_the_loss_is_that_of_single_crops(options):
    task = objective(**options)
    now = at(task, 2)
    params, buffers = state(task)
    batch = now.prepare(crops(), jax.random.key(3))
    loss, out = jax.jit(now.loss)(params, buffers, batch, jax.random.key(4))
    # Each crop, of each image, by itself.
    apply = jax.jit(task.networks.encoder.apply, static_argnames="capture")
    sinkhorn, patches = options.get("targets") == "sinkhorn", "patch_weight" in options
    sharp = 0.04 if sinkhorn else 0.08 + 2 / 5 * (0.06 - 0.08)

    def seen(tree, image, mask=None):
        pooled, captured = apply(tree["encoder"], image[None], capture=("encoded",), mask=mask)
        return pooled[0], captured["encoded"][0, 1:]

    def score(tree, rows, head="head"):
        return model_functions(task.networks.heads[head]).apply(tree[head], rows)

    whole, near = batch["global_crops"], batch["local_crops"]
    student, teacher, pooled, tokens = [], [], [], []
    for image in range(3):
        views = []
        for view in range(2):
            mask = batch["masks"][image, view][None] if patches else jnp.zeros((1, 16), bool)
            if not patches:
                mask = None
            views.append(seen(params, whole[image, view], mask))
        near_views = [seen(params, near[image, view])[0] for view in range(3)]
        student.append(score(params, jnp.stack([*(x for x, _ in views), *near_views])))
        taught = [seen(buffers["teacher"], whole[image, view]) for view in range(2)]
        teacher.append(score(buffers["teacher"], jnp.stack([x for x, _ in taught])))
        pooled.append(jnp.stack([x for x, _ in views]))
        tokens += [
            (views[view][1][batch["masks"][image, view]], taught[view][1][batch["masks"][image, view]])
            for view in range(2)
            if patches
        ]
    student, teacher, pooled = map(np.asarray, (jnp.stack(student), jnp.stack(teacher), jnp.stack(pooled)))

    def targets(scores, centre):
        scores = jnp.asarray(scores)
        return (
            losses.sinkhorn_targets(scores, sharp) if sinkhorn else jax.nn.softmax((scores - centre) / sharp)
        )

    wanted = np.asarray(targets(teacher.reshape(6, -1), buffers.get("centre"))).reshape(3, 2, -1)
    said = np.asarray(jax.nn.log_softmax(jnp.asarray(student) / 0.1))
    pairs = [
        -(wanted[image, u] * said[image, v]).sum()
        for image in range(3)
        for u in range(2)
        for v in range(5)
        if u != v
    ]
    expected = np.mean(pairs)
    np.testing.assert_allclose(out.metrics["view_loss"], expected, rtol=1e-5)
    if patches:
        known = targets(
            score(buffers["teacher"], jnp.concatenate([x for _, x in tokens]), "patch_head"), None
        )
        rows = np.cumsum([0, *(len(x) for x, _ in tokens)])
        masked = [
            -(known[a:b] * jax.nn.log_softmax(score(params, x, "patch_head") / 0.1)).sum(-1).mean()
            for (x, _), a, b in zip(tokens, rows, rows[1:])
            if len(x)
        ]
        assert len(masked) == 3  # one of two crops of each image
        np.testing.assert_allclose(out.metrics["patch_loss"], np.sum(masked) / 6, rtol=1e-5)
        koleo = [losses.koleo_loss(jnp.asarray(pooled[:, view])) for view in range(2)]
        expected += np.sum(masked) / 6 + 0.1 * np.sum(koleo)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(
        out.metrics["teacher_entropy"], -(wanted * np.log(wanted)).sum(-1).mean(), rtol=1e-4
    )
    assert out.weight == 3
    if sinkhorn:
        assert not out.sums
    else:
        moved = now.combine(buffers, out.sums)["centre"]
        np.testing.assert_allclose(moved, 0.9 * buffers["centre"] + 0.1 * teacher.mean((0, 1)), rtol=1e-5)


def test_schedules_and_what_the_teacher_gets():
    task = objective(temperature_epochs=2, first_temperature=0.04, teacher_temperature=0.07)
    found = [float(at(task, step, 20, 5)._temperature) for step in (0, 5, 10, 19)]
    np.testing.assert_allclose(found, [0.04, 0.055, 0.07, 0.07], rtol=1e-6)
    params, buffers = state(task)
    before, after = buffers["teacher"]["head"], params["head"]
    for step, share in ((0, 0.996), (5, 1 - 0.004 / 2), (10, 1.0)):
        moved = at(task, step).after_update(params, buffers, jnp.int32(step))["teacher"]["head"]
        for (path, now), old, new in zip(
            flatten(moved).items(), flatten(before).values(), flatten(after).values()
        ):
            np.testing.assert_allclose(
                now, share * old + (1 - share) * new, rtol=1e-5, atol=1e-6, err_msg=path
            )
    assert task.begin(params, buffers)["teacher"] is params


def test_training_counts_all_crops_and_the_teachers():
    plain = objective()
    model, head = plain.model, forward_macs(plain.networks.heads["head"])
    whole, near = forward_macs(model), forward_macs(replace(model, image_size=4))
    views = 2 * (whole + head)
    assert plain.train_flops == 2 * (3 * (views + 3 * (near + head)) + views)
    patches = int(16 * 0.6) * forward_macs(
        objective(**LATER, patch_prototypes=12).networks.heads["patch_head"]
    )
    more = objective(**LATER, patch_prototypes=12).train_flops
    assert more == plain.train_flops + 2 * 4 * patches
    anchored = objective({"global_crops": (2, 16, 16, 1)}, gram_weight=1.0, gram_teacher="x", gram_size=16)
    large = forward_macs(replace(model, image_size=16))
    assert anchored.train_flops == 2 * (4 * views + 2 * large)


def test_collapse_is_named():
    task = objective()
    healthy = {"teacher_entropy": 1.5, "prototypes": 9.0}
    assert task.concerns(healthy) == {}
    uniform = task.concerns({"teacher_entropy": math.log(24), "prototypes": 24.0})
    assert list(uniform) == ["uniform"]
    assert "its targets are uniform, their entropy 3.178 is nearly ln 24 = 3.178" in uniform["uniform"]
    constant = task.concerns({"teacher_entropy": 0.01, "prototypes": 1.02})
    assert "the same for all images (entropy 0.010), 1.02 of 24 prototypes are used" in constant["constant"]


def test_evaluation_says_how_prototypes_are_used():
    task = objective()
    sums = {
        "count": 4.0,
        "loss": 8.0,
        "agreement": 2.0,
        "teacher_entropy": 0.0,
        "usage": np.array([2.0, 2.0, 0]),
    }
    found = task.summarise(sums)
    assert found["prototypes"] == pytest.approx(2)
    assert found["information"] == pytest.approx(math.log(2))
    assert (found["loss"], found["agreement"]) == (2, 0.5)
    collapsed = sums | {"teacher_entropy": 4 * math.log(3), "usage": np.full(3, 4 / 3)}
    assert task.summarise(collapsed)["information"] == pytest.approx(0)
    params, buffers = state(task)
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1), np.uint8)
    mask = np.array([True, True, False])
    found = jax.jit(task.evaluate)(params, {**buffers, "teacher": params}, {"image": images, "mask": mask})
    assert (found["count"], found["usage"].sum()) == (2, pytest.approx(2))
    assert set(task.summarise(jax.device_get(found))) == set(task.metric_modes)
    assert task.features(params, buffers, {"image": images}).shape == (3, 16)


def configuration(**changes):
    config = default_config()
    config.duration = "4 steps"
    config.model.update(MODEL)
    config.data.update(source="synthetic", size=24, batch_size=8, eval_batch_size=16)
    config.data.train_transforms = (
        "multi_crop(8, 4, local_count=3, global_transforms='flip_lr', local_transforms='flip_lr')"
    )
    config.objective.update(name="dino", **HEAD)
    config.optimizer.update(weight_decay=0.04, weight_decay_schedule="cosine", weight_decay_end=0.4)
    config.optimizer.update(
        clip_norm=3.0, clip_per_tensor=True, delay=(("^head/prototypes", "2 steps", None),)
    )
    config.evaluation.every = config.checkpoint.every = "2 steps"
    config.checkpoint.keep_last = 4
    config.log.update(every="1 steps", tensorboard=False, progress=False)
    for key, value in changes.items():
        section, _, name = key.rpartition("__")
        (config[section] if section else config)[name] = value
    return config


@pytest.fixture(scope="module")
def whole(compile_cache, tmp_path_factory):
    """A run of four steps with both centres: its result and its workdir."""
    workdir = tmp_path_factory.mktemp("dino") / "run"
    return train(trained_as(), workdir), workdir


def trained_as():
    config = configuration()
    config.objective.update(**PATCHES, patch_prototypes=12)
    return config


def test_it_resumes_bitwise_with_teacher_and_centres(whole, tmp_path):
    result, workdir = whole
    shutil.copytree(workdir, tmp_path / "again")
    shutil.rmtree(tmp_path / "again" / "checkpoints" / "4")
    again = train(trained_as(), tmp_path / "again")
    for (path, one), other in zip(flatten(again.state).items(), flatten(result.state).values(), strict=True):
        np.testing.assert_array_equal(one, other, err_msg=path)
    assert again.metrics == result.metrics
    buffers = jax.device_get(result.state.buffers)
    assert set(buffers) == {"teacher", "centre", "patch_centre"}
    assert min(np.abs(buffers[name]).max() for name in ("centre", "patch_centre")) > 0
    assert set(result.metrics) == {"loss", "agreement", "teacher_entropy", "prototypes", "information"}
    assert result.experiment.task.monitor.name == "information"


def test_its_networks_are_found_by_name(whole, tmp_path):
    result, workdir = whole
    state = jax.device_get(result.state)
    trees = {"teacher": state.buffers["teacher"]["encoder"], "student": state.params["encoder"]}
    for name, tree in trees.items():
        kernel = vit_jax.load(workdir, weights=name, verbose=False).blocks.mlp.fc1.kernel[...]
        np.testing.assert_array_equal(kernel, tree["blocks"]["mlp"]["fc1"]["kernel"])
        extractor = FeatureExtractor.load(workdir, weights=name)
        np.testing.assert_array_equal(extractor.params["class_token"], tree["class_token"])
    extractor = FeatureExtractor.load(workdir)
    np.testing.assert_array_equal(extractor.params["class_token"], trees["teacher"]["class_token"])
    found = evaluate_workdir(workdir)
    assert {name: found[name] for name in result.metrics} == pytest.approx(result.metrics, rel=1e-5)
    # Another run begins with the teacher, as student and as teacher.
    config = configuration()
    config.model = {"checkpoint": str(workdir), "unroll": 1}
    experiment = build(config)
    started = experiment.init()
    for tree in (started.params, started.buffers["teacher"]):
        np.testing.assert_array_equal(tree["encoder"]["class_token"], trees["teacher"]["class_token"])
    assert experiment.task.fresh == ["head"]


def staged(workdir, **changes):
    """A run that goes on from another, at another size."""
    config = trained_as()
    config.model = {"checkpoint": str(workdir), "weights": "all", "image_size": 12, "unroll": 1}
    config.data.train_transforms = config.data.train_transforms.replace("multi_crop(8", "multi_crop(12")
    config.data.eval_transforms = "resize(12)"
    config.objective.update(changes)
    return config


def test_a_stage_goes_on_from_all_that_was_learned(whole, anchor, tmp_path):
    result, workdir = whole
    experiment = build(staged(workdir))
    started, before = jax.device_get((experiment.init(), result.state))
    for part in ("params", "buffers"):
        ours, theirs = flatten(getattr(started, part)), flatten(getattr(before, part))
        resampled = [path for path, leaf in ours.items() if leaf.shape != theirs[path].shape]
        assert [path.rpartition("/")[2] for path in resampled] == ["pos_embed"]
        for path in ours.keys() - set(resampled):
            np.testing.assert_array_equal(ours[path], theirs[path], err_msg=path)
    assert not np.array_equal(
        started.params["encoder"]["pos_embed"], started.buffers["teacher"]["encoder"]["pos_embed"]
    )
    assert experiment.task.fresh == []
    assert any("centre, patch_centre, teacher, head, patch_head" in line for line in beginning(experiment))
    with pytest.raises(ConfigError, match=r"has not, or of another shape: buffers/centre; .*; give"):
        build(staged(workdir, prototypes=23))
    with pytest.raises(ConfigError, match=r"is no training run, which alone has heads and teachers"):
        build(staged(anchor))
    with pytest.raises(CheckpointError, match=r"nowhere"):
        build(staged(tmp_path / "nowhere"))


def test_stages_are_configurations_that_name_what_they_start_from():
    for stage in ("gram", "high_resolution"):
        with pytest.raises(
            ConfigError, match=r"no model.checkpoint to take them from; give one, such as the workdir"
        ):
            load_config(f"{CONFIGS}/dinov2.py:{stage}")
        config = load_config(f"{CONFIGS}/dinov2.py:{stage}", ["model.checkpoint=runs/pretrained"])
        options = parse_options(config.objective.to_dict())
        assert options.gram_teacher == ("runs/pretrained" if stage == "gram" else "")
        assert config.model.weights == "all"
    with pytest.raises(
        ConfigError, match=r"dinov2.py:anchor is no stage; choose one of pretrain, gram, high"
    ):
        load_config(f"{CONFIGS}/dinov2.py:anchor")


def after_two_steps(config, devices):
    experiment = build(config, devices=jax.devices()[:devices])
    state, frozen = experiment.init(), experiment.devices.constants
    step = compile_step(
        experiment.step,
        experiment.devices.state_shardings,
        None,
        experiment.devices.step_options,
        frozen.shardings,
    )
    batches = experiment.data.train_batches(0)
    before = jax.device_get(state.params["head"]["prototypes"])
    for _ in range(2):
        state, metrics = step(state, experiment.devices.put(next(batches)), *frozen.arguments)
    batches.close()
    assert_trees_close(jax.device_get(state.params["head"]["prototypes"]), before, rtol=0)  # they wait
    return state, {name: float(value) for name, value in metrics.items() if name != "prototypes"}


def spread(config):
    config = config.copy_and_resolve_references()
    config.sharding.update(min_size=0, max_replicated=1.0)
    config.mesh.update(data=2, fsdp=4)
    return config


def assert_same_steps(one, other):
    (alone, expected), (state, metrics) = one, other
    assert metrics == pytest.approx(expected, rel=1e-4)
    for part in ("params", "buffers"):
        ours, theirs = (jax.device_get(getattr(x, part)) for x in (state, alone))
        assert_trees_close(ours, theirs, rtol=1e-4, atol=2e-5)
    student = flatten(state.params)
    for path, leaf in flatten(state.buffers["teacher"]).items():
        assert leaf.sharding.spec == student[path].sharding.spec, path


def test_over_eight_devices_and_in_microbatches_it_is_one():
    config = configuration(data__batch_size=16)
    config.objective.update(**PATCHES)
    config.optimizer.name = "sgd"
    alone = after_two_steps(config, 1)
    config.accumulation = 2
    assert_same_steps(alone, after_two_steps(spread(config), 8))


@pytest.fixture(scope="module")
def anchor(tmp_path_factory):
    """A checkpoint of an earlier teacher, with a head and without the mask token that are not needed."""
    options = {name: value for name, value in MODEL.items() if name != "name"}
    model = vit_jax.create_model(MODEL["name"], seed=7, num_classes=3, **options)
    vit_jax.save(model, tmp_path_factory.mktemp("anchor") / "model")
    return str(tmp_path_factory.getbasetemp() / "anchor0" / "model")


def anchored(source, **changes):
    """Everything that DINOv2 and DINOv3 add: Gram's teacher sees crops twice as large."""
    config = configuration(data__batch_size=8, **changes)
    config.objective.update(**LATER, gram_weight=2.0, gram_teacher=source, gram_size=16, gram_after=1)
    config.data.train_transforms = config.data.train_transforms.replace("multi_crop(8", "multi_crop(16")
    config.optimizer.name = "sgd"
    return config


def test_over_eight_devices_the_whole_batch_is_compared(anchor):
    config = anchored(anchor)
    alone = after_two_steps(config, 1)
    assert_same_steps(alone, after_two_steps(spread(config), 8))
    metrics = alone[1]
    parts = metrics["view_loss"] + metrics["patch_loss"] + 0.1 * 2 * metrics["koleo_loss"]
    assert metrics["loss"] == pytest.approx(parts + 2 * metrics["gram_loss"], rel=1e-5)
    assert set(alone[0].buffers) == {"teacher"}


def test_similarities_are_compared_with_those_of_larger_crops(anchor):
    config = anchored(anchor)
    experiment = build(config)
    task, constants = experiment.task.objective, experiment.devices.constants.values
    assert task.networks.encoder.abstract["mask_token"].shape == (1, 16)
    params, buffers = state(task)
    images = np.random.default_rng(0).integers(0, 256, (2, 2, 16, 16, 1), np.uint8)
    batch = {"global_crops": images, "local_crops": crops(2)["local_crops"]}
    prepared = task.prepare(batch, jax.random.key(0))

    @jax.jit
    def losses_at(step):
        loss, out = at(task, step, **constants).loss(params, buffers, prepared, jax.random.key(1))
        return loss, out.metrics["gram_loss"]

    found = [losses_at(step) for step in (0, 1)]
    (before, gram), (after, again) = found
    assert gram == again
    np.testing.assert_allclose(after - before, 2 * gram, rtol=1e-4)
    assert prepared["global_crops"].shape == (2, 2, 8, 8, 1)
    # By hand, of one crop: eight rows of larger patches become four, and only directions count.
    large = model_functions(replace(task.model, image_size=16))
    _, teacher = large.apply(constants["gram"], prepared["gram_crops"][0, :1], capture=("encoded",))
    _, student = task.networks.encoder.apply(
        params["encoder"],
        prepared["global_crops"][0, :1],
        capture=("encoded",),
        mask=prepared["masks"][0, :1],
    )
    maps = resample_grid(teacher["encoded"][0, 1:].reshape(8, 8, 16), (4, 4), "bicubic").reshape(16, 16)
    similar = [
        rows / jnp.linalg.norm(rows, axis=-1, keepdims=True) for rows in (student["encoded"][0, 1:], maps)
    ]
    expected = jnp.square(similar[0] @ similar[0].T - similar[1] @ similar[1].T).mean()
    one = {name: x[:1, :1] for name, x in prepared.items() if name in ("global_crops", "gram_crops")}
    gram = at(task, 1, **constants)._gram_loss(student["encoded"][:, 1:], one)
    np.testing.assert_allclose(gram, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(prototypes=1), "objective.prototypes is 1; it must be between 2 and"),
        (dict(targets="sinkhorns"), "objective.targets is 'sinkhorns'; .* Did you mean 'sinkhorn'"),
        (dict(mask_ratio=(0.5, 1.0)), "a mask of everything leaves nothing to tell from"),
        (dict(patch_prototypes=8), "patch_prototypes is 8 and patch_weight 0.0; a head for patches needs"),
        (dict(gram_weight=1.0), "gram_teacher ''; Gram anchoring needs both"),
        (dict(student_temperature=0.0), "objective.student_temperature is 0.0; it must be between"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ConfigError, match=message):
        DinoOptions(**options)


@pytest.mark.parametrize(
    ("shapes", "options", "message"),
    [
        (
            (2, 8, 3, 12),
            {},
            "local crops are 12x12, larger than the model's images, 8x8; choose a smaller local_size",
        ),
        ((2, 8, 3, 5), {}, "local crops are 5x5, which patches of 2x2 do not divide"),
        ((1, 8, 0, 0), {}, "leave the student nothing to compare"),
        ((1, 8, 1, 4), PATCHES | dict(masked_crops=2), "masked_crops is 2, but there are 1 global crops"),
        ((2, 8, 1, 4), dict(patch_weight=1.0, mask_ratio=(0.01, 0.02)), "which hides none of 16 patches"),
        (
            (2, 8, 1, 4),
            dict(gram_weight=1.0, gram_teacher="x", gram_size=6),
            "gram_size is 6, but the model's",
        ),
    ],
)
def test_crops_that_do_not_go_with_the_model_are_refused(shapes, options, message):
    (views, size, near, small), named = shapes, {}
    named["global_crops"] = (views, size, size, 1)
    if near:
        named["local_crops"] = (near, small, small, 1)
    with pytest.raises(ConfigError, match=message):
        objective(named, **options)


def test_models_that_cannot_learn_so_are_refused():
    with pytest.raises(ConfigError, match="a Cvt has batch statistics, which a moving teacher"):
        objective(model=model_config("cvt-13"))
    swin = model_config("swin_tiny_patch4_window7_224")
    with pytest.raises(ConfigError, match="patch_weight needs a model with a mask token and one map"):
        objective(model=swin, **PATCHES)
    with pytest.raises(ConfigError, match=r"patch_drop_rate is 0.5, but objective.patch_weight compares all"):
        objective(model=replace(model_config(**MODEL), patch_drop_rate=0.5), **PATCHES)


STAGES = dict(pooled_stages=2, windowed_stages=2)
FAMILIES = {
    "swin": dict(patch_size=2, width=8, depths=(1, 1), heads=(2, 2), window_size=4),
    "hiera": dict(width=16, heads=2, depths=(1, 1, 1), mask_unit=4, patch_kernel=3, patch_stride=1) | STAGES,
    "beit": dict(width=16, depth=1, heads=2, mlp_dim=32, patch_size=4),
}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("swin_tiny_patch4_window7_224", dict(koleo_weight=0.1)),
        ("hiera_tiny_224", dict()),
        ("beit_base_patch16_224", LATER),
    ],
)
def test_families_learn_so_from_crops_of_two_sizes(name, options):
    """Traced alone."""
    model = model_config(name, image_size=16, in_channels=1, **FAMILIES[name.partition("_")[0]])
    shapes = {"global_crops": (2, 16, 16, 1), "local_crops": (3, 8, 8, 1)}
    task = at(objective(shapes, model, **options), 0)
    batch = {field: jax.ShapeDtypeStruct((4, *shape), np.uint8) for field, shape in shapes.items()}

    def step(batch, key):
        return task.loss(*task.init(key), task.prepare(batch, key), key)

    loss, _ = jax.eval_shape(step, batch, jax.random.key(0))
    assert loss.shape == ()
    assert task.train_flops > 16 * forward_macs(task.model)


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        (
            dict(accumulation=2),
            LATER,
            "accumulation is 2, but objective.targets 'sinkhorn' compares the images",
        ),
        (
            dict(accumulation=2),
            dict(koleo_weight=0.1),
            "accumulation is 2, but objective.koleo_weight compares",
        ),
        (
            dict(data__batch_size=1),
            dict(koleo_weight=0.1),
            "data.batch_size is 1, but objective.koleo_weight needs",
        ),
        (dict(data__train_transforms=""), {}, "has image but no global_crops, which objective 'dino' needs"),
        (
            dict(data__train_transforms="multi_crop(16, 4)"),
            {},
            r"turn global_crops of .* into \(2, 16, 16, 1\) uint8, but objective 'dino' needs \(any, 8, 8, 1\)",
        ),
        (
            {},
            dict(prototypes=25),
            "objective.prototypes is 25, but there are 24 images to train on, and a prototype",
        ),
        (dict(lora__rank=2), {}, "lora.rank is 2, but objective 'dino' trains its model within"),
    ],
)
def test_runs_that_cannot_be_are_refused(changes, options, message):
    config = configuration(**changes)
    config.objective.update(**options)
    with pytest.raises(ConfigError, match=message):
        build(config)


def test_a_missing_teacher_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"nowhere"):
        build(anchored(str(tmp_path / "nowhere")))
