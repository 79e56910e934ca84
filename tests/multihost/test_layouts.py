"""One process or several, one device or several: the same training, and checkpoints that all of them load."""

import json

import jax
import numpy as np
import pytest

from tests.multihost.jobs import DRIVER, TRAIN, run_job
from vit_jax import trees
from vit_jax.checkpoints.checkpoints import Checkpoints

# Processes times devices of each.
SAVED = ((1, 1), (1, 4), (2, 2))
TRAINED = (*SAVED, (4, 1))
REFERENCE = (1, 4)
ILLUSTRATED = (2, 2)
STEP, LAST = 3, 6
CONFIG = """
from vit_jax.training.config import default_config

def get_config():
    config = default_config()
    config.duration = "6 steps"
    config.model.update(name="vit_mu_patch4_8", in_channels=1, width=16, depth=2, heads=2, mlp_dim=32, unroll=1)
    config.objective.mixup = 0.5
    config.data.update(batch_size=64, eval_batch_size=360)
    config.ema.decay = 0.9
    config.sharding.min_size = 64
    config.evaluation.probes = ("knn",)
    config.evaluation.every = "3 steps"
    config.checkpoint.every = "3 steps"
    config.log.update(every="1 steps", tensorboard=False, progress=False)
    return config
"""


def name(layout):
    return "x".join(map(str, layout))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("layouts")
    (folder / "config.py").write_text(CONFIG)
    return folder


@pytest.fixture(scope="module")
def trained(folder):
    """The workdir of a finished run on each layout."""
    for processes, devices in TRAINED:
        workdir = folder / name((processes, devices))
        changes = [f"--config.mesh.fsdp={min(2, processes * devices)}"]
        if (processes, devices) == ILLUSTRATED:
            changes += ["--config.evaluation.illustrate=2"]
        command = (*TRAIN, "--config", folder / "config.py", "--workdir", workdir, *changes)
        ended = run_job(command, processes, devices, cache=folder / "compiled")
        assert [one.status for one in ended] == [0] * processes, ended
        # One speaks for all.
        assert "evaluation:" in ended[0].err
        for other in ended[1:]:
            assert "evaluation:" not in other.err
            assert other.out.replace("[Gloo]", "").count("checkpoint:") == 0
    return folder


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def parameters(workdir):
    checkpoints = Checkpoints(workdir / "checkpoints", read_only=True)
    arrays = checkpoints.metadata(LAST)["arrays"]
    abstract = {
        path: jax.ShapeDtypeStruct(shape, dtype)
        for path, (dtype, shape, _) in arrays.items()
        if path.startswith("params/")
    }
    tree = trees.unflatten(abstract)["params"]
    return trees.flatten(checkpoints.restore_part("params", tree, LAST)[0])


def check_training(trained, layout):
    """A run on this layout ended as the reference did."""
    expected, found = trained / name(REFERENCE), trained / name(layout)
    reference, here = parameters(expected), parameters(found)
    assert reference.keys() == here.keys()
    for path, values in reference.items():
        # Sums over rows are rounded in another order; Adam's first steps make that visible where gradients are tiny.
        np.testing.assert_allclose(here[path], values, rtol=0, atol=1e-5, err_msg=path)
    assert len(lines(found)) == LAST + 2
    for one, other in zip(lines(expected), lines(found), strict=True):
        assert one.keys() == other.keys()
        for key, value in one.items():
            assert other[key] == pytest.approx(value, abs=1e-5), key


def check_loading(trained, layout):
    """This layout loads what every layout saved, and goes on as it did; returns the batches that it sees."""
    result = trained / f"seen_by_{name(layout)}.json"
    workdirs = [trained / name(saved) for saved in SAVED]
    command = (*DRIVER, "load", trained / "config.py", STEP, result, *workdirs)
    ended = run_job(command, *layout, cache=trained / "compiled")
    assert [one.status for one in ended] == [0] * layout[0], ended
    seen = json.loads(result.read_text())
    assert list(seen) == list(map(name, SAVED))
    first = seen[name(layout)]
    for saved in SAVED:
        there = seen[name(saved)]
        assert there["fingerprint"] == there["saved"]
        # The order of the records, of all rows of the next batches.
        assert there["batches"] == first["batches"]
        # What the run that saved it went on with; float32 sums in another order.
        next_line = next(line for line in lines(trained / name(saved)) if line["step"] == STEP + 1)
        assert there["loss"] == pytest.approx(next_line["train/loss"], rel=1e-6)
    return first["batches"]


def check_files(trained):
    """One process wrote the pictures and the report, and no other left anything."""
    workdir = trained / name(ILLUSTRATED)
    assert len(list((workdir / "samples").iterdir())) == 2
    summary = json.loads((workdir / "summary.json").read_text())
    assert summary["devices"].startswith("4 x ")
    files = {
        "attempts.jsonl",
        "checkpoints",
        "illustration.png",
        "metrics.jsonl",
        "report.json",
        "report.png",
        "run.lock",
        "samples",
        "summary.json",
    }
    assert {path.name for path in workdir.iterdir()} == files


def test_layouts(trained):
    # One test: parallel test processes would each train on all layouts.
    for layout in TRAINED:
        if layout != REFERENCE:
            check_training(trained, layout)
    check_files(trained)
    assert len({check_loading(trained, layout) for layout in SAVED}) == 1
