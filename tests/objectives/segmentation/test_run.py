"""A segmentation run from the command line: trained, resumed bitwise, evaluated, predicted into files."""

import json
import shutil

import cv2
import numpy as np
import pytest

from tests.runs import run
from vit_jax.data.images.label_maps import decode_labels
from vit_jax.data.sources.digit_scenes import SceneSource

CONFIG = """
from vit_jax.training.config import default_config

def get_config():
    config = default_config()
    config.duration = "4 steps"
    config.model.update(name="vit_mu_patch32_128", width=16, depth=1, heads=2, mlp_dim=32)
    weights = (2.0,) * 10 + (1.0,) * 2
    config.objective.update(name="segmentation", cells=4, class_weights=weights, calibrated=True)
    config.data.update(source="digit_scenes", size=16, batch_size=8, eval_batch_size=8)
    config.evaluation.update(every="2 steps", illustrate=2)
    config.checkpoint.every = "2 steps"
    config.log.update(every="2 steps", tensorboard=False, progress=False)
    return config
"""


@pytest.fixture(scope="module")
def workdir(compile_cache, tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    (folder / "config.py").write_text(CONFIG)
    outcome = run("train", "--config", folder / "config.py", "--workdir", folder / "run")
    assert outcome.status == 0, outcome.err
    return folder / "run"


def test_resuming_is_bitwise_statistics_included(workdir, tmp_path):
    copy = shutil.copytree(workdir, tmp_path / "copy")
    shutil.rmtree(copy / "checkpoints" / "4")
    outcome = run("train", "--config", workdir.parent / "config.py", "--workdir", copy)
    assert outcome.status == 0, outcome.err
    one, other = (json.loads((folder / "summary.json").read_text()) for folder in (workdir, copy))
    assert one["fingerprint"] == other["fingerprint"]
    assert one["metrics"] == other["metrics"]
    assert one["metrics"].keys() == {"miou", "pixel_accuracy", "mean_accuracy", "loss"}


def test_evaluation_says_each_class_and_writes_each_image(workdir, tmp_path):
    outcome = run("evaluate", "--workdir", workdir, "--output", tmp_path / "rows.csv")
    assert outcome.status == 0, outcome.err
    assert "china" in outcome.out
    assert "miou" in outcome.out
    assert len((tmp_path / "rows.csv").read_text().splitlines()) == 17


def test_predictions_are_label_maps_of_the_images_own_size(workdir, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    scene = SceneSource("test", 1)[0]["image"]
    cv2.imwrite(str(images / "a.png"), cv2.resize(scene, (200, 150))[..., ::-1])
    outcome = run("predict", "--workdir", workdir, "--output", tmp_path / "out", images / "a.png")
    assert outcome.status == 0, outcome.err
    labels = decode_labels((tmp_path / "out" / "a.png").read_bytes())
    assert labels.shape == (150, 200)
    assert labels.max() < 12
    assert cv2.imread(str(tmp_path / "out" / "a_overlay.png")).shape == (150, 200, 3)
    (record,) = run("predict", "--workdir", workdir, "--json", images / "a.png").json_lines()
    shares = np.bincount(labels.reshape(-1)) / labels.size
    names = (*map(str, range(10)), "china", "flower")
    for name, share in record["segmentation"].items():
        assert share == pytest.approx(shares[names.index(name)], abs=1e-6)


def test_windows_slide_over_larger_images_from_a_checkpoint_of_a_segmentation(workdir, tmp_path):
    start = (
        "train",
        "--config",
        workdir.parent / "config.py",
        "--workdir",
        tmp_path / "run",
        "--config.duration=1",
    )
    backbone = (f"--config.model.checkpoint={workdir / 'checkpoints' / '4'}", "--config.model.image_size=64")
    slide = (
        "--config.objective.evaluation=slide",
        "--config.objective.eval_size=(96, 128)",
        "--config.data.eval_transforms=resize((96, 128))",
    )
    outcome = run(*start, *backbone, *slide)
    assert outcome.status == 0, outcome.err
    trained = json.loads((tmp_path / "run" / "summary.json").read_text())["metrics"]
    outcome = run("evaluate", "--workdir", tmp_path / "run", "--json")
    assert outcome.status == 0, outcome.err
    assert json.loads(outcome.out)["miou"] == pytest.approx(trained["miou"], abs=1e-6)
    outcome = run("evaluate", "--workdir", tmp_path / "run", "--config.objective.eval_size=(64, 64)")
    assert outcome.status == 3
    assert "has shape (96, 128, 3) after the transforms" in outcome.err
