"""What simple methods reach on the same split, so that an accuracy can be judged. Uses scikit-learn."""

from collections.abc import Callable
from typing import Any

import numpy as np

from vit_jax.errors import DataError, choose


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


def baseline_accuracies(
    names: tuple[str, ...], train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray]
) -> dict[str, float]:
    """Return the test accuracy of simple classifiers on raw pixels.

    Args:
      names: out of `BASELINES`.
      train, test: images `(n, h, w, c)` uint8 and labels `(n,)`.

    Raises:
      ConfigError: unknown name.
      DataError: the images are too many for methods that hold all of them at once.
    """
    for name in names:
        choose(name, BASELINES, "evaluation.baselines")
    if names and train[0].size > 2**28:
        raise DataError(
            f"evaluation.baselines are for small data, and the training images have {train[0].size:,} values; "
            "set evaluation.baselines=()."
        )
    x, x_test = (images.reshape(len(images), -1).astype(np.float32) / 255 for images, _ in (train, test))
    return {
        name: float(np.mean(BASELINES[name][1]().fit(x, train[1]).predict(x_test) == test[1]))
        for name in names
    }
