"""Prepared TensorFlow Datasets, read without TensorFlow."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from google.protobuf.message import DecodeError
from tensorflow_datasets.proto import tf_example_pb2

from vit_jax.data.base import Example, Source
from vit_jax.data.fields.features import Target, target_of
from vit_jax.data.fields.several import UNKNOWN
from vit_jax.data.fields.stored import BESIDE, Stored, objects_of
from vit_jax.data.fingerprint import digest, file_sizes
from vit_jax.data.sources.table import DEFAULT, Columns
from vit_jax.data.sources.tfds_builder import open_builder, quiet
from vit_jax.data.split import check_disjoint
from vit_jax.errors import DataError, nearest

# What has random access; TFRecord files can only be read in sequence, by TensorFlow.
_FORMAT = "array_record"
# Protobuf makes the classes when it is imported, where a type checker does not see them.
_examples: Any = tf_example_pb2


class TfdsSource(Source):
    """A split of a dataset prepared by `tensorflow_datasets` as ArrayRecord.

    Images stay encoded, exactly the bytes that were stored; `decode` is for the transforms. Labels are known without
    reading the images if the dataset was made by `vit-jax data prepare`, which stores them beside the records too. What
    it has prepared with further fields has them; a dataset without labels may have `objects`, as COCO.

    Args:
      name: as in `tfds.builder`, for example `cifar10` or `imagenet2012:5.1.0`; empty when `path` is the
        directory of one version of a dataset.
      split: as in tfds, slices included: `train`, `validation[:10%]`.
      path: tfds's `data_dir`, or the directory of the dataset when there is no name; empty: tfds's default.
      columns: the features that are the target, where there are several, see `data.fields.features`.

    Raises:
      DataError: not prepared, prepared in a format that needs TensorFlow, without `image` or a target, or with several
        targets of which none is named.
    """

    def __init__(self, name: str, split: str, path: str = "", columns: Columns = DEFAULT):
        builder = _builder(name, path)
        info = builder.info
        self._name = f"{info.full_name} {split}"
        self._folder = os.fspath(builder.data_dir)
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
        self._stored, self._objects = Stored.read(builder.data_dir), ()
        self._target: Target | None = None
        features, chosen = dict(info.features), (columns.label, columns.labels, columns.values)
        if self._stored is not None:
            if any(chosen):
                raise DataError(
                    f"{where} defines its own fields ({', '.join(self._stored.fields)}); leave "
                    "data.label_column, label_columns and value_columns out."
                )
            self.fields, self.class_names, self.named = self._stored
        elif not isinstance(features.get("image"), tfds.features.Image):
            raise DataError(
                f"{where} has the features {', '.join(features)}; it needs an `image` and a class `label`."
            )
        elif "objects" not in features or "label" in features or any(chosen):
            self._target = target_of(features, *chosen, where)
        if self._target is not None:
            self.fields, self.class_names = ("image", self._target.field), self._target.names
        elif self._stored is None:
            self._objects = _objects(features, where)
            self.fields = ("image", "boxes", "classes", *(["crowd"] if "is_crowd" in self._objects else []))
            self.class_names = tuple(features["objects"].feature["label"].names)
        for part in split.split("+"):
            name = part.strip().partition("[")[0]
            if name not in info.splits:
                hint = nearest(name, info.splits)
                raise DataError(f"{where} has no split {name!r}; it has {', '.join(info.splits)}.{hint}")
        _check_parts(split, info.splits)
        try:
            if not info.splits[split].num_examples:
                raise DataError(f"{where} has no records in split {split!r}; choose another.")
            beside = [] if self._chosen else [field for field in BESIDE if field in self.fields]
            self._known = {field: _beside(builder, split, field, len(self.class_names)) for field in beside}
            self.labels = self._known.get("label")
            self._shards = [
                (part.basename(), part.skip, part.take, part.examples_in_shard)
                for part in info.splits[split].file_instructions
            ]
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
            if self._stored is not None:
                return {**self._stored.decoded(features), "record": record}
            if self._objects:
                return {**objects_of(features, "is_crowd" in self._objects), "record": record}
            assert self._target is not None
            image, target = features["image"].bytes_list.value[0], self._target.decoded(features)
        except DataError as error:
            raise DataError(f"{record}: {error}") from error
        # Bytes that are not a record; bytes that are not an example; an example that lacks something.
        except (RuntimeError, DecodeError, IndexError, KeyError, ValueError) as error:
            raise DataError(
                f"{record} is damaged ({_first_line(error)}); prepare the dataset again."
            ) from error
        return {"image": image, self._target.field: target, "record": record}

    def known(self, field: str) -> np.ndarray | None:
        """Return a target of all records, if it was stored beside them."""
        return self._known.get(field)

    def fingerprint(self) -> str:
        """Return a checksum of names and sizes of the shards, of which records of them, and of the labels."""
        sizes = file_sizes(self._folder, [name for name, *_ in self._shards])
        rows = [rows for field, rows in self._known.items() if field != "label"]
        return digest(self._shards, sizes, self.labels, *rows, *self._chosen)

    @property
    def _chosen(self) -> tuple[Any, ...]:
        """What is read of the records, where that is not the feature `label`, whose values may lie beside them."""
        target = self._target
        if target is None or target.features == (("label", 1),):
            return ()
        return target.field, target.features


def open_section(section: Any, split: str, shape: Any) -> TfdsSource:
    """Return what `data.source='tfds'` means; `split` may be parts and sums."""
    return TfdsSource(section.name, split, section.path, Columns.of(section))


def _objects(features: dict[str, Any], where: str) -> tuple[str, ...]:
    """Return what the objects of a dataset have, as those of COCO in tfds; it has no label.

    Raises:
      DataError: there are none.
    """
    inside: Any = getattr(features.get("objects"), "feature", None)
    inside, kinds = (dict(inside) if isinstance(inside, tfds.features.FeaturesDict) else {}), tfds.features
    boxes, classes = inside.get("bbox"), inside.get("label")
    if not isinstance(boxes, kinds.BBoxFeature) or not isinstance(classes, kinds.ClassLabel):
        raise DataError(
            f"{where} has the features {', '.join(features)}; it needs an `image` and a class `label`, several "
            "labels (Sequence of ClassLabel), values (floats), or `objects` with `bbox` and `label`."
        )
    return tuple(inside)


def _check_parts(split: str, splits: Any) -> None:
    """Raise `DataError` if two parts of a split have records in common."""
    try:
        parts = tfds.core.ReadInstruction.from_spec(split).to_absolute(splits)
    except (ValueError, AssertionError, KeyError):  # told with what else is wrong
        return
    counts = {part.splitname: splits[part.splitname].num_examples for part in parts}
    spans = [(part.splitname, part.from_ or 0, part.to) for part in parts]
    check_disjoint(split, [(name, first, counts[name] if to is None else to) for name, first, to in spans])


def _builder(name: str, path: str) -> Any:
    if not name and not path:
        raise DataError(
            "data.source 'tfds' needs data.name (for example 'cifar10') or data.path, the directory of a "
            "dataset."
        )
    return open_builder(name, path)


def _beside(builder: Any, split: str, field: str, names: int) -> np.ndarray | None:
    """Return the labels or rows of `names` numbers of a split, if they were stored beside its records."""
    parts = []
    for part in tfds.core.ReadInstruction.from_spec(split).to_absolute(builder.info.splits):
        file = Path(builder.data_dir) / f"{builder.info.name}-{part.splitname}.{BESIDE[field]}.npy"
        if not file.is_file():
            return None
        # Mapped: so its size is compared with what its header says before there is memory for it.
        found = np.load(file, mmap_mode="r", allow_pickle=False)
        count = builder.info.splits[part.splitname].num_examples
        shape, kinds, each = {
            "label": ((count,), "iu", "one whole number"),
            "labels": ((count, names), "f", f"{names} numbers"),
            "value": ((count, *found.shape[1:2]), "f", "values"),
        }[field]
        if found.shape != shape or found.dtype.kind not in kinds:
            raise ValueError(f"{file.name} has shape {found.shape} of {found.dtype}, not {each} per record")
        parts.append(found[part.from_ : part.to])
    whole = np.concatenate(parts)
    if field == "labels":
        return np.where(np.isnan(whole), UNKNOWN, whole).astype(np.int8)
    return whole.astype(np.int32 if field == "label" else np.float32)


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
