"""Simple classifiers on the same split, in exact numbers."""

import numpy as np
import pytest

from vit_jax.data.base import Source
from vit_jax.data.sources.digits import open_digits
from vit_jax.data.sources.synthetic import SyntheticSource
from vit_jax.errors import ConfigError
from vit_jax.evaluation import baselines
from vit_jax.evaluation.baselines import BASELINES, baseline_accuracies, check_baselines


def test_digits():
    accuracies = baseline_accuracies(tuple(BASELINES), open_digits("train"), open_digits("test"))
    assert accuracies == {
        "logistic_regression": 349 / 360,
        "svm_rbf": 358 / 360,
        "nearest_neighbour": 355 / 360,
    }


def test_none_asked_for_reads_nothing():
    class Untouchable(Source):
        __len__ = __getitem__ = take = None

    assert baseline_accuracies((), Untouchable(), Untouchable()) == {}


def test_what_is_refused(monkeypatch):
    class Files(Source):
        class_names = ("a",)

        def __len__(self):
            return 4

        def __getitem__(self, index):
            return {"image": b"", "label": 0, "record": "a file"}

    noise = SyntheticSource(16, (4, 4, 1), 2)
    check_baselines(("svm_rbf",), noise, noise)
    with pytest.raises(ConfigError, match=r"evaluation.baselines is 'svm_rfb'; .* Did you mean 'svm_rbf'"):
        check_baselines(("svm_rfb",), noise, noise)
    for pair in ((Files(), noise), (noise, Files())):
        with pytest.raises(ConfigError, match="need images in memory, as digits and arrays are"):
            check_baselines(("svm_rbf",), *pair)
    monkeypatch.setattr(baselines, "MAX_VALUES", 255)
    with pytest.raises(ConfigError, match="have 256 values and 255 is the limit"):
        baseline_accuracies(("svm_rbf",), noise, noise)


def test_every_baseline_has_a_name_for_people():
    assert all(words and isinstance(words, str) for words, _ in BASELINES.values())
    np.testing.assert_array_equal(list(BASELINES), ["logistic_regression", "svm_rbf", "nearest_neighbour"])
