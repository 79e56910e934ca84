"""Classes without records: labels from 1 are refused, gaps are told before anything is compiled."""

import numpy as np
import pytest

from vit_jax.data.sources.arrays import ArraySource
from vit_jax.errors import DataError
from vit_jax.training.config import default_config
from vit_jax.training.experiment import build
from vit_jax.training.guard.missing_classes import check_labels_begin, missing_classes
from vit_jax.training.loop import train
from vit_jax.training.report.beginning import beginning


def configuration():
    config = default_config()
    config.duration = "1 steps"
    config.model.update(name="vit_mu_patch4_8", in_channels=1, width=16, depth=1, heads=2, mlp_dim=32)
    config.data.update(source="arrays", batch_size=8)
    config.log.update(tensorboard=False, progress=False)
    return config


def records(labels, names=None):
    return ArraySource(np.zeros((len(labels), 8, 8, 1), np.uint8), np.asarray(labels), names)


def test_labels_from_one_are_refused(tmp_path):
    given = records([1, 2, 3] * 4)
    with pytest.raises(DataError, match="range from 1 to 3, and none is 0; subtract 1, or name all classes"):
        train(configuration(), tmp_path / "run", sources=(given, given))
    assert not (tmp_path / "run").exists()


def test_named_classes_may_have_no_record():
    check_labels_begin(records([1, 2] * 4, ["a", "b", "c"]))
    check_labels_begin(records([0, 2] * 4))


def test_gaps_are_told():
    given = records([0, 5, 2] * 4)
    said = "3 of 6 classes have no training records: '1', '3', '4'"
    assert missing_classes(given) == said
    assert said in beginning(build(configuration(), (given, given)))
    assert missing_classes(records([0, 1] * 4)) == ""
    many = records([0, 99] * 4)
    assert (
        missing_classes(many)
        == "98 of 100 classes have no training records: '1', '2', '3', '4', '5' and 93 more"
    )


@pytest.mark.parametrize(
    ("train", "evaluated", "told"), [("train[:80%]", "train[70%:]", 1), ("train", "test", 0)]
)
def test_evaluating_on_what_is_trained_on_is_told(train, evaluated, told):
    config = configuration()
    config.data.source, config.data.train_split, config.data.eval_split = "digits", train, evaluated
    said = [
        line for line in beginning(build(config)) if "the evaluation data contains training records" in line
    ]
    assert len(said) == told
