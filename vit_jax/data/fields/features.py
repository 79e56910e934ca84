"""What features of a dataset of `tensorflow_datasets` are as the target of an image: a class, several, or values."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from vit_jax.data.labels import checked_names
from vit_jax.errors import DataError, nearest

_KINDS = {
    "label": "a class (ClassLabel)",
    "labels": "several classes (Sequence of ClassLabel)",
    "value": "values (floats of a fixed number)",
}


class Target(NamedTuple):
    """The target that records have.

    Attributes:
      field: `label`, `labels` or `value`.
      features: where it is stored, each with how many numbers; what is inside others is called `outer/inner`.
      names: of the classes or values.
      listed: whether stored numbers are those of the classes that an image has, not one number for each class.
    """

    field: str
    features: tuple[tuple[str, int], ...]
    names: tuple[str, ...]
    listed: bool = False

    def decoded(self, example: Mapping[str, Any]) -> Any:
        """Return the target of a record from the features of a `tf.train.Example`.

        Raises:
          KeyError, ValueError: there is not what there must be.
        """
        found = [_stored(example, name, size) for name, size in self.features]
        if self.field == "label":
            return int(found[0][0])
        if not self.listed:
            return np.concatenate(found).astype(np.float32)
        (numbers,) = found
        if numbers.size and not 0 <= numbers.min() <= numbers.max() < len(self.names):
            raise ValueError(f"its labels are {numbers.tolist()}, of {len(self.names)} classes")
        labels = np.zeros(len(self.names), np.float32)
        labels[numbers] = 1
        return labels


def target_of(
    features: Mapping[str, Any], label: str, labels: Sequence[str], values: Sequence[str], where: str
) -> Target | None:
    """Return the target that a dataset has, or None if nothing in it can be one.

    Args:
      features: of the dataset.
      label: a feature of one or several classes; empty takes what there is, `label` before all others.
      labels: features that are 1 or 0 each; instead of `label`.
      values: features of one or several floats each; instead of `label`.
      where: what messages call the dataset.

    Raises:
      DataError: there are several and none is named, or a named one is not there or of another kind.
    """
    flat = _flat(features)
    if labels:
        for name in labels:
            feature = _named(name, flat, "label_columns", where)
            if _shape(feature) != () or np.dtype(feature.np_dtype).kind not in "biu":
                raise _wrong(name, "label_columns", "1 or 0 (a bool)", where)
        return Target("labels", tuple((name, 1) for name in labels), checked_names(labels, where))
    if values:
        found = [_candidate(name, _named(name, flat, "value_columns", where)) for name in values]
        for name, one in zip(values, found):
            if one is None or one.field != "value":
                raise _wrong(name, "value_columns", _KINDS["value"], where)
        several = [one for one in found if one is not None]
        names = checked_names([name for one in several for name in one.names], where)
        return Target("value", tuple(feature for one in several for feature in one.features), names)
    if label:
        one = _candidate(label, _named(label, flat, "label_column", where))
        if one is None or one.field == "value":
            raise _wrong(label, "label_column", f"{_KINDS['label']} or {_KINDS['labels']}", where)
        return one
    candidates = {name: one for name in flat if (one := _candidate(name, flat[name])) is not None}
    if "label" in candidates and candidates["label"].field == "label":
        return candidates["label"]
    if len(candidates) > 1:
        said = ", ".join(f"{name!r} ({one.field})" for name, one in sorted(candidates.items()))
        raise DataError(
            f"{where} has several possible targets, {said}; choose among them: data.label_column for classes, "
            "data.value_columns for values."
        )
    return next(iter(candidates.values()), None)


def _candidate(name: str, feature: Any) -> Target | None:
    """Return a feature as a target, if it is one by its kind."""
    kinds = tfds.features
    if isinstance(feature, kinds.ClassLabel):
        return None if feature.num_classes is None else Target("label", ((name, 1),), tuple(feature.names))
    inside: Any = feature.feature if isinstance(feature, kinds.Sequence) else None
    if isinstance(inside, kinds.ClassLabel) and inside.num_classes is not None:
        return Target("labels", ((name, -1),), tuple(inside.names), listed=True)
    shape, dtype = _shape(feature), feature.np_dtype
    if shape is None or None in shape or len(shape) > 1:
        return None
    if np.dtype(dtype).kind != "f":  # pyright: ignore[reportCallIssue, reportArgumentType], plain where the shape is
        return None
    names = (name,) if not shape else tuple(f"{name}_{index}" for index in range(shape[0]))
    return Target("value", ((name, len(names)),), names) if names else None


def _shape(feature: Any) -> tuple[Any, ...] | None:
    """Return the shape of plain numbers; boxes, texts and other kinds of numbers have a meaning of their own."""
    kinds, plain = tfds.features, feature
    if type(feature) is kinds.Sequence:
        plain = feature.feature
    return tuple(feature.shape) if type(plain) in (kinds.Tensor, kinds.Scalar) else None


def _flat(features: Mapping[str, Any], outer: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, feature in features.items():
        within = isinstance(feature, tfds.features.FeaturesDict)
        flat |= _flat(dict(feature), f"{outer}{name}/") if within else {outer + name: feature}
    return flat


def _named(name: str, features: Mapping[str, Any], key: str, where: str) -> Any:
    if name not in features:
        raise DataError(
            f"data.{key} has {name!r}, but {where} has the features {', '.join(features)}.{nearest(name, features)}"
        )
    return features[name]


def _wrong(name: str, key: str, needed: str, where: str) -> DataError:
    return DataError(f"data.{key} has {name!r}, which in {where} is not {needed}; name another feature.")


def _stored(example: Mapping[str, Any], name: str, size: int) -> np.ndarray:
    """Return the numbers of a feature; `size` -1 is any number of them."""
    if name not in example:
        raise KeyError(name)
    kind = example[name].WhichOneof("kind")
    if kind not in ("int64_list", "float_list"):
        raise ValueError(f"{name} is not stored as numbers")
    found = np.array(getattr(example[name], kind).value, np.int64 if kind == "int64_list" else np.float32)
    if size not in (-1, len(found)):
        raise ValueError(f"{name} has {len(found)} numbers, not {size}")
    return found
