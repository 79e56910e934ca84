"""Every shipped configuration is valid, and trains a step at toy size."""

from pathlib import Path

import jax
import pytest

from vit_jax.errors import ConfigError
from vit_jax.training.config import load_config, validate
from vit_jax.training.experiment import build
from vit_jax.training.mesh import shard_batch
from vit_jax.training.model import resolve_model
from vit_jax.training.optimizer import treatments
from vit_jax.trees import flatten

CONFIGS = Path(__file__).parent.parent / "configs"
CASES = [
    "digits.py",
    "mae_digits.py",
    "vit_s16_i1k.py",
    "vit_s16_i1k.py:150",
    "vit_s16_i1k.py:300",
    "augreg.py",
    "augreg.py:Ti/16,i1k,none",
    "augreg.py:L/16,i21k,medium2",
    "deit_i1k.py:tiny",
    "deit_i1k.py",
    "deit_i1k.py:base",
    "folder.py:images",
    "vit_g_jft_style.py",
    "vit_g_jft_style.py:G/14",
    "finetune.py",
    "finetune.py:full",
    "finetune.py:layer_decay",
    "finetune.py:frozen",
    "finetune.py:linear_probe",
    "finetune.py:lora",
]
# Three blocks of width 32 for images of 32 pixels, as timm writes them.
CHECKPOINT = Path(__file__).parent / "reference" / "vit_timm_token.safetensors"


def load(case):
    """The configuration; what has to come from the command line is made up."""
    given = [f"model.checkpoint={CHECKPOINT}", "data.path=images"] if case.startswith("finetune") else []
    return load_config(str(CONFIGS / case), given)


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
    model, pretrained = resolve_model(load(case))
    assert (pretrained is not None) == case.startswith("finetune")
    assert model.width % model.heads == 0


def shrunk(case):
    """The configuration with everything kept but size: same kinds of model, loss, optimizer and schedule."""
    config = load(case)
    config.model.update(image_size=16, num_classes=10)
    if not case.startswith("finetune"):
        config.model.update(width=32, depth=2, heads=2, mlp_dim=48, patch_size=8)
    if config.model.get("representation_size"):
        config.model.representation_size = 24
    if config.model.get("stem"):
        config.model.stem = (4,)
    if config.objective.name == "mae":
        config.objective.update(decoder_width=16, decoder_depth=1, decoder_heads=2)
    config.data.update(source="synthetic", size=64, batch_size=16, eval_batch_size=16)
    config.data.update(train_split="train", eval_split="test", train_transforms="", eval_transforms="")
    config.duration = "40 steps"
    config.schedule.update(
        warmup="10 steps", cooldown="10 steps" if config.schedule.cooldown != "0 steps" else 0
    )
    config.mesh.update(data=-1, fsdp=min(config.mesh.fsdp, 2), tensor=1)
    config.evaluation.update(every="20 steps", baselines=(), illustrate=0)
    config.checkpoint.every = "20 steps"
    validate(config)
    return config


@pytest.mark.parametrize(
    "case",
    [
        "digits.py",
        "mae_digits.py",
        "vit_s16_i1k.py",
        "augreg.py",
        "deit_i1k.py",
        "folder.py:images",
        "vit_g_jft_style.py",
        "finetune.py:layer_decay",
        "finetune.py:linear_probe",
        "finetune.py:lora",
    ],
)
def test_toy_size_trains_a_step(case):
    experiment = build(shrunk(case))
    state = experiment.init()
    batch = shard_batch(next(experiment.train_batches(0)), experiment.mesh)
    state, metrics = jax.jit(experiment.step)(state, batch)
    assert float(metrics["finite"]) == 1
    sums = jax.jit(experiment.objective.evaluate)(
        state.params, state.buffers, next(experiment.eval_batches())
    )
    assert float(sums["count"]) == 16


def test_finetune_names_its_methods_and_what_it_needs():
    with pytest.raises(
        ConfigError, match=r"finetune\.py:loras is no method; choose one of full, layer_decay, frozen"
    ):
        load_config(str(CONFIGS / "finetune.py:loras"))
    with pytest.raises(ConfigError, match="model has neither name nor checkpoint"):
        load_config(str(CONFIGS / "finetune.py"), ["data.path=images"])


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
    table = treatments(experiment.config.optimizer, experiment.abstract_state.params)
    assert {path.split("/")[0] for path, how in table.items() if not how.frozen} == trained
    moments = {
        path.split("/mu/")[1] for path in flatten(experiment.abstract_state.opt_state) if "/mu/" in path
    }
    assert moments == {path for path, how in table.items() if not how.frozen}
