"""Published checkpoints where runs are expected: predicted with, evaluated, started from."""

import json
import shutil

import jax
import numpy as np
import pytest

from tests.images import COLOURS, colour_folder
from tests.reference.cases import weights_file
from tests.runs import run
from vit_jax.errors import CheckpointError, ConfigError
from vit_jax.inference.classifier.classifier import Classifier
from vit_jax.inference.predictor import Predictor
from vit_jax.inference.published import is_checkpoint, is_run
from vit_jax.weights.load import load
from vit_jax.weights.save import save

REFERENCE = weights_file("vit_timm_token")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return colour_folder(tmp_path_factory.mktemp("images") / "colours")


@pytest.fixture(scope="module")
def classifier(compile_cache, images):
    """A classifier fine-tuned on the colours."""
    options = dict(epochs=2, batch_size=8, learning_rate=1e-2, progress=False, unroll=1)
    # A margin of 8 pixels: transformers cannot halve an odd one as timm does.
    classifier = Classifier(str(REFERENCE), preprocessing={"crop": 0.8}, **options)
    assert classifier.config.optimizer.layer_decay == 0.75
    return classifier.fit(images / "train")


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("vit_tiny_patch16_224", False),
        ("ViT-B/16", False),
        ("B/16@384", False),
        ("timm/vit_tiny_patch16_224.augreg_in21k", True),
        ("hf-hub:google/vit-base-patch16-224", True),
        ("facebook/dinov2-base", True),
        ("gs://vit_models/augreg/B_16.npz", True),
        pytest.param(str(REFERENCE), True, id="a file"),
    ],
)
def test_names_of_weights_and_of_architectures(name, weights):
    assert is_checkpoint(name) == weights


def test_which_paths_are_runs(trained, tmp_path):
    assert is_run(trained.workdir)
    assert is_run(f"{trained.workdir}/checkpoints/6")
    assert is_run(tmp_path)  # empty
    assert is_run(tmp_path / "missing")
    assert is_run(str(tmp_path / "missing"))
    for name in (
        str(REFERENCE),
        str(tmp_path / "missing.npz"),
        "timm/vit_tiny",
        "gs://a/b",
        REFERENCE.parent,
    ):
        assert not is_run(name)


def test_predict_with_a_checkpoint(images):
    file = images / "val" / "red" / "0.png"
    row = run("predict", "--checkpoint", REFERENCE, file, "--json", "--top", "7").json()  # a line an image
    predictor = Predictor.load(str(REFERENCE))
    pixels = predictor._preprocessor([file])
    chances = np.asarray(jax.nn.softmax(load(REFERENCE, verbose=False)(pixels)))[0]
    assert [p["class"] for p in row["predictions"]] == [str(i) for i in np.argsort(-chances)]
    np.testing.assert_allclose(
        [p["probability"] for p in row["predictions"]], np.sort(chances)[::-1], rtol=1e-4
    )
    with pytest.raises(ConfigError, match="is not a training run, so it has no steps"):
        Predictor.load(str(REFERENCE), 3)
    outcome = run("predict", "--checkpoint", images / "none.safetensors", file)
    assert (outcome.status, outcome.err.count("\n")) == (4, 1)
    assert "does not exist" in outcome.err


@pytest.mark.parametrize("format", ["timm", "hf", "orbax"])
def test_a_fine_tuned_model_predicts_the_same_after_conversion_and_back(classifier, images, tmp_path, format):
    files = sorted((images / "val").rglob("*.png"))
    predictor = classifier._fitted()
    expected = predictor.predict(files, top=3)
    save(predictor.network, tmp_path / "there", format, class_names=classifier.class_names)
    there = Predictor.load(str(tmp_path / "there"))
    assert there.predict(files, top=3) == expected
    save(there.network, tmp_path / "back", "orbax", class_names=COLOURS)
    assert Predictor.load(tmp_path / "back").predict(files, top=3) == expected


def test_evaluate_a_checkpoint(classifier, images, tmp_path):
    save(classifier._fitted().network, tmp_path / "saved", "hf", class_names=COLOURS)
    data = ("--config.data.source=folder", "--config.data.path", images, "--config.data.eval_split=val")
    metrics = run("evaluate", "--checkpoint", tmp_path / "saved", *data, "--json").json()
    files = sorted((images / "val").rglob("*.png"))
    labels = [COLOURS.index(file.parent.name) for file in files]
    assert metrics["accuracy"] == pytest.approx(classifier.score(list(map(str, files)), labels))
    outcome = run("evaluate", "--checkpoint", REFERENCE, *data)
    assert (outcome.status, outcome.err.count("\n")) == (3, 1)
    assert "the checkpoint has 7 classes and the data has 3 classes" in outcome.err
    assert "give data with the classes of the checkpoint, or fine-tune it first" in outcome.err


def renamed(images, folder, names):
    """The images to evaluate on, with the folders of some colours under other names."""
    for colour, name in names.items():
        shutil.copytree(images / "val" / colour, folder / "test" / name)
    return folder


def test_labels_mean_classes_by_name(classifier, images, tmp_path):
    """A model whose classes stand in another order, data with some of them, with others, and under other names."""
    order = ("green", "red", "blue")
    rows = np.array([COLOURS.index(name) for name in order])
    network = classifier._fitted().network
    head = network.head
    head.kernel[...], head.bias[...] = head.kernel[...][:, rows], head.bias[...][rows]
    save(network, tmp_path / "hf", "hf", class_names=order)

    def evaluate(folder, *arguments):
        data = ("--config.data.source=folder", f"--config.data.path={folder}")
        return run("evaluate", "--checkpoint", tmp_path / "hf", *data, "--json", *arguments)

    def expected(names):
        files = [file for name in names for file in sorted((images / "val" / name).iterdir())]
        said = Predictor.load(str(tmp_path / "hf")).predict(files, top=1)
        return np.mean([one.classes[0] == file.parent.name for one, file in zip(said, files)])

    whole = evaluate(renamed(images, tmp_path / "whole", dict(zip(COLOURS, COLOURS))))
    assert whole.err == ""
    assert whole.json()["accuracy"] == pytest.approx(expected(COLOURS))
    two = evaluate(renamed(images, tmp_path / "two", {"blue": "blue", "red": "red"}))
    assert "the data has 2 of the 3 classes of the checkpoint" in two.err
    assert two.json()["accuracy"] == pytest.approx(expected(("blue", "red")))
    synsets = {"green": "n1", "red": "n2", "blue": "n3"}  # in the order of the model's classes
    other = renamed(images, tmp_path / "other", synsets)
    refused = evaluate(other)
    assert (refused.status, refused.err.count("\n"), refused.out) == (3, 1, "")
    assert "3 classes that the checkpoint does not have: 'n1', 'n2', 'n3'" in refused.err
    asked = evaluate(other, "--labels", "by-position")
    assert "as asked: 'n1' of the data is 'green' of the checkpoint" in asked.err
    for metric in ("accuracy", "loss"):
        assert asked.json()[metric] == pytest.approx(whole.json()[metric])
    typo = evaluate(other, "--labels", "position")
    assert (typo.status, typo.err.count("\n")) == (2, 1)


def test_a_saved_model_is_no_run(classifier, tmp_path):
    save(classifier._fitted().network, tmp_path / "saved", "orbax", class_names=COLOURS)
    outcome = run("evaluate", "--workdir", tmp_path / "saved")
    assert (outcome.status, outcome.err.count("\n")) == (4, 1)
    assert "use it as a checkpoint" in outcome.err


def test_the_classifier_is_saved_and_loaded_without_its_checkpoint(classifier, images, tmp_path):
    classifier.save(tmp_path / "mine")
    again = Classifier.load(tmp_path / "mine")
    files = sorted(map(str, (images / "val").rglob("*.png")))
    np.testing.assert_array_equal(again.predict_proba(files), classifier.predict_proba(files))
    with pytest.raises(CheckpointError):
        Classifier("no/such.safetensors").fit(str(images))


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_names_of_another_number_of_classes(classifier, images, tmp_path, command):
    save(classifier._fitted().network, tmp_path / "saved", "timm", class_names=COLOURS)
    config = tmp_path / "saved" / "config.json"
    document = json.loads(config.read_text())
    document["label_names"] = list(COLOURS[:2])
    config.write_text(json.dumps(document))
    data = {
        "predict": [images / "val" / "red" / "0.png"],
        "evaluate": ["--config.data.source=folder", f"--config.data.path={images}"],
    }[command]
    outcome = run(command, "--checkpoint", tmp_path / "saved", *data)
    assert (outcome.status, outcome.err.count("\n")) == (4, 1)
    assert "has 3 outputs and 2 class names, so they cannot be matched" in outcome.err
    load(tmp_path / "saved", num_classes=5, verbose=False)  # a new head has names of its own


def test_values_of_a_regression_are_no_chances(images, tmp_path):
    model = load(REFERENCE, num_classes=1, problem="regression", verbose=False)
    model.head.bias[...] = model.head.bias[...] + 31.5  # the kernel of a new head is zero
    save(model, tmp_path, "hf")
    image = next((images / "val").rglob("*.png"))
    outcome = run("predict", "--checkpoint", tmp_path, image)
    assert outcome.status == 0, outcome.err
    assert outcome.out.split()[-1] == "31.5"
