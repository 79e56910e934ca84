"""Embeddings are what the head sees, of any number of files, of runs and of published checkpoints."""

import dataclasses
import os
import pickle
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.images import COLOURS, colour_folder
from tests.reference.cases import weights_file
from tests.runs import run
from vit_jax.errors import DataError
from vit_jax.inference.features import FeatureExtractor, list_images
from vit_jax.inference.predictor import Predictor
from vit_jax.models.functional import parameters
from vit_jax.weights.load import load

REFERENCE = weights_file("vit_timm_token")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return colour_folder(tmp_path_factory.mktemp("images") / "colours", per_class=(3, 2))


@pytest.fixture(scope="module")
def extractor():
    return dataclasses.replace(FeatureExtractor.load(str(REFERENCE)), batch_size=4)


def test_features_are_the_input_of_the_head(extractor, images):
    files = sorted((images / "train").rglob("*.png"))
    features = extractor.features(files)
    assert (features.shape, features.dtype) == ((9, 32), np.float32)
    model = load(REFERENCE, verbose=False)
    inputs = extractor._preprocessor(files)
    logits, captured = jax.jit(lambda m, x: m(x, capture=("pre_logits",)))(model, jnp.asarray(inputs))
    np.testing.assert_allclose(features, captured["pre_logits"], rtol=1e-5, atol=1e-5)
    head = parameters(model)["head"]
    np.testing.assert_allclose(features @ head["kernel"] + head["bias"], logits, rtol=1e-4, atol=1e-4)


def test_batches_and_padding_do_not_matter(extractor, images):
    files = sorted((images / "train").rglob("*.png"))
    together = extractor.features(files)
    for count in (4, 5):
        np.testing.assert_array_equal(extractor.features(files[:count]), together[:count])
    for count in (1, 2):  # programs of their own, see `stream.fitting`
        np.testing.assert_allclose(extractor.features(files[:count]), together[:count], rtol=1e-5, atol=1e-6)
    assert extractor.features([]).shape == (0, 32)


def test_which_images(images, tmp_path):
    files, classes, left_out = list_images([str(images / "train")])
    assert len(files) == 9
    assert classes == [name for name in COLOURS for _ in range(3)]
    assert not left_out
    files, classes, _ = list_images([str(images)])
    assert (len(files), classes[0], classes[-1]) == (15, "blue", "red")
    files, classes, _ = list_images([str(images / "train" / "red"), str(images / "val")])
    assert (len(files), classes) == (9, None)
    assert list_images([files[0]]) == ([files[0]], None, {})
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match=r"folder '.*none' has no images"):
        list_images([str(tmp_path / "none")])


def test_images_in_folders_of_a_class(tmp_path):
    for name in ("red/photos/0.jfif", "red/1.tif", "blue/old/scans/2.JPE", "blue/notes.txt"):
        path = tmp_path / "data" / "train" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    for folder in (tmp_path / "data", tmp_path / "data" / "train"):
        files, classes, left_out = list_images([str(folder)])
        assert [os.path.basename(file) for file in files] == ["2.JPE", "1.tif", "0.jfif"]
        assert classes == ["blue", "red", "red"]
        assert left_out == {".txt": 1}
    (tmp_path / "data" / "train" / "0.png").write_bytes(b"")
    assert list_images([str(tmp_path / "data")])[1] is None
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.heic").write_bytes(b"")
    with pytest.raises(DataError, match=r"has no images .*\(left out: \.heic 1\)"):
        list_images([str(tmp_path / "other")])


def test_the_command(extractor, images, tmp_path):
    output = tmp_path / "features.npz"
    outcome = run(
        "features", "--checkpoint", REFERENCE, "--output", output, images / "val", "--batch-size", "4"
    )
    assert outcome.status == 0, outcome.err
    assert outcome.out == f"{output}: 6 embeddings of width 32, 3 classes\n"
    with np.load(output) as arrays:
        assert sorted(arrays) == ["class_names", "features", "files", "labels"]
        assert arrays["labels"].tolist() == [0, 0, 1, 1, 2, 2]
        assert tuple(arrays["class_names"]) == COLOURS
        files = arrays["files"].tolist()
        np.testing.assert_array_equal(arrays["features"], extractor.features(files))
    assert files == [str(images / "val" / name / f"{i}.png") for name in COLOURS for i in range(2)]


def test_bad_images_may_be_left_out(extractor, images, tmp_path):
    bad = images.parent / "bad.png"
    bad.write_bytes(b"not an image")
    output = tmp_path / "f.npz"
    command = (
        "features",
        "--checkpoint",
        REFERENCE,
        "--output",
        output,
        "--batch-size",
        "4",
        "--bad",
        "skip",
    )
    outcome = run(*command, images / "val" / "red", bad, tmp_path / "none.png", images / "val" / "green")
    assert (outcome.status, outcome.out) == (3, f"{output}: 4 embeddings of width 32\n")
    *told, last = outcome.err.splitlines()
    assert [line.partition(":")[0] for line in told] == [
        f"left out {bad}",
        f"left out {tmp_path}/none.png cannot be read",
    ]
    assert last == "vit-jax: 2 of 6 images could not be read and were left out; repair or remove them."
    with np.load(output) as arrays:
        files = arrays["files"].tolist()
        np.testing.assert_array_equal(arrays["features"], extractor.features(files))
        assert arrays["unreadable"].tolist() == [str(bad), str(tmp_path / "none.png")]
        assert "not an image" in arrays["reasons"][0]
    assert files == [str(images / "val" / name / f"{i}.png") for name in ("red", "green") for i in range(2)]
    assert np.isnan(extractor.features([files[0], bad], bad="skip")).all(axis=1).tolist() == [False, True]
    assert run(*command, bad).status == 3


def test_it_can_be_pickled_after_use(extractor, images):
    files = sorted((images / "val").rglob("*.png"))
    expected = extractor.features(files)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(extractor)).features(files), expected)


def test_a_bad_image_is_named_and_nothing_is_written(images, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"not an image")
    outcome = run("features", "--checkpoint", REFERENCE, "--output", tmp_path / "f.npz", images / "val", bad)
    assert (outcome.status, outcome.out, outcome.err.count("\n")) == (3, "", 1)
    assert str(bad) in outcome.err
    assert not (tmp_path / "f.npz").exists()
    outcome = run("features", "--checkpoint", REFERENCE, "--output", tmp_path / "none" / "f.npz", bad)
    assert (outcome.status, outcome.err.count("\n")) == (6, 1)
    assert "does not exist; create it" in outcome.err


def test_of_a_run_of_our_own(trained):
    extractor = FeatureExtractor.load(trained.workdir)
    predictor = Predictor.load(trained.workdir)
    samples = sorted((Path(trained.workdir) / "samples").glob("*.png"))
    features = extractor.features(samples)
    head = predictor.params["head"]
    chances = jax.nn.softmax(features @ head["kernel"] + head["bias"])
    np.testing.assert_allclose(chances, predictor.probabilities(samples), rtol=1e-4)


def test_of_a_masked_autoencoder(compile_cache, images, tmp_path):
    config = tmp_path / "mae.py"
    config.write_text("""
from vit_jax.training.config import default_config

def get_config():
    config = default_config()
    config.duration = "1 steps"
    config.model.update(name="vit_mu_patch4_8", width=16, depth=1, heads=2, mlp_dim=32, image_size=16)
    config.objective.update(name="mae", decoder_width=16, decoder_depth=1, decoder_heads=2)
    config.data.update(source="synthetic", size=8, batch_size=8)
    config.log.update(tensorboard=False, progress=False)
    return config
""")
    workdir = tmp_path / "run"
    assert run("train", "--config", config, "--workdir", workdir).status == 0
    extractor = FeatureExtractor.load(workdir)
    assert (extractor.model.pool, extractor.model.num_classes) == ("cls", 0)
    assert extractor.features(sorted((images / "val").rglob("*.png"))).shape == (6, 16)
