"""Names of classes while training: of the split that is evaluated, and of the checkpoint that is fine-tuned."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict

from tests.images import COLOURS, colour_folder
from tests.reference.cases import weights_file
from tests.training.test_finetune import configuration
from vit_jax.data.sources.arrays import ArraySource
from vit_jax.errors import ConfigError, DataError
from vit_jax.training.config import validate
from vit_jax.training.experiment import build
from vit_jax.training.loop import train
from vit_jax.trees import flatten
from vit_jax.weights.load import load, open_pretrained
from vit_jax.weights.save import save

ORDER = ("green", "red", "blue")  # of the checkpoint's classes; folders are in the order of the alphabet


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return colour_folder(tmp_path_factory.mktemp("images") / "colours")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A head of the colours with something in it."""
    reference = weights_file("vit_timm_token")
    model = load(reference, num_classes=3, verbose=False)
    rng = np.random.default_rng(0)
    model.head.kernel[...] = rng.standard_normal((32, 3)).astype(np.float32)
    model.head.bias[...] = np.arange(3, dtype=np.float32)
    folder = tmp_path_factory.mktemp("checkpoint") / "hf"
    save(model, folder, "hf", class_names=ORDER)
    return folder, model


def renamed(images, folder, names):
    """The images with the folders of some colours under other names."""
    for split in ("train", "val"):
        for colour, name in names.items():
            shutil.copytree(images / split / colour, folder / split / name)
    return folder


def bias(images, checkpoint, **changes):
    """The head's bias at step 0, and the report's line about the head."""
    experiment = build(configuration(images, checkpoint, **changes))
    head = flatten(experiment.task.pretrained.params())["head/bias"]
    return np.asarray(head).tolist(), str(experiment.task.pretrained.report).splitlines()[-1]


def test_rows_of_the_head_follow_the_folders(images, checkpoint):
    folder, _ = checkpoint
    assert bias(images, folder) == (
        [2, 0, 1],
        "  head     kept, its classes by name in the order of the data",
    )


def test_and_those_of_some_classes(images, checkpoint, tmp_path):
    two = renamed(images, tmp_path / "two", {"blue": "blue", "red": "red"})
    assert bias(two, checkpoint[0]) == ([2, 1], "  head     kept for the data's 2 classes of 3, by name")


def test_other_names_start_anew_unless_positions_are_asked_for(images, checkpoint, tmp_path, capfd):
    other = renamed(images, tmp_path / "other", {"green": "1_gras", "red": "2_blood", "blue": "3_sky"})
    head, told = bias(other, checkpoint[0])
    assert (head, told) == ([0, 0, 0], "  head     new: 0 of the data's 3 classes are the checkpoint's")
    head, told = bias(other, checkpoint[0], model__labels="by-position")
    assert head == [0, 1, 2]
    assert "'1_gras' of the data is 'green' of the checkpoint" in told
    train(
        configuration(other, checkpoint[0], evaluation__every="100%", log__every="1 step"), tmp_path / "run"
    )
    assert "head     new: 0 of the data's 3 classes" in capfd.readouterr().err
    lines = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    first = next(line["train/loss"] for line in lines if "train/loss" in line)
    assert first == pytest.approx(np.log(3), rel=1e-5)


def test_a_run_is_fine_tuned_by_name_too(images, checkpoint, tmp_path):
    """Its names are in its checkpoints."""
    train(configuration(images, checkpoint[0]), tmp_path / "run")
    head = np.asarray(flatten(open_pretrained(tmp_path / "run").params())["head/bias"])
    two = renamed(images, tmp_path / "two", {"green": "green", "red": "red"})
    found, told = bias(two, tmp_path / "run")
    assert found == head[[1, 2]].tolist()
    assert "2 classes of 3, by name" in told
    other = renamed(images, tmp_path / "other", {"green": "0", "red": "1", "blue": "2"})
    assert bias(other, tmp_path / "run")[0] == [0, 0, 0]


def test_labels_is_checked(images, checkpoint):
    with pytest.raises(ConfigError, match=r"model.labels is 'position'; .* Did you mean 'by-position'"):
        configuration(images, checkpoint[0], model__labels="position")
    config = configuration(images, checkpoint[0])
    config.model = ConfigDict({"name": "vit_mu_patch4_8", "labels": "by-position"})
    with pytest.raises(ConfigError, match=r"there is no model\.checkpoint"):
        validate(config)


def pictures(labels, names):
    return ArraySource(np.full((len(labels), 32, 32, 3), 9, np.uint8), labels, names)


def evaluated(names, labels=(0, 1, 1)):
    """The data of training on three colours and evaluating on others."""
    config = configuration("unused", model__image_size=32)
    return build(config, (pictures([0, 1, 2] * 4, COLOURS), pictures(list(labels), names))).data


def test_the_split_to_evaluate_on_is_matched_by_name():
    assert evaluated(COLOURS, [0, 1, 2]).note == ""
    turned = evaluated(("red", "blue", "green"), [0, 1, 2])
    assert turned.eval_source.labels.tolist() == [2, 0, 1]
    assert turned.eval_source.class_names == COLOURS
    assert "a different order" in turned.note
    some = evaluated(("red", "blue"))
    assert some.eval_source.labels.tolist() == [2, 0, 0]
    assert "the evaluation data has 2 of the 3 classes of the training data" in some.note
    with pytest.raises(DataError, match="1 class that the training data does not have: 'grey'"):
        evaluated(("red", "grey"))


def test_a_folder_whose_test_split_lacks_a_class(images, tmp_path, capfd):
    copy = Path(shutil.copytree(images, tmp_path / "copy"))
    shutil.rmtree(copy / "val" / "blue")
    result = train(configuration(copy), tmp_path / "run")
    assert "the evaluation data has 2 of the 3 classes of the training data" in capfd.readouterr().err
    assert result.experiment.data.eval_source.labels.tolist() == [1] * 4 + [2] * 4
