"""The benchmarks run, pair their times as they say, and say what they did not measure."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median

import cv2
import numpy as np
import pytest

from tests.runs import on_one_device
from vit_jax.models.flops import forward_flops, training_flops
from vit_jax.models.registry import model_config
from vit_jax.objectives.base import DataInfo
from vit_jax.objectives.mae.objective import build
from vit_jax.objectives.mae.options import MaeOptions

ROOT = Path(__file__).parent.parent
TINY = ["--models", "vit_mu_patch16_224", "--image-size", "32", "--batch-size", "2", "--rounds", "2"]


def run(name, *options, **more):
    # What is timed does not matter here, so it is compiled quickly.
    settings = {
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "error",
        **on_one_device(),
        **more,
    }
    command = [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), *options]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | settings, check=False)


def measured(tmp_path, name, *options):
    path = tmp_path / "report.json"
    process = run(name, *TINY, "--dtypes", "float32", "--json", str(path), *options)
    assert process.returncode == 0, process.stderr
    report = json.loads(path.read_text())
    assert report["benchmark"] == name
    assert report["machine"]["cores"] >= 1
    assert "jax" in report["machine"]["versions"]["ours"]
    assert report["settings"]["rounds"] == 2
    return process, report["results"], report["not_measured"]


def test_train_step_with_the_plain_gradient(tmp_path):
    process, results, missing = measured(tmp_path, "train_step", "--plain-gradient")
    assert [result["side"] for result in results] == ["ours", "ours", "plain gradient"]
    product, ours, plain = results
    assert product["flops"] == 2 * 3152 * 384 * 1536
    config = model_config("vit_mu_patch16_224", image_size=32, num_classes=1000)
    assert ours["flops"] == plain["flops"] == 2 * training_flops(config)
    assert ours["gflops"] == pytest.approx(ours["flops"] / median(ours["wall_seconds"]) / 1e9)
    assert ours["share_of_product"] == pytest.approx(ours["gflops"] / product["gflops"])
    assert ours["model"] == plain["model"] == "vit_mu_patch16_224"
    for kind in ("wall", "cpu"):
        ratios = [a / b for a, b in zip(ours[f"{kind}_seconds"], plain[f"{kind}_seconds"])]
        assert plain[f"ours_over_this_{kind}"] == pytest.approx([min(ratios), median(ratios), max(ratios)])
    assert set(missing) == {"torch eager", "torch compile"}
    assert "torch eager: not measured, no --peer-python was given" in process.stdout


def test_inference_beside_peers_that_cannot_run(tmp_path):
    # This Python has no torch; and where it has, timm has no model of this name.
    process, results, missing = measured(tmp_path, "inference", "--peer-python", sys.executable)
    assert [result["side"] for result in results] == ["ours", "ours"]
    config = model_config("vit_mu_patch16_224", image_size=32, num_classes=1000)
    assert results[1]["flops"] == 2 * forward_flops(config)
    assert set(missing) == {"torch eager", "torch compile"}
    assert "torch compile: not measured, its process ended with status 1" in process.stdout
    assert "vit_mu_patch16_224" in process.stdout


def test_a_step_without_labels_beside_peers_that_cannot_run(tmp_path):
    path = tmp_path / "report.json"
    options = ["--methods", "mae", "--models", "vit_mu_patch16_224", "--batch-size", "2", "--rounds", "2"]
    process = run("self_supervised_step", *options, "--peer-python", sys.executable, "--json", str(path))
    assert process.returncode == 0, process.stderr
    report = json.loads(path.read_text())
    _, ours = report["results"]
    objective = build(model_config("vit_mu_patch16_224", num_classes=0), MaeOptions(), DataInfo(0))
    assert (ours["model"], ours["flops"]) == ("mae vit_mu_patch16_224", 2 * objective.train_flops)
    assert set(report["not_measured"]) == {"torch eager", "torch compile"}


def test_a_model_with_stages_and_batch_norms(tmp_path):
    options = ["--models", "cvt-13", "--image-size", "32", "--batch-size", "2", "--rounds", "1"]
    path = tmp_path / "report.json"
    process = run("inference", *options, "--dtypes", "float32", "--json", str(path))
    assert process.returncode == 0, process.stderr
    ours = json.loads(path.read_text())["results"][1]
    config = model_config("cvt-13", image_size=32, num_classes=1000)
    assert (ours["model"], ours["image_size"]) == ("cvt-13", 32)
    assert ours["flops"] == 2 * forward_flops(config)


CHECKOUT = """
import json, os, sys

tasks = json.loads(sys.stdin.readline())
versions = {"arguments": sys.argv[1:], "path": os.environ["PYTHONPATH"], "names": [task["model"] for _, task in tasks]}
# What workers were told before models had options of their own.
versions["told"] = [[task[name] for name in ("image_size", "depth", "classes")] for _, task in tasks if task["model"]]
print(json.dumps({"versions": versions, "prepare_seconds": {str(i): 0.0 for i, _ in tasks}}), flush=True)
for line in sys.stdin:
    print(json.dumps({"wall": 4.0, "cpu": 2.0}), flush=True)
"""


def test_another_checkout_is_measured_by_its_own_code(tmp_path):
    other = tmp_path / "other" / "benchmarks" / "inference.py"
    other.parent.mkdir(parents=True)
    other.write_text(CHECKOUT)
    process, results, _ = measured(tmp_path, "inference", "--before", str(tmp_path / "other"))
    _, ours, before = results
    assert (before["side"], before["wall_seconds"], before["cpu_seconds"]) == ("before", [4.0] * 2, [2.0] * 2)
    assert before["ours_over_this_wall"][1] == pytest.approx(median(ours["wall_seconds"]) / 4)
    versions = json.loads((tmp_path / "report.json").read_text())["machine"]["versions"]["before"]
    assert versions == {
        "arguments": ["--worker", "ours"],
        "path": str(tmp_path / "other"),
        "names": ["vit_mu_patch16_224"],
        "told": [[32, model_config("vit_mu_patch16_224").depth, 1000]],
    }
    assert "before: arguments ['--worker', 'ours']" in process.stdout
    assert "float32   before " in process.stdout


@pytest.mark.parametrize("options", [[], ["--predict"]])
def test_floors_are_of_the_same_work(options):
    small = [
        "--models",
        "vit_mu_patch16_224",
        "--image-size",
        "64",
        "--dtypes",
        "float32",
        "--seconds",
        "0.01",
    ]
    process = run("floors", *small, *options)
    assert process.returncode == 0, process.stderr
    row = process.stdout.splitlines()[-1].strip("| ").split(" | ")
    assert row[0] == "vit_mu_patch16_224, float32"
    rate, flops, moved, products, memory, found = (float(cell.replace(",", "")) for cell in row[1:])
    config = model_config("vit_mu_patch16_224", image_size=64, num_classes=1000)
    exact = 16 * (forward_flops if options else training_flops)(config)
    assert flops == pytest.approx(exact / 1e9, abs=0.005)
    assert products == pytest.approx(exact / 1e9 / rate * 1e3, rel=0.01, abs=0.006)
    assert min(moved, memory, found) > 0


def test_starts_are_measured_without_and_with_kept_programs():
    small = ["--model", "vit_mu_patch16_224", "--dtypes", "float32", "--rounds", "1"]
    process = run("startup", *small, JAX_ENABLE_COMPILATION_CACHE="true")
    assert process.returncode == 0, process.stderr
    rows = [line.strip("| ").split(" | ") for line in process.stdout.splitlines() if line.startswith("| ")]
    cells = {row[0]: [float(cell.split()[0]) for cell in row[1:] if cell.strip(" |")] for row in rows[1:]}
    started = ["import jax", "import vit_jax", "import vit_jax.training.loop", "vit-jax models"]
    compiled = ["train, float32", "predict, float32", "predict --exported"]
    assert {name: len(seconds) for name, seconds in cells.items()} == {
        **dict.fromkeys(started, 1),
        **dict.fromkeys(compiled, 2),
    }
    assert all(one > 0 for seconds in cells.values() for one in seconds)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--models", "vit_smal_patch16_224"], "Did you mean 'vit_small_patch16_224'"),
        (["--image-size", "100"], "the nearest sizes are 96 or 112"),
        (["--models", "cvt-13", "--depth", "2"], "'depth' is not a model option"),
        (["--models", "google/siglip-base-patch16-224"], "is not an image encoder; name one"),
        (["--peer-python", "no/such/python"], "'no/such/python', which cannot be started: No such file"),
        (["--json", "no/such/folder/report.json"], "there is no such folder"),
        (["--rounds", "0"], "0 is not at least 1"),
        (["--before", "no/such/folder"], "which has no benchmarks/train_step.py; give a checkout"),
    ],
)
def test_wrong_options_are_one_line(options, message):
    process = run("train_step", *options)
    assert process.returncode == 2
    assert message in process.stderr.splitlines()[-1]
    assert "Traceback" not in process.stderr


def report(ratio, **changes):
    about = {
        "cpu": "a processor",
        "cores": 2,
        "versions": {"ours": {"jax": "0.10.2"}, "torch eager": {"torch": "2.13.0"}},
    }
    settings = {"batch_size": 16, "depth": None, "tuned_peers": False}
    result = {
        "model": "m",
        "image_size": 224,
        "dtype": "float32",
        "side": "torch eager",
        "ours_over_this_wall": [0.9, ratio, 2.0],
    }
    products = {"model": None, "dtype": "float32", "side": "ours"}
    whole = {
        "benchmark": "train_step",
        "machine": about,
        "settings": settings,
        "results": [products, result | changes],
    }
    return json.dumps(whole)


def test_the_guard_tells_a_ratio_that_became_worse(tmp_path):
    ratios, path = tmp_path / "ratios.json", tmp_path / "report.json"

    def guard(text, *options):
        path.write_text(text)
        return run("guard", str(path), "--ratios", str(ratios), *options)

    first = guard(report(1.2))
    assert (first.returncode, "nothing is stored for this machine" in first.stdout) == (0, True)
    assert guard(report(1.2), "--store").returncode == 0
    assert guard(report(5.0, model="other"), "--store").returncode == 0
    assert len(json.loads(ratios.read_text())) == 2
    own = guard(report(1.2, side="before"), "--store")  # a ratio of ours by ours is of no other day
    assert "the reports have no ratio" in own.stdout
    assert len(json.loads(ratios.read_text())) == 2
    worse = guard(report(1.4))
    assert (worse.returncode, "1.40, stored 1.20: WORSE by 17%" in worse.stdout) == (1, True)
    fine = guard(report(1.3))
    assert (fine.returncode, "1.30, stored 1.20: +8%" in fine.stdout) == (0, True)
    assert guard(report(1.4), "--store").returncode == 0
    assert guard(report(1.4)).returncode == 0


def test_fewer_tokens_are_counted_measured_and_judged(tmp_path, monkeypatch, capsys):
    spec = importlib.util.spec_from_file_location("fewer_tokens", ROOT / "benchmarks" / "tokens.py")
    tokens = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tokens)
    small = ["model.depth=1", "model.width=16", "model.mlp_dim=16", "data.batch_size=16"]
    monkeypatch.setattr(tokens, "TRAINED", {"plain": (small, [{}, {"merge_tokens": 8}])})
    report = tmp_path / "tokens.json"
    tokens.main([
        "--model", "vit_mu_patch16_224", "--image-size", "64", "--batch-size", "2", "--merge", "2", "--rounds", "1",
        "--work", "prediction", "--steps", "2", "--json", str(report),
    ])  # fmt: skip
    said, found = capsys.readouterr().out, json.loads(report.read_text())
    plain, merging, larger = found["speed"]
    assert [row["variant"] for row in found["speed"]] == ["plain", "merge_tokens=2", "patch_size=32"]
    assert plain["speed"] == 1
    assert larger["gmacs"] < merging["gmacs"] < plain["gmacs"]
    assert [row["evaluated"] for row in found["digits"]] == ["plain", "merge_tokens=8"]
    assert all(0 <= row["accuracy"] <= 1 and row["images_per_second"] > 0 for row in found["digits"])
    assert "| prediction | `merge_tokens=2` |" in said
    assert "| plain | `merge_tokens=8` |" in said


def test_features_learned_without_labels_are_compared(tmp_path, capsys):
    spec = importlib.util.spec_from_file_location("compared", ROOT / "benchmarks" / "self_supervised.py")
    compared = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(compared)
    images, labels = np.random.default_rng(0).integers(0, 256, (900, 32, 32, 3), np.uint8), np.arange(900) % 2
    files = [cv2.imencode(".jpg", image)[1].ravel() for image in images]
    ends = np.cumsum([0, *map(len, files)])
    for split in ("train", "test"):
        np.savez(tmp_path / f"{split}.npz", jpeg=np.concatenate(files), offsets=ends, labels=labels)
    small = [
        "model.width=16",
        "model.mlp_dim=16",
        "model.depth=1",
        "data.batch_size=16",
        "data.eval_batch_size=40",
    ]
    options = ["--data", str(tmp_path), "--results", str(tmp_path / "runs"), "--flops", "3e9", "--seeds", "2"]
    compared.main([*options, "--methods", "untrained", "mae", "--override", *small])
    lines = capsys.readouterr().out.splitlines()
    untrained, mae = (
        next(line for line in lines if line.startswith(f"| {name} |")) for name in ("untrained", "mae")
    )
    assert untrained.startswith("| untrained | 1 |")
    steps = int(mae.split("|")[2])
    found = json.loads((tmp_path / "runs" / "mae-1" / "found.json").read_text())
    assert 1 < steps == found["steps"] == round(3e9 / 16 / found["flops_per_image"])
    assert mae.count("±") == 4
    assert compared.SHARES == (1, 10, 100)
    report, compared.SHARES = tmp_path / "few.json", (10,)
    compared.main([
        *options, "--few-labels", "--pretrained", "mae", "--only-seed", "1", "--json", str(report), "--override",
        *small[:3], "data.batch_size=8", small[4],
    ])  # fmt: skip
    rows = json.loads(report.read_text())
    assert [row["name"] for row in rows] == [
        "scratch-10",
        "mae-10",
    ]
    assert all(0 <= row["accuracy"] <= 1 for row in rows)
    assert rows[0]["steps"] == pytest.approx(5 * rows[1]["steps"], abs=5)
    for method, more in (("supervised", []), ("dino", ["objective.prototypes=16"])):
        teacher = ["--only-seed", "0", "--flops", "1e9", "--methods", method]
        compared.main([*options, *teacher, "--override", *small, *more])
    compared.main([*options, "--only-seed", "0", "--teachers", "--override", *small, "evaluation.probes=()"])
    lines = capsys.readouterr().out.splitlines()
    names = [line.split("|")[1].strip() for line in lines if line.startswith("| ")]
    assert names[-4:] == ["student", "student with teacher", "scratch, 1 %", "features, 1 %"]
