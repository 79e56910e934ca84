"""Predictions are those of the evaluated model, whatever images come as and however many there are."""

import dataclasses
import json
import pickle
import subprocess
import sys

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from tests.tiny import tiny
from vit_jax.checkpoints.checkpoints import Checkpoints
from vit_jax.data.sources.digits import open_digits
from vit_jax.errors import ConfigError, DataError
from vit_jax.inference.export.export import export_predictor
from vit_jax.inference.export.exported import ExportedPredictor
from vit_jax.inference.features import FeatureExtractor
from vit_jax.inference.predictor import Predictor
from vit_jax.inference.writing import json_line, text_line
from vit_jax.models.config_json import config_to_json
from vit_jax.models.vit.config import replace
from vit_jax.objectives.base import DataInfo
from vit_jax.objectives.classification import Classification
from vit_jax.objectives.classification.options import ClassificationOptions
from vit_jax.objectives.outputs.base import NOT_FINITE
from vit_jax.training.config import default_config, to_json
from vit_jax.trees import flatten, unflatten
from vit_jax.weights.load import open_pretrained
from vit_jax.weights.save import save

DIGITS = open_digits("test").take(np.arange(11))


@pytest.fixture(scope="module")
def predictor(run):
    return dataclasses.replace(Predictor.load(run[1]), batch_size=4)


def test_probabilities_are_those_of_the_model(run, predictor):
    result, _ = run
    probabilities = predictor.probabilities(DIGITS["image"])
    assert (probabilities.shape, probabilities.dtype) == ((11, 10), np.float32)
    logits = jax.jit(result.experiment.task.objective.logits)(
        result.state.ema, {}, {"image": DIGITS["image"]}
    )
    np.testing.assert_allclose(probabilities, jax.nn.softmax(logits), rtol=1e-5)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)


def test_the_padding_of_a_batch_does_not_matter(predictor):
    together = predictor.probabilities(DIGITS["image"])
    for count in (3, 4, 5):
        np.testing.assert_array_equal(predictor.probabilities(DIGITS["image"][:count]), together[:count])
    for count in (1, 2):  # programs of their own, see `stream.fitting`
        alone = predictor.probabilities(DIGITS["image"][:count])
        np.testing.assert_allclose(alone, together[:count], rtol=1e-6)
    assert predictor.probabilities([]).shape == (0, 10)
    assert predictor.predict([]) == []


def test_images_left_by_training_are_predicted_like_the_records(run, predictor):
    samples = [path for i in range(5) for path in (run[1] / "samples").glob(f"{i}_*.png")]
    records = open_digits("test").take(np.arange(360))
    arrays = []
    for path in samples:
        same = (records["image"][..., 0] == np.asarray(Image.open(path))).all(axis=(1, 2))
        arrays.append(records["image"][same][0])
        assert path.stem.endswith(f"_{records['label'][same][0]}")
    by_path, by_array = predictor.predict(samples), predictor.predict(arrays)
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


def test_a_run_with_sigmoids_stays_one_through_every_format(predictor, tmp_path):
    options = dataclasses.replace(predictor.objective.options, loss="sigmoid")
    each = dataclasses.replace(predictor, objective=dataclasses.replace(predictor.objective, options=options))
    assert (predictor.model.problem, each.model.problem) == ("single_label", "multi_label")
    images, names = DIGITS["image"][:2], predictor.objective.data.class_names
    for format in ("hf", "timm", "orbax"):
        ignore = ["norm_epsilon"] if format == "timm" and each.model.norm_epsilon == 1e-12 else []
        save(each.network, tmp_path / format, format, class_names=names, ignore=ignore)
        again = Predictor.load(str(tmp_path / format))
        assert again.model.problem == "multi_label", format
        np.testing.assert_allclose(again.probabilities(images), each.probabilities(images), rtol=1e-5)
    about = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert about["problem_type"] == "multi_label_classification"
    save(each.network, tmp_path / "again", "hf")
    about["problem_type"] = "regression"
    (tmp_path / "hf" / "config.json").write_text(json.dumps(about))
    values = Predictor.load(str(tmp_path / "hf")).probabilities(images)
    np.testing.assert_allclose(1 / (1 + np.exp(-values)), each.probabilities(images), rtol=1e-5)


def test_a_run_from_before_problems_were_saved_means_what_its_loss_taught(run, tmp_path):
    result, _ = run
    config = json.loads(to_json(result.experiment.config))
    model = config_to_json(result.experiment.task.model)
    del model["problem"]
    for loss, problem in (("softmax", "single_label"), ("sigmoid", "multi_label"), ("bce", "multi_label")):
        old = {**config, "objective": {**config["objective"], "loss": loss}}
        metadata = {"config": old, "model": model, "class_names": list("0123456789")}
        metadata["eval_transforms"] = result.experiment.data.transforms[1]
        with Checkpoints(tmp_path / loss / "checkpoints") as checkpoints:
            checkpoints.save(0, {"params": result.state.params}, metadata)
        assert Predictor.load(tmp_path / loss).model.problem == problem
        assert open_pretrained(tmp_path / loss).config.problem == problem


def test_a_chosen_checkpoint(run, predictor):
    older = Predictor.load(run[1], 2)
    assert not np.array_equal(older.probabilities(DIGITS["image"]), predictor.probabilities(DIGITS["image"]))


def test_as_they_come(predictor):
    given = predictor.stream((image for image in DIGITS["image"]), 3)
    assert next(given) == predictor.predict(DIGITS["image"], 3)[0]
    assert [*given] == predictor.predict(list(DIGITS["image"]), np.int64(3))[1:]


def test_bad_images_may_be_skipped(predictor, tmp_path):
    images = [*DIGITS["image"][:3], tmp_path / "none.png", *DIGITS["image"][4:6]]
    with pytest.raises(DataError, match=r"none.png cannot be read: No such file"):
        predictor.predict(images)
    found = predictor.predict(images, bad="skip")
    assert [bool(p.error) for p in found] == [i == 3 for i in range(6)]
    assert found[3].image == str(tmp_path / "none.png")
    assert (found[3].classes, found[3].probabilities) == ((), ())
    assert "none.png cannot be read" in found[3].error
    probabilities = predictor.probabilities(images, bad="skip")
    assert np.isnan(probabilities[3]).all()
    np.testing.assert_array_equal(probabilities[:3], predictor.probabilities(DIGITS["image"][:6])[:3])


@pytest.mark.parametrize("storage", ["float32", "int8"])
def test_in_another_process(predictor, storage):
    used = predictor.stored(storage)
    expected = used.predict(DIGITS["image"])  # it has compiled functions now
    again = pickle.loads(pickle.dumps(used))
    assert again.predict(DIGITS["image"]) == expected
    assert again.class_names == used.class_names


def test_a_pool_of_processes(predictor, tmp_path):
    # As Ray, Spark and joblib do it: a new Python, which knows the predictor by its pickle alone.
    predictor.probabilities(DIGITS["image"][:1])
    (tmp_path / "predictor").write_bytes(pickle.dumps(predictor))
    np.save(tmp_path / "images.npy", DIGITS["image"])
    program = f"""
import pickle, numpy
predictor = pickle.load(open({str(tmp_path / "predictor")!r}, "rb"))
numpy.save({str(tmp_path / "out.npy")!r}, predictor.probabilities(numpy.load({str(tmp_path / "images.npy")!r})))
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
    np.testing.assert_allclose(
        np.load(tmp_path / "out.npy"), predictor.probabilities(DIGITS["image"]), rtol=1e-5
    )


@pytest.mark.parametrize("channels", [2, 12])
def test_arrays_of_many_channels_pass_everywhere(channels, tmp_path):
    model = tiny(image_size=(8, 8), in_channels=channels)
    objective = Classification(
        model, ClassificationOptions(), DataInfo(model.num_classes, ("a", "b", "c", "d", "e"))
    )
    params = jax.jit(objective.init)(jax.random.key(0))[0]
    predictor = Predictor(objective, params, default_config(), "")
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, channels), dtype=np.uint8)
    expected = jax.nn.softmax(objective.logits(params, {}, {"image": images}))
    np.testing.assert_allclose(predictor.probabilities(images), expected, rtol=1e-4)
    export_predictor(predictor, tmp_path / "exported")
    exported = ExportedPredictor.load(tmp_path / "exported")
    np.testing.assert_allclose(exported.probabilities(list(images)), expected, rtol=1e-4)
    with pytest.raises(
        DataError, match=rf"image 0: the image has {channels + 3} channels, which cannot become"
    ):
        predictor.predict(np.zeros((8, 8, channels + 3), np.uint8))
    body = {name: part for name, part in params.items() if name != "head"}
    extractor = FeatureExtractor(replace(model, num_classes=0), body)
    assert extractor.features(images).shape == (3, model.width)


def test_what_is_refused(run, predictor, tmp_path):
    (tmp_path / "text.png").write_text("not an image")
    with pytest.raises(DataError, match=rf"{tmp_path / 'text.png'}: not an image of a known format"):
        predictor.predict([next((run[1] / "samples").iterdir()), tmp_path / "text.png"])
    for top in (0, -1, 2.0, True):
        with pytest.raises(ConfigError, match=f"top is {top}; it must be an integer of at least 1"):
            predictor.predict(DIGITS["image"], top)
    with pytest.raises(ConfigError, match="bad is 'ignore'; it must be one of error, skip"):
        predictor.predict(DIGITS["image"], bad="ignore")
    with pytest.raises(DataError, match="image 0 is float32"):
        predictor.predict(DIGITS["image"].astype(np.float32) / 255)
    config = run[0].experiment.config.copy_and_resolve_references()
    config.objective = ConfigDict({"name": "mae"})
    metadata = {"config": json.loads(to_json(config)), "class_names": ["0"], "eval_transforms": ""}
    with Checkpoints(tmp_path / "mae" / "checkpoints") as checkpoints:
        checkpoints.save(0, {"params": run[0].state.params}, metadata)
    with pytest.raises(
        ConfigError, match="holds a model trained for 'mae', which makes no predictions for images"
    ):
        Predictor.load(tmp_path / "mae")


def test_what_it_shows_is_one_line(run):
    assert repr(Predictor.load(run[1])) == "<Predictor: 10 classes, '0', '1', '2' and 7 more>"
    shown = repr(FeatureExtractor.load(run[1]))
    assert shown.startswith("<FeatureExtractor: ViTConfig(")
    assert "\n" not in shown


def test_outputs_that_are_not_finite_name_no_class(predictor, tmp_path):
    """Neither in Python, nor in any line or table."""
    head = {name: np.asarray(value).copy() for name, value in predictor.params["head"].items()}
    head["bias"][3] = np.inf
    broken = dataclasses.replace(predictor, params={**predictor.params, "head": head})
    for found in broken.predict(DIGITS["image"][:5]):
        assert (found.classes, found.probabilities, found.error) == ((), (), NOT_FINITE)
    assert np.isnan(broken.probabilities(DIGITS["image"][:2])).all()
    assert json.loads(json_line(broken.output, found)) == {"image": "image 4", "error": NOT_FINITE}
    assert text_line(broken.output, found, 0) == f"image 4   {NOT_FINITE}"
