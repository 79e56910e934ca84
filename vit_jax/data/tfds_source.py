"""Prepared TensorFlow Datasets, read without TensorFlow."""

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from google.protobuf.message import DecodeError
from tensorflow_datasets.proto import tf_example_pb2

from vit_jax.data.base import Example, Source
from vit_jax.data.tfds_builder import open_builder, quiet
from vit_jax.errors import DataError, nearest

# What has random access; TFRecord files can only be read in sequence, by TensorFlow.
_FORMAT = "array_record"
# Protobuf makes the classes when it is imported, where a type checker does not see them.
_examples: Any = tf_example_pb2


class TfdsSource(Source):
    """A split of a dataset prepared by `tensorflow_datasets` as ArrayRecord.

    Images stay encoded, exactly the bytes that were stored; `decode` is for the transforms. Labels are known without
    reading the images if the dataset was made by `vit-jax data prepare`, which stores them beside the records too.

    Args:
      name: as in `tfds.builder`, for example `cifar10` or `imagenet2012:5.1.0`; empty when `path` is the
        directory of one version of a dataset.
      split: as in tfds, slices included: `train`, `validation[:10%]`.
      path: tfds's `data_dir`, or the directory of the dataset when there is no name; empty: tfds's default.

    Raises:
      DataError: not prepared, prepared in a format that needs TensorFlow, or without `image` and `label`.
    """

    def __init__(self, name: str, split: str, path: str = ""):
        builder = _builder(name, path)
        info = builder.info
        self._name = f"{info.full_name} {split}"
        where = f"tfds dataset {info.full_name} in {builder.data_dir}"
        if not info.splits:
            raise DataError(
                f"{where} is not prepared; set data.path to tfds's data_dir, or prepare it: `vit-jax data prepare "
                f"{name or info.name} --output DIR`."
            )
        formats = sorted(file_format.value for file_format in info.available_file_formats())
        if _FORMAT not in formats:
            raise DataError(
                f"{where} is stored as {', '.join(formats)}, which has no random access; convert it: `vit-jax data "
                f"prepare {builder.data_dir} --output DIR`."
            )
        features = dict(info.features)
        if not isinstance(features.get("label"), tfds.features.ClassLabel) or not isinstance(
            features.get("image"), tfds.features.Image
        ):
            raise DataError(
                f"{where} has the features {', '.join(features)}; it needs an `image` and a class `label`."
            )
        for part in split.split("+"):
            name = part.strip().partition("[")[0]
            if name not in info.splits:
                hint = nearest(name, info.splits)
                raise DataError(f"{where} has no split {name!r}; it has {', '.join(info.splits)}.{hint}")
        self.class_names = tuple(features["label"].names)
        try:
            if not info.splits[split].num_examples:
                raise DataError(f"{where} has no records in split {split!r}; choose another.")
            self.labels = _labels(builder, split)
            # The records as they are stored: what tfds makes of them takes several times as long.
            with quiet():
                self._records = builder.as_data_source(split).data_source
        except DataError:
            raise
        # tfds, numpy and ArrayRecord raise anything on damaged files.
        except Exception as error:
            raise DataError(f"{where} cannot be read as split {split!r}: {_first_line(error)}") from error

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Example:
        record = f"record {index} of {self._name}"
        try:
            features = _examples.Example.FromString(self._records[index]).features.feature
            if "file_name" in features:
                name = features["file_name"].bytes_list.value[0]
                record = f"{record} ({name.decode(errors='replace')})"
            image, label = features["image"].bytes_list.value[0], features["label"].int64_list.value[0]
        # Bytes that are not a record; bytes that are not an example; an example that lacks something.
        except (RuntimeError, DecodeError, IndexError) as error:
            raise DataError(
                f"{record} is damaged ({_first_line(error)}); prepare the dataset again."
            ) from error
        return {"image": image, "label": label, "record": record}


def _builder(name: str, path: str) -> Any:
    if not name and not path:
        raise DataError(
            "data.source 'tfds' needs data.name (for example 'cifar10') or data.path, the directory of a "
            "dataset."
        )
    return open_builder(name, path)


def _labels(builder: Any, split: str) -> np.ndarray | None:
    """Return the labels of a split, if they were stored beside its records."""
    parts = []
    for part in tfds.core.ReadInstruction.from_spec(split).to_absolute(builder.info.splits):
        file = Path(builder.data_dir) / f"{builder.info.name}-{part.splitname}.labels.npy"
        if not file.is_file():
            return None
        # Mapped: so its size is compared with what its header says before there is memory for it.
        labels = np.load(file, mmap_mode="r", allow_pickle=False)
        if (
            labels.shape != (builder.info.splits[part.splitname].num_examples,)
            or labels.dtype.kind not in "iu"
        ):
            raise ValueError(
                f"{file.name} has shape {labels.shape} of {labels.dtype}, not one whole number for each record"
            )
        parts.append(labels[part.from_ : part.to].astype(np.int32))
    return np.concatenate(parts)


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
