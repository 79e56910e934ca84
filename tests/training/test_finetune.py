"""Training that starts from a checkpoint: what is loaded, what is trained, and that the file is needed only once."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.images import COLOURS, colour_folder
from tests.reference.cases import weights_file
from tests.runs import run as command
from vit_jax.checkpoints.checkpoints import Checkpoints
from vit_jax.errors import CheckpointError, ConfigError
from vit_jax.inference.evaluating import evaluate_workdir
from vit_jax.inference.features import FeatureExtractor
from vit_jax.inference.predictor import Predictor
from vit_jax.models.registry import create_model, model_config, model_functions
from vit_jax.training.config import default_config, validate
from vit_jax.training.config.model import problem_changed
from vit_jax.training.experiment import build
from vit_jax.training.loop import train
from vit_jax.training.report.beginning import beginning
from vit_jax.trees import flatten
from vit_jax.weights.load import load, open_pretrained
from vit_jax.weights.save import save

# Three blocks of width 32 for 32 pixels and 7 classes, as timm writes them.
REFERENCE = weights_file("vit_timm_token")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return colour_folder(tmp_path_factory.mktemp("images") / "colours")


def configuration(images, checkpoint=REFERENCE, **changes):
    config = default_config()
    config.duration = "4 steps"
    config.model = {"checkpoint": str(checkpoint), "unroll": 1}
    config.data.update(source="folder", path=str(images), eval_split="val", batch_size=8, eval_batch_size=8)
    config.data.train_transforms = "decode({channels})|random_resized_crop({size}, scale=(0.5, 1.0))|flip_lr"
    config.optimizer.learning_rate = 1e-2
    config.evaluation.every = config.checkpoint.every = "2 steps"
    config.log.tensorboard = False
    for key, value in changes.items():
        section, _, name = key.partition("__")
        config[section][name] = value
    validate(config)
    return config


@pytest.fixture(scope="module")
def run(compile_cache, images, tmp_path_factory):
    """A run with low-rank factors and an average, whose checkpoint is gone afterwards."""
    folder = tmp_path_factory.mktemp("finetuned")
    checkpoint = shutil.copy(REFERENCE, folder / "source.safetensors")
    config = configuration(images, checkpoint, lora__rank=2, ema__decay=0.5, optimizer__layer_decay=0.75)
    result = train(config, folder / "run")
    Path(checkpoint).unlink()
    return config, folder / "run", result


@pytest.mark.parametrize("changes", [{}, {"lora__rank": 2, "ema__decay": 0.9}], ids=["full", "lora"])
def test_step_0_is_the_checkpoint(images, changes):
    config = configuration(images, mesh__fsdp=2, sharding__min_size=0, **changes)
    experiment = build(config)
    assert experiment.task.model.num_classes == len(COLOURS)
    state = experiment.init()
    loaded, ours = flatten(open_pretrained(REFERENCE, num_classes=3).params()), flatten(state.params)
    for path, leaf in loaded.items():
        np.testing.assert_array_equal(ours[path], leaf)
    assert {path for path in ours if path not in loaded} == {
        path for path in ours if path.startswith("lora/")
    }
    assert any(path.startswith("lora/") for path in ours) == bool(changes)
    shardings = experiment.devices.state_shardings
    assert jax.tree.all(jax.tree.map(lambda x, s: x.sharding.is_equivalent_to(s, x.ndim), state, shardings))
    assert not state.params["blocks"]["mlp"]["fc1"]["kernel"].sharding.is_fully_replicated
    if changes:
        assert all(np.array_equal(a, b) for a, b in zip(flatten(state.ema).values(), ours.values()))


def test_size_channels_and_transforms_follow_the_model(images):
    experiment = build(configuration(images, model__image_size=48, model__in_channels=1))
    assert (
        experiment.data.transforms[0] == "decode(1)|random_resized_crop((48, 48), scale=(0.5, 1.0))|flip_lr"
    )
    assert experiment.data.transforms[1].endswith("center_crop(48)")
    assert experiment.abstract_batch()["image"].shape == (8, 48, 48, 1)
    report = str(experiment.task.pretrained.report)
    assert "4x4 -> 6x6" in report
    assert "channels 3 -> 1" in report


def test_the_loss_decides_what_outputs_mean_and_a_change_is_told(images, tmp_path):
    save(load(REFERENCE, num_classes=3, problem="multi_label", verbose=False), tmp_path / "checkpoint", "hf")
    kept, same, new = (
        build(configuration(images, tmp_path / "checkpoint")),
        build(configuration(images, tmp_path / "checkpoint", objective__loss="bce")),
        build(configuration(images, objective__loss="sigmoid")),
    )
    assert tuple(x.task.model.problem for x in (kept, same, new)) == (
        "single_label",
        "multi_label",
        "multi_label",
    )
    (line,) = problem_changed(kept.task.pretrained, kept.task.model)
    assert "the head's outputs were multi_label; objective.loss trains them as single_label" in line
    assert (
        problem_changed(same.task.pretrained, same.task.model)
        == problem_changed(new.task.pretrained, new.task.model)
        == []
    )
    with pytest.raises(ConfigError, match=r"model\.problem is 'regression', but objective\.loss 'softmax'"):
        configuration(images, model__problem="regression")
    configuration(images, model__problem="multi_label", objective__loss="sigmoid")


def test_only_factors_and_head_are_trained(run):
    _, _, result = run
    start = flatten(result.experiment.abstract_state.params)
    loaded = flatten(open_pretrained(REFERENCE, num_classes=3).params())
    ours = flatten(result.state.params)
    assert ours.keys() == start.keys()
    for path, leaf in loaded.items():
        assert np.array_equal(ours[path], leaf) == (not path.startswith("head/")), path
    assert all(np.any(leaf != 0) for path, leaf in ours.items() if path.endswith("/b") and "lora" in path)


def test_the_report_is_told_once(images, tmp_path, capfd):
    config = configuration(
        images, optimizer__trained=("^head",), evaluation__every="100%", checkpoint__every="50%"
    )
    train(config, tmp_path / "run")
    err = capfd.readouterr().err
    table = err[: err.index("adamw")].splitlines()
    assert table[0].endswith(": 18 arrays loaded")
    assert table[1] == f"  new      {'head/bias, head/kernel':<40} zero"
    assert "\\n" not in err
    assert "adamw: 0 parameters decayed, 99 parameters not decayed, 44,928 parameters frozen" in err
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "4")
    train(config, tmp_path / "run")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["images_per_second"] > 0
    assert summary["flops_per_second"] is None  # most of the backward pass was left out
    again = capfd.readouterr().err
    assert again.startswith("resuming after step 2")
    assert "arrays loaded" not in again


def test_a_run_goes_on_without_the_checkpoint(run, tmp_path):
    config, workdir, result = run
    copy = Path(shutil.copytree(workdir, tmp_path / "copy"))
    shutil.rmtree(copy / "checkpoints" / "4")
    again = train(config, copy)
    assert again.summary["fingerprint"] == result.summary["fingerprint"]
    assert again.metrics == result.metrics
    with pytest.raises(CheckpointError, match="does not exist"):
        train(config, tmp_path / "new")


def test_and_is_evaluated_and_used_without_it(run, images):
    _, workdir, result = run
    assert evaluate_workdir(workdir) == {"step": 4} | result.metrics
    predictor = Predictor.load(workdir)
    assert predictor.objective.data.class_names == COLOURS
    assert "lora" not in predictor.params
    source = result.experiment.data.eval_source
    hits = [
        predictor.predict([example["image"]])[0].classes[0] == COLOURS[example["label"]]
        for example in map(source.__getitem__, range(len(source)))
    ]
    assert np.mean(hits) == pytest.approx(result.metrics["accuracy"])
    files = sorted((images / "val" / "red").iterdir())
    pixels = predictor._preprocessor(files)
    np.testing.assert_allclose(
        jax.nn.softmax(predictor.network(pixels)), predictor.probabilities(files), rtol=1e-4, atol=1e-6
    )
    assert FeatureExtractor.load(workdir).features(files).shape == (4, 32)


def test_and_converted_with_its_factors_merged(run, images, tmp_path):
    _, workdir, _ = run
    outcome = command("convert", workdir, tmp_path / "hf", "--format", "hf")
    assert outcome.status == 0, outcome.err
    assert "config.json and preprocessor_config.json" in outcome.out
    ours, theirs = Predictor.load(workdir), Predictor.load(tmp_path / "hf")
    assert theirs.objective.data.class_names == COLOURS
    merged = flatten(theirs.params)
    assert merged.keys() == flatten(ours.params).keys()
    for path, leaf in flatten(ours.params).items():
        np.testing.assert_array_equal(merged[path], leaf)
    refused = command("convert", tmp_path / "none.npz", tmp_path / "out", "--format", "hf")
    assert (refused.status, refused.err.count("\n")) == (4, 1)


def test_a_run_of_a_version_that_did_not_say_its_model(trained, tmp_path):
    saved = Checkpoints(Path(trained.workdir) / "checkpoints", read_only=True)
    metadata = saved.metadata(6)
    config = metadata["config"]
    config.pop("lora")
    config["optimizer"].pop("trained")
    model = model_config(**config["model"], num_classes=10)
    abstract = jax.eval_shape(model_functions(model).init, jax.random.key(0))
    params = saved.restore_part("params", abstract, 6)[0]
    kept = {name: metadata[name] for name in ("class_names", "eval_transforms", "monitor", "monitor_mode")}
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        checkpoints.save(6, {"params": params}, {"config": config, **kept}, {})
    assert evaluate_workdir(tmp_path) == evaluate_workdir(trained.workdir)
    assert Predictor.load(tmp_path).model.depth == model.depth


def test_what_is_refused(images, tmp_path):
    for changes, message in (
        ({"lora__rank": 99}, "lora.rank is 99, more than blocks/attn/query has"),
        ({"lora__rank": 2, "lora__targets": ("quary",)}, "lora.targets has 'quary', which matches no layer"),
        ({"optimizer__trained": ("^haed",)}, "optimizer.trained has '\\^haed', which matches no parameter"),
        ({"model__image_size": 33}, "image_size has height 33, not divisible"),
        ({"model__num_classes": 4}, "model.num_classes is 4 and the data has 3 classes"),
    ):
        with pytest.raises(ConfigError, match=message):
            build(configuration(images, **changes))
    with pytest.raises(CheckpointError, match="width is 64, but 32 in the checkpoint"):
        build(configuration(images, model__width=64))
    with pytest.raises(ConfigError, match=r"'widht' is not a model option\. Did you mean 'width'"):
        configuration(images, model__widht=64)


def test_masked_autoencoding_goes_on_with_an_encoder(tmp_path):
    options = dict(in_channels=1, width=16, depth=1, heads=2, mlp_dim=32, num_classes=3)
    encoder = create_model("vit_mu_patch4_8", position="sincos2d_mae", **options)
    save(encoder, tmp_path / "encoder")
    config = default_config()
    config.objective = dict(name="mae", decoder_width=16, decoder_depth=1, decoder_heads=2)
    config.model = dict(checkpoint=str(tmp_path / "encoder"))
    config.data.update(batch_size=8, eval_batch_size=8)
    experiment = build(config)
    params = experiment.init().params
    np.testing.assert_array_equal(params["encoder"]["patch_embed"]["kernel"], encoder.patch_embed.kernel[...])
    assert "head" not in params["encoder"]
    told = "\n".join(beginning(experiment))
    assert "new      decoder" in told
    assert "head" in told
    save(create_model("vit_mu_patch4_8", **options), tmp_path / "other")
    config.model = dict(checkpoint=str(tmp_path / "other"))
    with pytest.raises(CheckpointError, match="position is 'sincos2d_mae', but 'learned' in the checkpoint"):
        build(config)
