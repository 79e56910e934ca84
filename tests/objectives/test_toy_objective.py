"""One objective of one's own, in this file alone, goes through everything a run can do.

A student learns to agree with a moving teacher and with a frozen one, over two crops: fields without an image, buffers
with a schedule, a constant from a checkpoint, sums over microbatches, bounded parameters, metrics of arrays and of the
whole set, predictions.
"""

import dataclasses
import functools
import json
import shutil
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vit_jax
from tests.tiny import assert_trees_close
from vit_jax.checkpoints.checkpoints import Checkpoints
from vit_jax.errors import CheckpointError, ConfigError
from vit_jax.inference.evaluating import evaluate_workdir
from vit_jax.inference.export.export import export_predictor
from vit_jax.inference.export.exported import ExportedPredictor
from vit_jax.inference.features import FeatureExtractor
from vit_jax.models.registry import model_functions
from vit_jax.models.vit.config import replace
from vit_jax.objectives.base import Constant, Field, LossOutput, Moment, Objective
from vit_jax.objectives.images import normalise
from vit_jax.objectives.outputs.values import Values
from vit_jax.objectives.schedules import cosine
from vit_jax.objectives.teacher import follow
from vit_jax.training.config import default_config
from vit_jax.training.experiment import build
from vit_jax.training.guard.replay import replay
from vit_jax.training.loop import train
from vit_jax.training.run import Run
from vit_jax.training.step import compile_step
from vit_jax.trees import flatten

SIZE, WIDTH = 8, 16
SCALE = 0.01  # largest value of the bounded parameter


@dataclasses.dataclass(frozen=True)
class Toy(Objective):
    """Agree with two teachers."""

    model: Any
    guide: str  # a checkpoint
    moment: Moment | None = None

    network: ClassVar = None  # no family has a student and a scale
    encoder: ClassVar = "student"
    encoders: ClassVar = {"student": "params/student", "teacher": "buffers/teacher"}
    loss_may_rise: ClassVar = True
    monitor: ClassVar = "neighbours"
    metric_modes: ClassVar = {"neighbours": "max", "spread": "max"}
    output: ClassVar = Values(("first", "second"))

    @property
    def fields(self) -> Mapping[str, Field]:
        return {"global_crops": Field((2, SIZE, SIZE, 1), "uint8")}

    @property
    def eval_fields(self) -> Mapping[str, Field]:
        return {"image": Field(self.model.input_shape), "label": Field((), "int32")}

    @functools.cached_property
    def functions(self):
        return model_functions(self.model)

    def constants(self):
        return {"guide": Constant(self.model, self.guide)}

    def at(self, moment):
        return dataclasses.replace(self, moment=moment)

    def init(self, key):
        buffers = {"teacher": self.functions.init(key), "centre": jnp.zeros(WIDTH), "seen": jnp.zeros(())}
        return {"student": self.functions.init(key), "logit_scale": jnp.ones(())}, buffers

    def begin(self, params, buffers):
        return buffers | {"teacher": params["student"]}

    def prepare(self, batch, key):
        crops = normalise(batch["global_crops"], self.model.preprocessing)
        return {"one": crops[:, 0], "two": crops[:, 1]}

    def loss(self, params, buffers, batch, key):
        ours = self.functions.apply(params["student"], batch["one"])
        moving = self.functions.apply(buffers["teacher"], batch["two"])
        frozen = self.functions.apply(self.moment.constants["guide"], batch["one"])
        target = jax.lax.stop_gradient(moving - buffers["centre"])
        loss = jnp.square(params["logit_scale"] * ours - target).mean() + jnp.square(ours - frozen).mean()
        rows = jnp.float32(len(ours))
        return loss, LossOutput({"loss": loss}, {}, rows, {"moving": moving.sum(0), "rows": rows})

    def combine(self, buffers, sums):
        centre = 0.9 * buffers["centre"] + 0.1 * sums["moving"] / sums["rows"]
        return buffers | {"centre": centre, "seen": buffers["seen"] + sums["rows"]}

    def project(self, params):
        return params | {"logit_scale": jnp.minimum(params["logit_scale"], SCALE)}

    def after_update(self, params, buffers, step):
        momentum = cosine(self.moment.step, 0.5, 1.0, self.moment.total)
        return buffers | {"teacher": follow(buffers["teacher"], params["student"], momentum)}

    def concerns(self, metrics):
        return {"far": f"student and teacher differ by {metrics['loss']}"} if metrics["loss"] > 1 else {}

    def evaluate(self, params, buffers, batch):
        values = self.predict(params, buffers, batch)["values"]
        values = jnp.where(batch["mask"][:, None], values, 0.0)
        moments = jnp.stack([values.sum(0), jnp.square(values).sum(0)])
        return {"moments": moments, "count": batch["mask"].sum().astype(jnp.float32)}

    def summarise(self, sums):
        mean, square = sums["moments"] / sums["count"]
        return {"spread": float((square - mean**2).mean())}

    def evaluate_rows(self, params, buffers, batch):
        return self.evaluate(params, buffers, batch), self.predict(params, buffers, batch)

    def scorer(self):
        return Neighbours()

    def predict(self, params, buffers, batch):
        features = self.functions.apply(
            params["student"], normalise(batch["image"], self.model.preprocessing)
        )
        return {"values": features[:, :2]}


class Neighbours:
    """How often the nearest other record of the whole set has the same label."""

    def __init__(self):
        self.values, self.labels = [], []

    def see(self, rows):
        self.values.append(rows["values"])
        self.labels.append(rows["label"])

    def metrics(self):
        values, labels = np.concatenate(self.values), np.concatenate(self.labels)
        distances = np.square(values[:, None] - values[None]).sum(-1) + np.diag([np.inf] * len(values))
        return {"neighbours": float(np.mean(labels[distances.argmin(1)] == labels))}


def headless(model):
    return replace(model, num_classes=0)


def making(guide):
    return lambda model, options, data: Toy(headless(model), str(guide))


MODEL = dict(
    name="vit_mu_patch4_8", in_channels=1, width=WIDTH, depth=1, heads=2, mlp_dim=32, unroll=1, pool="cls"
)


def configuration(**changes):
    config = default_config()
    config.duration = "4 steps"
    config.model.update(MODEL)
    config.data.update(source="synthetic", size=24, batch_size=8, eval_batch_size=16)
    config.data.train_transforms = f"multi_crop({SIZE}, local_count=0, global_transforms='flip_lr')"
    config.optimizer.update(name="sgd", learning_rate=0.1)
    config.optimizer.update(weight_decay=0.1, weight_decay_schedule="cosine", weight_decay_end=0.4)
    config.optimizer.delay = (("blocks", "1 step"),)
    config.evaluation.every = config.checkpoint.every = "2 steps"
    config.checkpoint.keep_last = 4
    config.log.update(every="1 steps", tensorboard=False, progress=False)
    for key, value in changes.items():
        section, _, name = key.rpartition("__")
        (config[section] if section else config)[name] = value
    return config


@pytest.fixture(scope="module")
def guide(tmp_path_factory):
    """A checkpoint of the frozen teacher, with a head that it does not need."""
    return saved_model(tmp_path_factory.mktemp("guide"), 1)


def saved_model(folder, seed):
    options = {name: value for name, value in MODEL.items() if name != "name"}
    model = vit_jax.create_model(MODEL["name"], seed=seed, num_classes=3, **options)
    vit_jax.save(model, folder / "model")
    return folder / "model"


@pytest.fixture(scope="module")
def whole(guide, compile_cache, tmp_path_factory):
    """A run of four steps: its result and its workdir."""
    workdir = tmp_path_factory.mktemp("toy") / "run"
    return train(configuration(), workdir, objective=making(guide)), workdir


def assert_same(ours, others):
    for (path, one), other in zip(flatten(ours).items(), flatten(others).values(), strict=True):
        np.testing.assert_array_equal(one, other, err_msg=path)


def test_it_trains_by_its_schedules(whole, guide):
    result, _ = whole
    buffers, params = jax.device_get((result.state.buffers, result.state.params))
    assert float(buffers["seen"]) == 4 * 8  # sums of every step, combined once
    assert params["logit_scale"] <= SCALE
    assert np.abs(buffers["centre"]).max() > 0
    # The last momentum is near 1, so teacher and student are not one.
    assert not np.array_equal(
        buffers["teacher"]["patch_embed"]["kernel"], params["student"]["patch_embed"]["kernel"]
    )
    assert set(result.metrics) == {"neighbours", "spread"}
    assert result.experiment.task.monitor.name == "neighbours"
    # The frozen teacher is that of the checkpoint, and in no checkpoint of the run.
    constants = result.experiment.devices.constants
    original = flatten(vit_jax.load(guide, verbose=False, num_classes=0))
    np.testing.assert_array_equal(
        constants.values["guide"]["patch_embed"]["kernel"], original["patch_embed/kernel/value"]
    )


def test_nothing_frozen_is_stored_but_its_fingerprint(whole):
    metadata = Checkpoints(whole[1] / "checkpoints", read_only=True).newest_metadata()
    assert metadata["constants"] == whole[0].experiment.devices.constants.fingerprints
    assert (metadata["objective"], metadata["encoder"]) == ("Toy", "student")
    assert not [path for path in metadata["arrays"] if "guide" in path]
    assert "buffers/teacher/patch_embed/kernel" in metadata["arrays"]


def test_it_resumes_bitwise_with_its_teacher(whole, guide, tmp_path):
    result, workdir = whole
    shutil.copytree(workdir, tmp_path / "again")
    shutil.rmtree(tmp_path / "again" / "checkpoints" / "4")
    again = train(configuration(), tmp_path / "again", objective=making(guide))
    assert_same(again.state, result.state)
    assert again.metrics == result.metrics


def test_another_frozen_teacher_is_refused(whole, tmp_path):
    shutil.copytree(whole[1], tmp_path / "again")
    other = saved_model(tmp_path, 2)
    with pytest.raises(
        ConfigError, match="frozen network 'guide' differs from the one the run was trained with"
    ):
        train(
            configuration(duration="6 steps"),
            tmp_path / "again",
            allow_change=["duration"],
            objective=making(other),
        )


def test_it_is_evaluated_from_its_workdir(whole, guide):
    found = evaluate_workdir(whole[1], objective=making(guide))
    assert {name: found[name] for name in whole[0].metrics} == pytest.approx(whole[0].metrics, rel=1e-5)


def test_it_predicts_and_is_exported(whole, guide, tmp_path):
    predictor = vit_jax.Predictor.load(whole[1], objective=making(guide))
    image = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 1), np.uint8)
    (prediction,) = predictor.predict([image])
    assert len(prediction.values) == 2
    export_predictor(predictor, tmp_path / "exported", [1])
    (there,) = ExportedPredictor.load(tmp_path / "exported").predict([image])
    np.testing.assert_allclose(there.values, prediction.values, rtol=1e-5, atol=1e-6)


def test_its_networks_are_taken_by_name(whole, guide):
    state = jax.device_get(whole[0].state)
    for name, tree in (("student", state.params["student"]), ("teacher", state.buffers["teacher"])):
        model = vit_jax.load(whole[1], weights=name, verbose=False)
        np.testing.assert_array_equal(model.patch_embed.kernel[...], tree["patch_embed"]["kernel"])
        extractor = FeatureExtractor.load(whole[1], weights=name, objective=making(guide))
        assert_same(extractor.params, tree)
    assert_same(FeatureExtractor.load(whole[1], objective=making(guide)).params, state.params["student"])
    with pytest.raises(CheckpointError, match=r"has no weights 'techer'; it has .*. Did you mean 'teacher'"):
        vit_jax.load(whole[1], weights="techer")
    with pytest.raises(ConfigError, match=r"Toy has no weights 'guide'; it has student, teacher"):
        FeatureExtractor.load(whole[1], weights="guide", objective=making(guide))
    with pytest.raises(ConfigError, match=r"lora.rank is 2, but objective .* set lora.rank=0"):
        build(configuration(lora__rank=2), objective=making(guide))


def test_what_it_finds_wrong_is_told_once_and_not_at_first(whole):
    told = []
    fake = SimpleNamespace(
        experiment=whole[0].experiment, _told=set(), progress=SimpleNamespace(write=told.append)
    )
    for step, loss in ((0, 5.0), (1, 0.5), (2, 2.0), (3, 3.0)):
        Run._tell_concerns(fake, step, {"loss": loss})
    assert told == ["step 2: student and teacher differ by 2.0"]


def test_a_step_is_replayed(whole, guide):
    result = replay(whole[1], 3, objective=making(guide))
    assert (result.step, result.start, result.kind) == (3, 2, "")
    lines = map(json.loads, (whole[1] / "metrics.jsonl").read_text().splitlines())
    (logged,) = (line for line in lines if line["step"] == 3 and "train/loss" in line)
    assert result.metrics["loss"] == logged["train/loss"]


def after_two_steps(guide, devices, **mesh):
    config = configuration(accumulation=2, data__batch_size=16)
    config.sharding.update(min_size=0, max_replicated=1.0)
    config.mesh.update(mesh)
    experiment = build(config, objective=making(guide), devices=jax.devices()[:devices])
    state, frozen = experiment.init(), experiment.devices.constants
    step = compile_step(
        experiment.step,
        experiment.devices.state_shardings,
        None,
        experiment.devices.step_options,
        frozen.shardings,
    )
    batches = experiment.data.train_batches(0)
    for _ in range(2):
        state, metrics = step(state, experiment.devices.put(next(batches)), *frozen.arguments)
    batches.close()
    return experiment, state, {name: float(value) for name, value in metrics.items()}


def test_over_eight_devices_it_is_one(guide):
    _, alone, expected = after_two_steps(guide, 1)
    experiment, state, metrics = after_two_steps(guide, 8, data=2, fsdp=4)
    assert metrics == pytest.approx(expected, rel=1e-5)
    assert_trees_close(jax.device_get(state.params), jax.device_get(alone.params), rtol=1e-5)
    assert_trees_close(jax.device_get(state.buffers), jax.device_get(alone.buffers), rtol=1e-5)
    # The moving and the frozen teacher are divided as the student is.
    student = flatten(state.params["student"])
    for other in (state.buffers["teacher"], experiment.devices.constants.values["guide"]):
        for path, leaf in flatten(other).items():
            assert leaf.sharding.spec == student[path].sharding.spec, path
    assert student["blocks/mlp/fc1/kernel"].addressable_shards[0].data.size == WIDTH * 32 / 4
    assert state.buffers["centre"].sharding.is_fully_replicated


def test_it_starts_from_a_checkpoint_below_its_encoder(guide, tmp_path):
    start = saved_model(tmp_path, 3)
    config = configuration()
    config.model = {"checkpoint": str(start), "unroll": 1}
    experiment = build(config, objective=making(guide))
    state = experiment.init()
    loaded = vit_jax.load(start, verbose=False, num_classes=0).patch_embed.kernel[...]
    np.testing.assert_array_equal(state.params["student"]["patch_embed"]["kernel"], loaded)
    np.testing.assert_array_equal(state.buffers["teacher"]["patch_embed"]["kernel"], loaded)
    assert experiment.task.fresh == ["logit_scale"]
    assert "head" not in state.params["student"]


def test_records_without_its_fields_are_refused(guide):
    with pytest.raises(
        ConfigError, match="the training data has image but no global_crops, which objective 'Toy'"
    ):
        build(configuration(data__train_transforms=""), objective=making(guide))
    crops = f"multi_crop({SIZE * 2}, local_count=0, global_transforms='flip_lr')"
    with pytest.raises(
        ConfigError,
        match=r"global_crops of .* into \(2, 16, 16, 1\) uint8, but .* needs \(2, 8, 8, 1\) uint8",
    ):
        build(configuration(data__train_transforms=crops), objective=making(guide))


def test_what_is_no_objective_is_refused():
    with pytest.raises(
        ConfigError,
        match=r"objective makes a Toyless; it must be a subclass of vit_jax.objectives.base.Objective",
    ):
        build(configuration(), objective=lambda *_: Toyless())


class Toyless:
    """Has nothing of an objective."""
