"""Every shipped configuration is valid, and trains a step at toy size."""

from pathlib import Path
from types import SimpleNamespace

import cv2
import jax
import numpy as np
import pytest

from tests.reference.cases import HERE, weights_file
from tests.starts import initial
from vit_jax.data.transforms.spec import parse
from vit_jax.errors import ConfigError
from vit_jax.models.families import family_of
from vit_jax.models.flops import parameter_count
from vit_jax.objectives.base import Moment
from vit_jax.objectives.options import OBJECTIVES
from vit_jax.training.config import load_config, validate
from vit_jax.training.config.model import resolve_model
from vit_jax.training.experiment import build
from vit_jax.training.optimizer import treatments
from vit_jax.training.parts.records import transform_specs
from vit_jax.trees import flatten

CONFIGS = Path(__file__).parent.parent / "configs"
CASES = [
    "digits.py",
    "distill.py",
    "distill.py:patient",
    "distill_digits.py",
    "dino_digits.py",
    "dino.py",
    "dino.py:300",
    "dinov2.py",
    "lejepa_digits.py",
    "lejepa_digits.py:byol",
    "lejepa_imagenette.py",
    "lejepa_imagenette.py:visreg",
    "mae_digits.py",
    "mocov3_i1k.py",
    "naflex_digits.py",
    "naflex_digits.py:square",
    "vit_s16_i1k.py",
    "vit_s16_i1k.py:150",
    "vit_s16_i1k.py:300",
    "augreg.py",
    "augreg.py:Ti/16,i1k,none",
    "augreg.py:L/16,i21k,medium2",
    "deit_i1k.py:tiny",
    "deit_i1k.py",
    "deit_i1k.py:base",
    "deit3_i1k.py",
    "deit3_i1k.py:base",
    "deit3_i1k.py:large",
    "deit3_i1k.py:huge",
    "mae_i1k.py",
    "mae_i1k.py:base",
    "mae_i1k.py:huge",
    "mae_finetune_i1k.py",
    "mae_finetune_i1k.py:base",
    "mae_linear_i1k.py",
    "cvt_i1k.py",
    "cvt_i1k.py:21",
    "mvitv2_i1k.py",
    "mvitv2_i1k.py:small",
    "mvitv2_i1k.py:base",
    "mvitv2_i1k.py:large",
    "hiera_mae_i1k.py",
    "hiera_mae_i1k.py:large",
    "hiera_mae_i1k.py:huge",
    "cifar10.py",
    "cifar10.py:tiny",
    *(
        f"cifar10_self_supervised.py:{name}"
        for name in ("dino", "ibot", "lejepa", "byol", "mae", "simmim", "ijepa")
    ),
    *(f"cifar10_self_supervised.py:{name}" for name in ("vq_tokenizer", "beit", "student")),
    *(f"cifar10_self_supervised.py:{name}" for name in ("distillation", "feature_distillation")),
    "folder.py:images",
    "multi_label.py",
    "multi_label.py:images",
    "regression.py",
    "regression.py:images",
    "vit_g_jft_style.py",
    "vit_g_jft_style.py:G/14",
    "finetune.py",
    "finetune.py:full",
    "finetune.py:layer_decay",
    "finetune.py:frozen",
    "finetune.py:linear_probe",
    "finetune.py:lora",
    "scenes_segmentation.py",
    "segmentation_folder.py",
    "segmentation_folder.py:upernet",
    "segmentation_folder.py:setr_pup",
    "beit_digits.py",
    "beit_i1k.py",
    "ijepa_digits.py",
    "ijepa_i1k.py",
    "vq_tokenizer_digits.py",
    "simmim_digits.py",
    "simmim_i1k.py",
    "simmim_i1k.py:vit_base",
    "swin_i1k.py",
    "swin_i1k.py:base",
    "swinv2_i1k.py",
    "swinv2_i1k.py:small,16",
]
# Three blocks of width 32 for images of 32 pixels, as timm writes them.
CHECKPOINT = weights_file("vit_timm_token")
TOKENIZER = HERE / "torch" / "dalle_module.pkl"


def load(case):
    """The configuration; what has to come from the command line is made up."""
    given = [f"model.checkpoint={CHECKPOINT}", "data.path=images"] if from_checkpoint(case) else []
    if "distill" in case:
        given = [f"objective.teacher{'s' * ('feature' in case or case == 'distill.py')}={CHECKPOINT}"]
        given += ["data.path=images"] * case.startswith("distill.py")
    if "beit" in case:
        given = [f"objective.tokenizer={TOKENIZER}"]
    return load_config(str(CONFIGS / case), given)


def from_checkpoint(case):
    """Whether a case starts from a checkpoint."""
    started = ("multi_label.py:images", "regression.py:images")
    return (
        case.startswith(("finetune", "mae_finetune", "mae_linear", "segmentation_folder")) or case in started
    )


def test_every_config_is_listed():
    assert {path.name for path in CONFIGS.glob("*.py")} == {case.split(":")[0] for case in CASES}


@pytest.mark.parametrize("case", CASES)
def test_docstring_says_what_it_is(case):
    text = (CONFIGS / case.split(":")[0]).read_text()
    docstring = text.split('"""')[1]
    assert "vit-jax train --config configs/" in docstring
    assert "Hardware:" in docstring
    assert "arXiv" in docstring or "ours" in docstring
    assert len(text.splitlines()) < 120


@pytest.mark.parametrize("case", CASES)
def test_full_size_is_valid(case):
    config = load(case)
    model, pretrained = resolve_model(config.model, config.compute_dtype)
    assert (pretrained is not None) == from_checkpoint(case)
    assert parameter_count(model) > 0


@pytest.mark.parametrize(
    "case",
    [case for case in CASES if load(case).data.train_transforms and load(case).data.source != "digits"],
)
def test_transforms_make_training_images_of_photographs(case):
    config = load(case)
    model, _ = resolve_model(config.model, config.compute_dtype)
    photograph = np.random.default_rng(0).integers(0, 256, (32, 40, 3), dtype=np.uint8)
    if case.startswith("cifar10"):
        photograph = photograph[:, :32].copy()
    encoded = cv2.imencode(".png", photograph)[1].tobytes()
    files = SimpleNamespace(image_shape=None)
    for name, spec in zip(("train", "eval"), transform_specs(config.data, model, files, files)):
        record = {"image": encoded}
        for step in parse(spec, f"data.{name}_transforms"):
            record = step(record, np.random.default_rng(1))
        image = record["image"] if "image" in record else record["global_crops"][0]
        assert image.shape == model.input_shape
        assert image.dtype == np.uint8


def test_recipes_have_the_augmentation_of_their_papers():
    deit, deit3, vit_s16 = load("deit_i1k.py"), load("deit3_i1k.py"), load("vit_s16_i1k.py")
    assert deit.data.repeats == deit3.data.repeats == 3
    assert "rand_augment('rand-m9-mstd0.5-inc1'" in deit.data.train_transforms
    assert (deit.objective.erase_probability, deit.objective.get("erase_mode", "pixel")) == (0.25, "pixel")
    assert deit3.data.train_transforms.endswith("three_augment|color_jitter(0.3, 0.3, 0.3)")
    assert (deit3.objective.loss, deit3.optimizer.name, deit3.model.drop_path_schedule) == (
        "bce", "lamb", "constant",
    )  # fmt: skip
    assert vit_s16.data.train_transforms.endswith("|randaug(2, 10)")
    assert (vit_s16.objective.mixup, vit_s16.objective.mix_dominant) == (0.2, True)
    levels = {"none": "flip_lr", "light1": "randaug(2, 0)", "strong2": "randaug(2, 20)"}
    for level, last in levels.items():
        assert load(f"augreg.py:B/16,i21k,{level}").data.train_transforms.split("|")[-1] == last
    sizes = {size: load(f"mae_i1k.py:{size}") for size in ("base", "large", "huge")}
    assert {config.optimizer.learning_rate for config in sizes.values()} == {2.4e-3}
    swin, swin2 = load("swin_i1k.py:base"), load("swinv2_i1k.py:small,16")
    assert (swin.model.drop_path_rate, swin2.model.drop_path_rate) == (0.5, 0.3)
    assert (swin.optimizer.clip_norm, swin.schedule.warmup, swin.data.repeats) == (5.0, "20 epochs", 1)
    assert swin2.model.name == "swinv2_small_window16_256"
    for unknown in (
        "swin_i1k.py:large",
        "swinv2_i1k.py:tiny,7",
        "deit3_i1k.py:tiny",
        "mae_i1k.py:small",
        "mae_linear_i1k.py:small",
        "hiera_mae_i1k.py:giant",
        "cifar10.py:huge",
        "cifar10_self_supervised.py:dinov9",
        "cvt_i1k.py:w24",
        "mvitv2_i1k.py:huge",
    ):
        kind = "method" if "self_supervised" in unknown else "size"
        with pytest.raises(ConfigError, match=f"{unknown} is no {kind}; choose one of "):
            load(unknown)


# What makes a model of a family small.
SMALL = {
    "vit": dict(width=32, depth=2, heads=2, mlp_dim=48, patch_size=8, unroll=1),
    "hiera": dict(width=16, heads=2, depths=(1, 1, 1), mask_unit=4, patch_kernel=3, patch_stride=1),
    "mvit": dict(width=8, depths=(1, 1), head_dim=8),
    "cvt": dict(widths=(8, 16), depths=(1, 1), head_dim=8, kernels=(7, 3), strides=(4, 2), pads=(2, 1)),
    "swin": dict(width=8, depths=(2, 1), heads=(2, 4), patch_size=2, window_size=4),
}


def shrunk(case):
    """The configuration with everything kept but size: same kinds of model, loss, optimizer and schedule."""
    config = load(case)
    if not case.startswith(("finetune", "mae_finetune", "mae_linear")):
        config.model.update(SMALL[family_of(resolve_model(config.model)[0]).name])
    config.model.update(image_size=16)
    if config.model.get("representation_size"):
        config.model.representation_size = 24
    if config.model.get("stem"):
        config.model.stem = (4,) * len(config.model.stem)
    if config.model.get("stem_strides"):
        config.model.patch_size = 1
    if config.objective.name == "mae":
        config.objective.update(decoder_width=16, decoder_depth=1, decoder_heads=2)
    if config.objective.name == "simmim":
        config.objective.mask_size = 8
    if config.objective.name == "dino":
        config.objective.update(prototypes=64, hidden_dim=16, bottleneck_dim=8)
        if config.objective.get("patch_prototypes"):
            config.objective.update(patch_prototypes=32, patch_bottleneck_dim=8, mask_ratio=(0.3, 0.6))
    if ".views." in OBJECTIVES[config.objective.name]:
        config.objective.update(hidden_dim=16, output_dim=8)
    if "multi_crop" in config.data.train_transforms:
        local = 0 if "local_count=0" in config.data.train_transforms else 2
        small = f"multi_crop(16, 8, local_count={local}, global_scale=(0.5, 1.0)"
        config.data.train_transforms = f"{small}, global_transforms='flip_lr', local_transforms='flip_lr')"
    if config.objective.name == "beit":
        config.data.train_transforms = "token_crop(16, 16)|block_mask(2, most=2, min_area=1)"
        config.data.eval_transforms = "token_image(16)|block_mask(2, most=2, min_area=1)"
    if config.objective.name == "ijepa":
        config.objective.update(
            predictor_width=16, predictor_depth=1, predictor_heads=2, targets=1, target_scale=(0.25, 0.5)
        )
    if config.objective.name not in ("multi_label", "regression", "segmentation"):
        config.model.num_classes = 10
        config.data.source = "synthetic"
    config.data.update(size=64, batch_size=16, eval_batch_size=16)
    config.data.update(train_split="train", eval_split="test", num_workers=0)
    config.duration = "40 steps"
    config.schedule.update(
        warmup="10 steps", cooldown="10 steps" if config.schedule.cooldown != "0 steps" else 0
    )
    if config.schedule.milestones:
        config.schedule.milestones = ("30 steps",)
    config.mesh.update(data=-1, fsdp=min(config.mesh.fsdp, 2), tensor=1)
    config.evaluation.update(every="20 steps", baselines=(), illustrate=0)
    config.checkpoint.every = "20 steps"
    validate(config)
    return config


@pytest.mark.parametrize(
    "case",
    [
        "digits.py",
        "distill.py",
        "dino_digits.py",
        "dino.py:300",
        "dinov2.py",
        "lejepa_imagenette.py:visreg",
        "mae_digits.py",
        "mocov3_i1k.py",
        "naflex_digits.py",
        "vit_s16_i1k.py",
        "augreg.py",
        "deit_i1k.py",
        "deit3_i1k.py",
        "cvt_i1k.py",
        "mvitv2_i1k.py",
        "mae_i1k.py:base",
        "hiera_mae_i1k.py",
        "cifar10.py",
        "cifar10.py:tiny",
        "folder.py:images",
        "multi_label.py",
        "regression.py",
        "vit_g_jft_style.py",
        "ijepa_i1k.py",
        "beit_i1k.py",
        "simmim_i1k.py",
        "simmim_i1k.py:vit_base",
        "swin_i1k.py",
        "swinv2_i1k.py",
        "finetune.py:layer_decay",
        "finetune.py:linear_probe",
        "finetune.py:lora",
        "mae_finetune_i1k.py",
        "mae_linear_i1k.py",
    ],
)
def test_toy_size_trains_a_step(case):
    experiment = build(shrunk(case))
    state = experiment.init() if experiment.task.pretrained else initial(experiment)
    batch = experiment.devices.put(next(experiment.data.train_batches(0)))
    constants = experiment.devices.constants
    state, metrics = jax.jit(experiment.step)(state, batch, *constants.arguments)
    assert float(metrics["finite"]) == 1
    end = Moment(np.int32(40), 40, 4, constants.values)
    images = next(experiment.eval_batches())
    sums = jax.jit(experiment.task.objective.at(end).evaluate)(state.params, state.buffers, images)
    counted = np.asarray(images["mask"])
    if "patch_mask" in images:  # an image of which a random block hid nothing has no loss
        counted = counted & np.asarray(images["patch_mask"]).any(axis=1)
    assert float(sums["count"]) == counted.sum() > 0


def test_finetune_names_its_methods_and_what_it_needs():
    with pytest.raises(
        ConfigError, match=r"finetune\.py:loras is no method; choose one of full, layer_decay, frozen"
    ):
        load_config(str(CONFIGS / "finetune.py:loras"))
    with pytest.raises(ConfigError, match="model has neither name nor checkpoint"):
        load_config(str(CONFIGS / "finetune.py"), ["data.path=images"])


def test_a_linear_classifier_on_frozen_features_learns_nothing_else():
    experiment = build(shrunk("mae_linear_i1k.py"))
    state, constants = experiment.init(), experiment.devices.constants
    assert 0.005 < float(state.params["head"]["kernel"].std()) < 0.015
    batch = experiment.devices.put(next(experiment.data.train_batches(0)))
    step = jax.jit(experiment.step)
    after, _ = step(step(state, batch, *constants.arguments)[0], batch, *constants.arguments)
    before, after = (flatten({"p": state.params, "b": state.buffers}) for state in (state, after))
    changed = {path for path in before if (before[path] != after[path]).any()}
    assert changed == {"p/head/kernel", "p/head/bias", "b/head_norm/mean", "b/head_norm/variance"}
    config = shrunk("mae_linear_i1k.py")
    config.model.num_classes = 0
    with pytest.raises(ConfigError, match=r"model\.head_std is 0\.01, but no head is new in this run"):
        build(config)


@pytest.mark.parametrize(
    ("method", "trained"),
    [
        ("full", {"head", "blocks", "patch_embed", "pos_embed", "class_token", "norm"}),
        ("frozen", {"head", "norm"}),
        ("linear_probe", {"head"}),
        ("lora", {"head", "lora"}),
    ],
)
def test_what_each_method_trains(method, trained):
    experiment = build(shrunk(f"finetune.py:{method}"))
    table = treatments(experiment.optimisation.section, experiment.abstract_state.params)
    assert {path.split("/")[0] for path, how in table.items() if not how.frozen} == trained
    moments = {
        path.split("/mu/")[1] for path in flatten(experiment.abstract_state.opt_state) if "/mu/" in path
    }
    assert moments == {path for path, how in table.items() if not how.frozen}
