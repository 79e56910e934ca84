"""Datasets of Hugging Face's library `datasets`, which is needed for them alone."""

import importlib.util
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from vit_jax.data.base import Example, Source
from vit_jax.data.fields import several
from vit_jax.data.fields.targeted import Targeted
from vit_jax.data.fingerprint import digest, sample_digest
from vit_jax.data.labels import by_name, checked_names
from vit_jax.data.sources.sequence import as_image
from vit_jax.data.sources.table import DEFAULT, Columns, same_split
from vit_jax.data.split import parse_split
from vit_jax.errors import ConfigError, DataError, nearest
from vit_jax.paths import expanded

# What `save_to_disk` writes for a dataset, and for one with splits.
_SAVED = ("state.json", "dataset_dict.json")


class DatasetSource(Source):
    """A dataset in memory or on disk; images stay encoded as they are stored, and are decoded here as all others.

    Args:
      dataset: a `datasets.Dataset`, of one split.
      columns: the names of the columns of images (`Image`, paths, bytes or arrays of uint8) and labels (`ClassLabel`,
        text or whole numbers, which are names too); empty ones are `image` and `label`.
      class_names: where labels are no `ClassLabel`; by default those there are, sorted.
      name: what messages call it.
      alone: images alone, without labels.

    Raises:
      DataError: it is no such dataset, or a column is missing or not of that kind.
    """

    def __init__(
        self,
        dataset: Any,
        columns: Columns = DEFAULT,
        class_names: Iterable[Any] | None = None,
        name: str = "the dataset",
        *,
        alone: bool = False,
    ):
        if isinstance(dataset, Mapping):
            raise DataError(
                f"{name} has the splits {', '.join(dataset)}; give one of them: dataset['train']."
            )
        if not hasattr(dataset, "features") or not hasattr(dataset, "__len__"):
            raise DataError(
                f"{name} is a {type(dataset).__name__}, which has no random access; load it without streaming."
            )
        if dataset.format["type"] == "custom":
            raise DataError(
                f"{name} has its own transform, but transforms are set in data.train_transforms; give the dataset "
                "after reset_format()."
            )
        self._name, self._image, self._label = name, columns.image or "image", columns.label or "label"
        for column in (self._image, *columns.targets):
            if column not in dataset.features:
                raise DataError(
                    f"{name} has no column {column!r}, it has {', '.join(dataset.features)}; name its columns with "
                    "data.image_column and data.label_column, label_columns or value_columns."
                    f"{nearest(column, dataset.features)}"
                )
        if not len(dataset):
            raise DataError(f"{name} is empty; give at least one image with its label.")
        dataset = dataset.with_format(None).select_columns([self._image, *([] if alone else [self._label])])
        if alone:
            self.fields = ("image",)
        else:
            self.labels, self.class_names, self.named = self._numbered(dataset, class_names)
        feature = dataset.features[self._image]
        if type(feature).__name__ == "Image":
            dataset = dataset.cast_column(self._image, type(feature)(decode=False))
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Example:
        record, image = self.name_of(index), self._dataset[int(index)][self._image]
        if isinstance(image, Mapping):
            image = image["path"] if image["bytes"] is None else image["bytes"]
        elif isinstance(image, list):
            image = _array(image, record)
        label = {} if self.labels is None else {"label": int(self.labels[index])}
        return {"image": as_image(image, record), **label, "record": record}

    def name_of(self, index: int) -> str:
        """Return the number of a record."""
        return f"record {index} of {self._name}"

    def fingerprint(self) -> str:
        """Return a checksum of the labels and of some of the images.

        The library's own counts when files were written.
        """
        return digest(self.labels, sample_digest(self))

    def _numbered(self, dataset: Any, class_names: Iterable[Any] | None) -> Any:
        feature, labels = dataset.features[self._label], dataset.select_columns([self._label])[:][self._label]
        known = getattr(feature, "names", None)
        if known is None:
            names = None if class_names is None else checked_names(class_names, self._name)
            return by_name(labels, names, self._name)
        names = checked_names(known, self._name)
        for index, label in enumerate(labels):
            if label is None or not 0 <= label < len(names):
                wrong = "no label" if label in (None, -1) else f"label {label}"
                raise DataError(
                    f"record {index} of {self._name} has {wrong}; labels must be from 0 to {len(names) - 1} "
                    f"({len(names)} classes)."
                )
        return np.asarray(labels, np.int32), names, names != tuple(map(str, range(len(names))))


def as_dataset(
    dataset: Any,
    columns: Columns = DEFAULT,
    class_names: Iterable[Any] | None = None,
    name: str = "the dataset",
) -> Source:
    """Return a dataset as a source, with one label, several, or values an image.

    Args:
      dataset, class_names, name: see `DatasetSource`.
      columns: one of labels may hold lists of them (of `ClassLabel`, text or whole numbers), or texts with a separator;
        those of values numbers or lists of as many.

    Raises:
      DataError: see `DatasetSource` and `data.fields.several`.
    """
    label = columns.label or "label"
    feature = getattr(dataset, "features", {}).get(label)
    # Lists are features of their own, or a list of one feature.
    listed = bool(columns.separator) or isinstance(feature, list) or hasattr(feature, "feature")
    if not (columns.labels or columns.values or listed):
        return DatasetSource(dataset, columns, class_names, name)
    images = DatasetSource(dataset, columns, name=name, alone=True)
    cells = dataset.with_format(None).select_columns(list(columns.targets))[:]
    if columns.values:
        return Targeted(images, "value", _values(cells, columns.values, images, name), name)
    if columns.labels:
        rows = [_cells(several.hot_cell, cells[column], column, images) for column in columns.labels]
        return Targeted(images, "labels", several.hot(np.array(rows).T, columns.labels, name), name)
    inside = feature[0] if isinstance(feature, list) else getattr(feature, "feature", None)
    lists = cells[label]
    if columns.separator:
        lists = _cells(lambda cell: several.split_text(cell, columns.separator), lists, label, images)
    found = several.listed(lists, getattr(inside, "names", None) or class_names, name, images.name_of)
    return Targeted(images, "labels", found, name)


def _cells(read: Callable[[Any], Any], cells: Iterable[Any], column: str, images: Source) -> list[Any]:
    """Return what cells of a column mean; one that means nothing is told with its record."""
    found = []
    for index, cell in enumerate(cells):
        try:
            found.append(read(cell))
        except DataError as error:
            raise DataError(f"{images.name_of(index)} has in column {column!r} {error}") from error
    return found


def _values(cells: Mapping[str, Any], columns: Iterable[str], images: Source, name: str) -> several.Targets:
    names, parts = [], []
    for column in columns:
        rows = [cell if isinstance(cell, list) else [cell] for cell in cells[column]]
        size = len(rows[0])
        if odd := next((index for index, row in enumerate(rows) if len(row) != size), 0):
            raise DataError(
                f"{images.name_of(odd)} has {len(rows[odd])} values in column {column!r}, but record 0 has "
                f"{size}; give each record equally many."
            )
        names += [f"{column}_{i}" for i in range(size)] if isinstance(cells[column][0], list) else [column]
        parts += [_cells(several.number_cell, part, column, images) for part in zip(*rows)]
    return several.values(np.array(parts).T, names, name)


def open_section(section: Any, split: str, shape: Any) -> Source:
    """Return what `data.source='huggingface'` means."""
    columns = Columns.of(section)
    if columns.split:
        raise ConfigError(
            f"data.split_column is {columns.split!r}, but Hugging Face datasets have their own splits; leave it out."
        )
    reference = parse_split(section.train_split)[0].name
    if section.name and section.path:
        raise ConfigError(
            f"data.name is {section.name!r} and data.path {section.path!r}; give either the name of a dataset on "
            "the hub, or the folder of a saved one."
        )
    return open_saved(section.path, split, reference, columns, section.name)


def open_saved(path: str, split: str, reference: str, columns: Columns = DEFAULT, name: str = "") -> Source:
    """Return a split of a dataset.

    Args:
      path: a folder that `save_to_disk` wrote.
      split: which.
      reference: the split whose classes count where labels are no `ClassLabel`, if it is there.
      columns: see `as_dataset`.
      name: of a dataset of the hub, `OWNER/NAME` or `OWNER/NAME:CONFIG`, where there is no path.

    Raises:
      ConfigError: the library is not installed.
      DataError: there is no such dataset or split.
    """
    splits = saved_splits(path, name)
    where = path or name
    found = same_split(split, splits)
    if found is None:
        raise DataError(
            f"{where} has no split {split!r}; it has {', '.join(splits)}: set data.train_split and data.eval_split."
            f"{nearest(split, splits)}"
        )
    classes = same_split(reference, splits)
    names = None
    if classes is not None and classes != found:
        names = as_dataset(splits[classes], columns, name=f"split {classes!r} of {where}").class_names
    return as_dataset(splits[found], columns, names, f"split {found!r} of {where}")


def saved_splits(path: str, name: str = "") -> dict[str, Any]:
    """Return the splits of a saved dataset, or of one of the hub; one without is `train`.

    Raises:
      VitError: see `open_saved`.
    """
    if importlib.util.find_spec("datasets") is None:
        raise ConfigError(
            "data.source 'huggingface' needs the library datasets, which is not installed; install it with "
            "pip install datasets."
        )
    import datasets

    where = expanded(path) if path else name
    if path and not is_saved(path):
        raise DataError(
            f"data.path is {str(path)!r}, which is not a folder written by save_to_disk; load and save the "
            "dataset first."
        )
    if not path and int(datasets.__version__.partition(".")[0]) < 4:
        raise ConfigError(
            f"data.name is {name!r}, but datasets {datasets.__version__} would run code from the hub; install "
            "datasets 4 or later, or give data.path, a folder that save_to_disk wrote."
        )
    try:
        if path:
            loaded: Any = datasets.load_from_disk(where)
        else:
            repository, _, configuration = name.partition(":")
            loaded = datasets.load_dataset(repository, configuration or None)
    # What damaged files, and a hub that is not reached, make the library raise is anything.
    except Exception as error:
        why = str(error).strip().partition("\n")[0] or type(error).__name__
        raise DataError(f"dataset {where!r} cannot be opened: {why}") from error
    return dict(loaded) if isinstance(loaded, Mapping) else {str(loaded.split or "train"): loaded}


def is_saved(path: str) -> bool:
    """Return whether a folder holds a dataset that `save_to_disk` wrote."""
    return any(os.path.isfile(os.path.join(expanded(path), name)) for name in _SAVED)


def _array(image: list[Any], record: str) -> np.ndarray:
    """Return pixels that are stored as nested lists."""
    try:
        pixels = np.asarray(image)
    except ValueError as error:
        raise DataError(f"the image of {record} is not an array: {error}.") from error
    whole = pixels.dtype.kind in "iu" and pixels.size and pixels.min() >= 0 and pixels.max() <= 255
    return pixels.astype(np.uint8) if whole else pixels
