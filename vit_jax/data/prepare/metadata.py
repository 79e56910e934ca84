"""What tfds wants to know of a prepared dataset: its features, classes, splits and shards."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.dataset_info import write_dataset_info_proto
from tensorflow_datasets.core.naming import DEFAULT_FILENAME_TEMPLATE
from tensorflow_datasets.core.proto import dataset_info_generated_pb2

from vit_jax.data.fields.stored import Stored
from vit_jax.data.prepare.listing import Listing

# Protobuf makes the classes when it is imported, where a type checker does not see them.
messages: Any = dataset_info_generated_pb2


def write_metadata(
    directory: Path, listing: Listing, lengths: dict[str, list[int]], sizes: dict[str, int]
) -> None:
    """Write features and classes, and last `dataset_info.json`, by which tfds knows that a dataset is whole.

    Args:
      directory: of the dataset.
      listing: what was prepared.
      lengths: records in each shard of each split.
      sizes: bytes of the records of each split.
    """
    message = messages.DatasetInfo(description=f"Images of {len(listing.class_names)} classes.")
    fields = {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(names=listing.class_names)}
    if listing.stored is not None:
        message.description = f"Records of {', '.join(listing.stored.fields)}."
        fields = _features(listing.stored)
        listing.stored.write(directory)
    features = tfds.features.FeaturesDict({**fields, "file_name": tfds.features.Text()})
    if listing.info is not None:
        message.CopyFrom(listing.info.as_proto)
        features = listing.info.features
        del message.splits[:]
    message.name, message.version, message.file_format = listing.name, listing.version, "array_record"
    for split, shard_lengths in lengths.items():
        message.splits.append(
            messages.SplitInfo(
                name=split,
                shard_lengths=shard_lengths,
                num_bytes=sizes[split],
                filepath_template=DEFAULT_FILENAME_TEMPLATE,
            )
        )
    features.save_config(os.fspath(directory))
    write_dataset_info_proto(message, directory)


def _features(stored: Stored) -> dict[str, Any]:
    """Return what tfds calls the fields of records."""
    count, kinds = len(stored.class_names), tfds.features
    ids = np.uint8 if stored.ignored < 256 else np.uint16
    of_class = kinds.ClassLabel(names=stored.class_names) if count else np.int64
    known = {
        "image": kinds.Image(),
        "label": of_class,
        "labels": kinds.Tensor(shape=(count,), dtype=np.float32),
        "value": kinds.Tensor(shape=(None,), dtype=np.float32),
        "segmentation": kinds.Image(shape=(None, None, 1), dtype=ids, encoding_format="png"),
        "masks": kinds.Sequence(kinds.Image(shape=(None, None, 1), encoding_format="png")),
        "depth": kinds.Image(shape=(None, None, 1), dtype=np.float32, encoding_format="png"),
        "boxes": kinds.Tensor(shape=(None, 4), dtype=np.float32),
        "classes": kinds.Sequence(of_class),
        "crowd": kinds.Sequence(np.bool_),
        "points": kinds.Tensor(shape=(None, 2), dtype=np.float32),
    }
    return {name: known[name] for name in stored.fields}
