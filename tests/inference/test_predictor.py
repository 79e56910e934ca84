"""Predictions are those of the evaluated model, whatever images come as and however many there are."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from vit_jax.checkpoints.checkpoints import Checkpoints
from vit_jax.data.digits import open_digits
from vit_jax.errors import ConfigError, DataError
from vit_jax.inference.predictor import Predictor
from vit_jax.training.config import to_json
from vit_jax.trees import flatten, unflatten

DIGITS = open_digits("test").take(np.arange(11))


@pytest.fixture(scope="module")
def predictor(run):
    return dataclasses.replace(Predictor.load(run[1]), batch_size=4)


def test_probabilities_are_those_of_the_model(run, predictor):
    result, _ = run
    probabilities = predictor.probabilities(DIGITS["image"])
    assert (probabilities.shape, probabilities.dtype) == ((11, 10), np.float32)
    logits = jax.jit(result.experiment.objective.predict)(result.state.ema, {"image": DIGITS["image"]})
    np.testing.assert_allclose(probabilities, jax.nn.softmax(logits), rtol=1e-5)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)


def test_the_padding_of_a_batch_does_not_matter(predictor):
    together = predictor.probabilities(DIGITS["image"])
    for count in (3, 4, 5):
        np.testing.assert_array_equal(predictor.probabilities(DIGITS["image"][:count]), together[:count])
    for count in (1, 2):  # programs of their own, see `predictions.fitting`
        alone = predictor.probabilities(DIGITS["image"][:count])
        np.testing.assert_allclose(alone, together[:count], rtol=1e-6)
    assert predictor.probabilities([]).shape == (0, 10)
    assert predictor.predict([]) == []


def test_images_left_by_training_are_predicted_like_the_records(run, predictor):
    samples = [path for i in range(5) for path in (run[1] / "samples").glob(f"{i}_*.png")]
    assert [path.name for path in samples] == [
        f"{i}_{label}.png" for i, label in enumerate(DIGITS["label"][:5])
    ]
    by_path, by_array = predictor.predict(samples), predictor.predict(DIGITS["image"][:5])
    for a, b, path, index in zip(by_path, by_array, samples, range(5)):
        assert (a.classes, a.probabilities) == (b.classes, b.probabilities)
        assert (a.image, b.image) == (str(path), f"image {index}")
    assert predictor.predict(samples[0].read_bytes())[0].classes == by_path[0].classes
    (alone,) = predictor.predict(str(samples[0]))
    assert (alone.image, alone.classes) == (by_path[0].image, by_path[0].classes)
    np.testing.assert_allclose(alone.probabilities, by_path[0].probabilities, rtol=1e-6)


def test_files_of_any_size(predictor, tmp_path):
    photo = np.random.default_rng(0).integers(0, 256, (33, 57, 3), dtype=np.uint8)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    by_file, by_array = (predictor.probabilities([x]) for x in (tmp_path / "photo.png", photo))
    np.testing.assert_array_equal(by_file, by_array)


def test_the_most_probable_classes_in_order(predictor):
    probabilities = predictor.probabilities(DIGITS["image"])
    for top, count in ((3, 3), (10, 10), (99, 10)):
        for prediction, row in zip(predictor.predict(DIGITS["image"], top), probabilities):
            assert len(prediction.classes) == len(prediction.probabilities) == count
            assert prediction.probabilities == tuple(map(float, sorted(row, reverse=True)[:count]))
            assert [row[int(name)] for name in prediction.classes] == list(prediction.probabilities)


def test_sigmoid_losses_give_each_class_its_own_probability(predictor):
    options = dataclasses.replace(predictor.objective.options, loss="sigmoid")
    objective = dataclasses.replace(predictor.objective, options=options)
    params = unflatten({k: v * 0 for k, v in flatten(predictor.params).items()})
    even = dataclasses.replace(predictor, objective=objective, params=params)
    np.testing.assert_array_equal(even.probabilities(DIGITS["image"][:1]), np.full((1, 10), 0.5))


def test_a_chosen_checkpoint(run, predictor):
    older = Predictor.load(run[1], 2)
    assert not np.array_equal(older.probabilities(DIGITS["image"]), predictor.probabilities(DIGITS["image"]))


def test_what_is_refused(run, predictor, tmp_path):
    (tmp_path / "text.png").write_text("not an image")
    with pytest.raises(DataError, match=rf"{tmp_path / 'text.png'}: not an image of a known format"):
        predictor.predict([next((run[1] / "samples").iterdir()), tmp_path / "text.png"])
    with pytest.raises(DataError, match="image 0 is float32"):
        predictor.predict(DIGITS["image"].astype(np.float32))
    config = run[0].experiment.config.copy_and_resolve_references()
    config.objective = ConfigDict({"name": "mae"})
    metadata = {"config": json.loads(to_json(config)), "class_names": ["0"], "eval_transforms": ""}
    with Checkpoints(tmp_path / "mae" / "checkpoints") as checkpoints:
        checkpoints.save(0, {"params": run[0].state.params}, metadata)
    with pytest.raises(ConfigError, match="holds a model trained for 'mae', which has no classes"):
        Predictor.load(tmp_path / "mae")
