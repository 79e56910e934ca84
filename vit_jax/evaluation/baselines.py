"""What simple methods reach on the same split, so that an accuracy can be judged. Uses scikit-learn."""

from collections.abc import Callable
from typing import Any

import numpy as np

from vit_jax.data.base import Source
from vit_jax.errors import ConfigError, choose

MAX_VALUES = 2**28  # these methods hold all training images at once, as float32


def _logistic_regression() -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))


def _svm_rbf() -> Any:
    from sklearn.svm import SVC

    # Pixels are in [0, 1]; gamma "scale" is 1 / (features * variance).
    return SVC(kernel="rbf", gamma="scale", C=10.0)


def _nearest_neighbour() -> Any:
    from sklearn.neighbors import KNeighborsClassifier

    return KNeighborsClassifier(n_neighbors=1)


BASELINES: dict[str, tuple[str, Callable[[], Any]]] = {
    "logistic_regression": ("logistic regression", _logistic_regression),
    "svm_rbf": ("RBF support vector machine", _svm_rbf),
    "nearest_neighbour": ("nearest neighbour", _nearest_neighbour),
}


def check_baselines(names: tuple[str, ...], train: Source, test: Source) -> None:
    """Raise `ConfigError` unless the baselines exist and the images are in memory and not too many."""
    for name in names:
        choose(name, BASELINES, "evaluation.baselines")
    if not names:
        return
    if any("label" not in source.fields for source in (train, test)):
        raise ConfigError(
            f"evaluation.baselines is {names}, but the data has no labels to learn; set evaluation.baselines=()."
        )
    if any(source.take(np.arange(1)) is None for source in (train, test)):
        raise ConfigError(
            f"evaluation.baselines is {names}, but they need images in memory, as digits and arrays are; set "
            "evaluation.baselines=()."
        )
    values = len(train) * int(np.prod(train.image_shape or ()))
    if values > MAX_VALUES:
        raise ConfigError(
            f"evaluation.baselines is {names}, but the training images have {values:,} values and {MAX_VALUES:,} "
            "is the limit for such methods; set evaluation.baselines=()."
        )


def baseline_accuracies(names: tuple[str, ...], train: Source, test: Source) -> dict[str, float]:
    """Return the test accuracy of simple classifiers on raw pixels.

    Args:
      names: out of `BASELINES`.
      train, test: the records, see `check_baselines`.
    """
    check_baselines(names, train, test)
    if not names:
        return {}
    (x, y), (x_test, y_test) = (_arrays(source) for source in (train, test))
    return {name: float(np.mean(BASELINES[name][1]().fit(x, y).predict(x_test) == y_test)) for name in names}


def _arrays(source: Source) -> tuple[np.ndarray, np.ndarray]:
    records = source.take(np.arange(len(source)))
    assert records is not None  # checked
    images = records["image"]
    return images.reshape(len(images), -1).astype(np.float32) / 255, records["label"]
