"""The plan of a run says what the run will be: bytes and FLOPs exactly, the rest as the compiler says."""

import json
import os
import re
import subprocess
import sys

import jax
import pytest

from tests.runs import CONFIG
from vit_jax.errors import ConfigError
from vit_jax.planning.advice import advise, estimated_bytes, meshes
from vit_jax.planning.chips import parse_hardware
from vit_jax.planning.plan import planned_experiment
from vit_jax.planning.stand_in import stand_ins
from vit_jax.training.config import load_config
from vit_jax.training.experiment import build
from vit_jax.training.guard.memory import activation_bytes, largest_tensors, state_bytes

TINY = (
    "model.name=vit_tiny_patch16_224",
    "model.depth=2",
    "data.source=synthetic",
    "data.size=1000",
    "sharding.min_size=1024",
)


@pytest.fixture(scope="module")
def config_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "tiny.py"
    path.write_text(CONFIG)
    return path


def plan(*arguments):
    """The finished process of `vit-jax plan`: the compiler library wants its environment before jax is imported."""
    command = [sys.executable, "-m", "vit_jax.cli", "plan", *map(str, arguments)]
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)


@pytest.mark.parametrize("mesh", [(8, 1, 1), (1, 8, 1), (2, 2, 2)])
def test_bytes_of_the_state_are_those_of_the_run(mesh):
    axes = [f"mesh.{axis}={size}" for axis, size in zip(("data", "fsdp", "tensor"), mesh)]
    moments = "optimizer.first_moment_dtype=bfloat16"
    config = load_config("configs/vit_s16_i1k.py", [*TINY, *axes, moments, "ema.decay=0.9"])
    config.data.train_transforms = config.data.eval_transforms = ""
    config.schedule.warmup = "1 step"
    experiment, _ = planned_experiment(config, jax.devices())
    state = experiment.init()
    for part, planned in state_bytes(experiment).items():
        leaves = jax.tree.leaves(getattr(state, part))
        for device in jax.devices():
            here = [
                shard.data.nbytes
                for leaf in leaves
                for shard in leaf.addressable_shards
                if shard.device == device
            ]
            assert sum(here) == planned, part
    path, shape, size = largest_tensors(experiment)[0]
    assert path.startswith(("params/", "ema/", "opt_state/"))
    assert size <= state_bytes(experiment)["params"]
    assert len(shape) > 1


# Multiply-adds of one image, from the papers' tables (Dosovitskiy et al. 2020, Zhai et al. 2021), by timm's count.
@pytest.mark.parametrize(
    ("model", "gmacs"),
    [
        ("vit_small_patch16_224", 4.60),
        ("vit_large_patch16_224", 61.6),
        ("ViT-g/14", 267.0),
        ("ViT-G/14", 483.8),
    ],
)
def test_operations_are_those_of_the_tables(model, gmacs):
    overrides = [f"model.name={model}", "data.source=synthetic", "data.batch_size=64", "data.size=100"]
    config = load_config("configs/digits.py", [*overrides, "schedule.warmup=0 steps"])
    config.model = {"name": model}
    config.data.train_transforms = config.data.eval_transforms = ""
    config.evaluation.baselines = ()
    experiment, _ = planned_experiment(config, jax.devices()[:1])
    assert experiment.task.objective.train_flops == pytest.approx(3 * 2 * gmacs * 1e9, rel=0.01)


def test_remat_accumulation_and_mesh_need_less(config_file):
    def needed(*overrides):
        # A number of rows that is no other dimension's size, by which rows are found.
        config = load_config(str(config_file), ["data.batch_size=320", "model.depth=2", *overrides])
        return activation_bytes(build(config, devices=jax.devices()))

    plain = needed()
    assert needed("model.remat=full") < needed("model.remat=dots") < plain
    # What belongs to rows halves each time, the rest stays.
    half, quarter = needed("accumulation=2"), needed("accumulation=4")
    assert plain - half == pytest.approx(2 * (half - quarter), rel=0.01)
    assert half < 0.6 * plain
    # Rows are divided over both axes, whatever the parameters are.
    assert needed("mesh.data=4", "mesh.fsdp=2") == pytest.approx(plain, rel=0.02)
    assert needed("mesh.data=4", "mesh.tensor=2") == pytest.approx(2 * plain, rel=0.02)


def test_advice_is_what_fits_by_the_estimate(config_file):
    hardware = parse_hardware("v5e-8")
    config = load_config(str(config_file), ["data.batch_size=8192", "model.width=512", "model.depth=24"])
    lines = advise(config, hardware, lambda changed: build(changed, devices=jax.devices()))
    assert any(line.startswith("model.remat=") for line in lines)
    for line in lines:
        changes = re.findall(r"[\w.]+=\w+", line)
        changed = load_config(
            str(config_file), ["data.batch_size=8192", "model.width=512", "model.depth=24", *changes]
        )
        assert estimated_bytes(build(changed, devices=jax.devices())) <= hardware.chip.memory


def test_meshes_to_compare_divide_the_batch(config_file):
    config = load_config(str(config_file), ["data.batch_size=64"])
    assert meshes(config, 16) == [(16, 1, 1), (4, 4, 1), (1, 16, 1), (4, 1, 4), (1, 4, 4)]


def test_data_that_is_not_here_has_its_size(tmp_path):
    path = f"data.path={tmp_path}"
    config = load_config("configs/vit_s16_i1k.py", [path])
    train, evaluation = stand_ins(config.data, None, None)
    assert (len(train), train.num_classes, len(evaluation)) == (round(1_281_167 * 0.99), 1000, 50_000)
    config = load_config("configs/vit_s16_i1k.py", [path, "data.name=birds"])
    with pytest.raises(ConfigError, match=r"its size is not known; give it with --records N\."):
        stand_ins(config.data, None, None)
    assert len(stand_ins(config.data, 1000, 10)[0]) == 990


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--hardware", "v5e-100"), "vit-jax: --hardware is 'v5e-100'; a slice of v5e has"),
        (("--hardware", "v5e:2x2", "--records", "0"), "vit-jax: --records is 0; it must be at least 1."),
        (
            ("--hardware", "v5e:2x2", "--config.mesh.fsdp=3"),
            "vit-jax: mesh is data=-1 fsdp=3 tensor=1, which",
        ),
        (
            ("--hardware", "v5e:2x2", "--config.data.batch_size=6"),
            "vit-jax: data.batch_size is 6; it must be",
        ),
    ],
)
def test_mistakes_are_one_line(config_file, arguments, message):
    process = plan("--config", config_file, *arguments)
    assert process.returncode == 2
    assert process.stderr.startswith(message)
    assert len(process.stderr.splitlines()) == 1


def test_a_slice_that_is_not_here(config_file):
    process = plan("--config", config_file, "--hardware", "v5e:2x2", "--json", "--config.mesh.fsdp=2",
                   "--config.sharding.min_size=16", "--config.model.depth=2",
                   "--config.model.patch_size=2")  # fmt: skip
    assert process.returncode == 0, process.stderr
    found = json.loads(process.stdout)
    assert found["fits"]
    assert found["mesh"] == {"data": 2, "fsdp": 2, "tensor": 1}
    assert found["memory"]["params"] < found["memory"]["peak"] < found["memory"]["capacity"]
    assert {one["kind"] for one in found["traffic"]} >= {"all-gather", "reduce-scatter"}
    assert 0 < found["mfu"] < 1
    # Of 17 tokens, attention is our kernel.
    assert 0 < found["counted_seconds"] < found["compute_seconds"]
    assert found["kernels"] == 0
    assert found["step_seconds"] == pytest.approx(found["compute_seconds"] + found["exposed_seconds"])
    assert found["total_steps"] == 6
    assert found["chip_hours"] == pytest.approx(4 * found["hours"])


@pytest.mark.parametrize("overlap", [True, False])
def test_gradients_are_divided_beside_products_on_v5e(config_file, overlap):
    process = plan("--config", config_file, "--hardware", "v5e:2x2", "--json", "--config.mesh.fsdp=4",
                   "--config.model.width=512", "--config.model.mlp_dim=2048", "--config.model.heads=8",
                   "--config.compute_dtype=bfloat16", f"--config.sharding.overlap={overlap}",
                   "--config.sharding.min_size=1024")  # fmt: skip
    assert process.returncode == 0, process.stderr
    scatter = next(one for one in json.loads(process.stdout)["traffic"] if one["kind"] == "reduce-scatter")
    assert (scatter["overlapped"] > 0) == (scatter["hidden"] > 0) == overlap


def test_a_sweep_compares_policies(config_file):
    process = plan("--config", config_file, "--hardware", "v5e-1", "--sweep")
    assert process.returncode == 0, process.stderr
    lines = process.stdout.splitlines()
    assert lines[0].split() == ["mesh", "remat", "GiB", "ms", "waiting", "MFU"]
    assert [line.split()[:4] for line in lines[1:]] == [
        ["data=1", "fsdp=1", "tensor=1", policy] for policy in ("none", "dots", "full")
    ]
    assert all(re.search(r" \d+\.\d%$", line) for line in lines[1:])


def test_two_slices(config_file):
    process = plan("--config", config_file, "--hardware", "2xv5e:2x2", "--config.model.depth=2")
    assert process.returncode == 0, process.stderr
    assert "on 2xv5e:2x2: 8 chips, mesh data=8 fsdp=1 tensor=1" in process.stdout
    assert "nothing was run" in process.stdout
    assert re.search(r"peak +0\.\d+ of 15\.75: fits", process.stdout)
    assert re.search(r"run +6 steps", process.stdout)


def test_what_cannot_fit_is_refused(config_file):
    # The state alone: nothing is compiled.
    process = plan("--config", config_file, "--hardware", "v5e-1", "--config.model.depth=400",
                   "--config.model.width=2048", "--config.model.mlp_dim=8192")  # fmt: skip
    assert process.returncode == 6
    line = process.stderr.splitlines()[-1]
    assert re.search(
        r"does not fit v5e-1: a chip would need [\d.]+ GiB of 15\.75, [\d.]+ of it for \w+/.*blocks/mlp",
        line,
    )
    assert "would help: " in line
    # Activations: the compiler says so.
    process = plan("--config", config_file, "--hardware", "v5e-1", "--config.data.batch_size=4194304",
                   "--config.model.width=256")  # fmt: skip
    assert process.returncode == 6, process.stdout
    assert re.search(r"would help: model\.remat=|accumulation=", process.stderr)
