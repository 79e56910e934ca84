"""Named classes: scores are those of the two towers, whatever the number of texts and images."""

import dataclasses
import json
import pickle

import jax
import numpy as np
import pytest
from PIL import Image

from tests.inference.texts import checkpoint, clip_tokenizer, siglip_tokenizer
from tests.reference.cases import load_case, weights_file
from vit_jax import ZeroShotClassifier
from vit_jax.cli import main
from vit_jax.errors import ConfigError
from vit_jax.evaluation.preprocess import preprocessing
from vit_jax.inference.text.tokenizer import Tokenizer
from vit_jax.weights.load import load

CASES = {"clip_hf": clip_tokenizer, "siglip_hf": siglip_tokenizer}
NAMES = ("cat", "dog", "bee")
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 40, 48, 3), dtype=np.uint8)


@pytest.fixture(scope="module", params=CASES)
def folder(request, tmp_path_factory):
    return checkpoint(request.param, tmp_path_factory.mktemp("x") / request.param, CASES[request.param]())


@pytest.fixture(scope="module")
def parts(folder):
    return load(folder, verbose=False), Tokenizer.load(folder)


@pytest.fixture(scope="module")
def classifier(folder):
    return ZeroShotClassifier.load(folder, NAMES, batch_size=2)


def test_scores_are_those_of_the_model(parts, classifier):
    model, tokenizer = parts
    tokens = tokenizer([f"a photo of a {name}." for name in NAMES])
    expected = model(preprocessing(model)(list(IMAGES)), tokens)
    np.testing.assert_allclose(classifier.logits(IMAGES), expected.logits, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(classifier.class_embeddings, expected.text, atol=1e-6)
    probabilities = classifier.probabilities(IMAGES)
    assert (probabilities.shape, probabilities.dtype) == ((5, 3), np.float32)
    if model.logit_bias is None:
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)
        np.testing.assert_allclose(probabilities, jax.nn.softmax(expected.logits), rtol=1e-4)
    else:
        np.testing.assert_allclose(probabilities, jax.nn.sigmoid(expected.logits), rtol=1e-4)


def test_the_towers_give_the_embeddings_of_the_reference_library(parts, folder):
    model, _ = parts
    arrays = load_case(folder.name)[1]
    tokens = arrays["in.input_ids"].astype(np.int32)
    text = model.encode_text(tokens)
    np.testing.assert_allclose(text, arrays["out.text_embeds"], atol=2e-5)
    pixels = arrays["in.pixel_values"].transpose(0, 2, 3, 1)
    logits = model.compare(model.encode_image(pixels), text)
    np.testing.assert_allclose(logits, arrays["out.logits_per_image"], atol=2e-4)


def test_templates_are_averaged(parts):
    model, tokenizer = parts
    templates = ("a {}", "the {} a {}", "{}")
    several = ZeroShotClassifier(model, tokenizer, NAMES, templates, batch_size=4).class_embeddings
    each = [ZeroShotClassifier(model, tokenizer, NAMES, one).class_embeddings for one in templates]
    mean = np.mean(each, axis=0)
    np.testing.assert_allclose(several, mean / np.linalg.norm(mean, axis=1, keepdims=True), atol=1e-6)
    assert np.abs(each[0] - each[1]).max() > 1e-3


def test_classes_keep_their_order(parts, classifier):
    turned = ZeroShotClassifier(*parts, NAMES[::-1])
    np.testing.assert_allclose(
        turned.logits(IMAGES), classifier.logits(IMAGES)[:, ::-1], rtol=1e-4, atol=1e-5
    )
    assert turned.class_names == NAMES[::-1]


def test_predictions(classifier, tmp_path):
    probabilities = classifier.probabilities(IMAGES)
    for prediction, row, index in zip(classifier.predict(IMAGES, 2), probabilities, range(5)):
        assert prediction.image == f"image {index}"
        assert prediction.probabilities == tuple(map(float, sorted(row, reverse=True)[:2]))
        assert [row[NAMES.index(name)] for name in prediction.classes] == list(prediction.probabilities)
    assert classifier.predict([]) == []
    np.testing.assert_allclose(classifier.probabilities(IMAGES[:1]), probabilities[:1], rtol=1e-6)


def test_it_can_be_pickled_after_use(classifier):
    expected = classifier.predict(IMAGES)
    again = pickle.loads(pickle.dumps(classifier))
    assert again.predict(IMAGES) == expected
    assert again.tokenizer("a cat").tolist() == classifier.tokenizer("a cat").tolist()


def test_bad_images_may_be_skipped(classifier, tmp_path):
    images = [IMAGES[0], tmp_path / "none.png", IMAGES[2]]
    assert [bool(p.error) for p in classifier.predict(images, bad="skip")] == [False, True, False]
    assert np.isnan(classifier.logits(images, bad="skip")[1]).all()


def test_names_may_hold_braces_and_templates_may_be_one_text(parts):
    braces = ZeroShotClassifier(*parts, ["{a}", "b"], "{} {}")
    same = ZeroShotClassifier(*parts, ["x", "b"], "{} {}")
    np.testing.assert_allclose(braces.class_embeddings[1], same.class_embeddings[1], atol=1e-6)


def test_padding_of_clip_changes_nothing(tmp_path):
    model, tokenizer = (
        load(checkpoint("clip_hf", tmp_path, clip_tokenizer()), verbose=False),
        Tokenizer.load(tmp_path),
    )
    zeros = dataclasses.replace(tokenizer, pad_token=0)
    assert (zeros("cat") != tokenizer("cat")).any()
    np.testing.assert_allclose(
        model.encode_text(zeros("cat")), model.encode_text(tokenizer("cat")), atol=1e-6
    )


def test_another_tokenizer(folder, parts, classifier, tmp_path):
    bare = checkpoint(folder.name, tmp_path / "bare")
    (tmp_path / "t.json").write_bytes((folder / "tokenizer.json").read_bytes())
    for tokenizer in (tmp_path / "t.json", folder, parts[1]):
        found = ZeroShotClassifier.load(bare, NAMES, tokenizer=tokenizer)
        np.testing.assert_allclose(found.class_embeddings, classifier.class_embeddings, atol=1e-6)


@pytest.mark.parametrize(
    ("names", "templates", "message"),
    [
        ([], "{}", "class_names is empty; give at least one class"),
        ("cat", "{}", "class_names is 'cat', a single string; give a list"),
        (["cat", " "], "{}", "a class is named ' '"),
        (["cat", 3], "{}", "a class is named 3"),
        (["cat", "dog", "cat"], "{}", "class 'cat' is given twice"),
        (["cat"], [], "templates is empty"),
        (["cat"], ["{}", "a photo"], r"template 'a photo' has no place for the class; write \{\} there"),
    ],
)
def test_what_is_refused(parts, folder, names, templates, message):
    for make in (lambda *x: ZeroShotClassifier(*parts, *x), lambda *x: ZeroShotClassifier.load(folder, *x)):
        with pytest.raises(ConfigError, match=message) as caught:
            make(names, templates)
        assert "\n" not in str(caught.value)


def test_a_checkpoint_without_texts(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(weights_file("vit_timm_token").read_bytes())
    with pytest.raises(ConfigError, match="has no text encoder; use a CLIP or SigLIP checkpoint"):
        ZeroShotClassifier.load(tmp_path, NAMES)


def test_the_command_chooses_among_named_classes(folder, tmp_path, capsys):
    image = tmp_path / "image.png"
    Image.fromarray(IMAGES[0]).save(image)
    command = ["predict", "--checkpoint", str(folder), str(image)]
    assert main([*command, "--classes", "cat, dog,bee", "--template", "a {}.", "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    direct = ZeroShotClassifier.load(folder, NAMES, ("a {}.",)).predict([str(image)])[0]
    assert [entry["class"] for entry in row["predictions"]] == list(direct.classes)
    np.testing.assert_allclose(
        [e["probability"] for e in row["predictions"]], direct.probabilities, rtol=1e-4
    )
    assert main([*command, "--template", "a {}."]) == 2
    assert "--template applies to zero-shot classification" in capsys.readouterr().err
    assert main(["predict", "--workdir", str(tmp_path), "--classes", "cat", str(image)]) == 2
    assert "--classes needs a CLIP or SigLIP --checkpoint" in capsys.readouterr().err
