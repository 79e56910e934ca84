"""One shard written whole or not at all; what worker processes do."""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from array_record.python.array_record_module import ArrayRecordWriter
from google.protobuf.message import DecodeError
from tensorflow_datasets.proto import tf_example_pb2, tf_feature_pb2

from vit_jax.data.base import Source
from vit_jax.data.fields.stored import Stored
from vit_jax.data.fields.table import PLANE, check_plane, read_fields
from vit_jax.data.images.decode import MAX_BYTES, MAX_PIXELS, decode
from vit_jax.data.prepare import tfrecord
from vit_jax.data.prepare.images import read_header, shrunk
from vit_jax.data.prepare.listing import Record
from vit_jax.data.sources.arrays import label_message
from vit_jax.errors import DataError, ResourceError
from vit_jax.paths import open_file

# Protobuf makes the classes when it is imported, where a type checker does not see them.
_examples: Any = tf_example_pb2
_features: Any = tf_feature_pb2
_LISTS = {
    "bytes_list": _features.BytesList,
    "int64_list": _features.Int64List,
    "float_list": _features.FloatList,
}

# Each record can be read alone. Images are compressed already: brotli would take four times as long to write and
# make them 0.4 % smaller (measured).
WRITER_OPTIONS = "group_size:1,uncompressed"
# Records are read in the order of their file, which disks like, and held until they are written in their own.
_WINDOW_BYTES = 128 << 20
# How many records pass between two reports.
_REPORT_EVERY = 32


@dataclass(frozen=True)
class Options:
    """What is done to records on their way.

    Attributes:
      serialized: records are examples and not images.
      num_classes: labels must be below; 0 for examples that need no label and image.
      short_side: larger images are shrunk to it; 0 leaves all as they are.
      quality: of the JPEG files of shrunk images.
      bad: `error` or `skip`.
      max_pixels: largest area accepted of an image.
    """

    serialized: bool
    num_classes: int
    short_side: int
    quality: int
    bad: str
    max_pixels: int = MAX_PIXELS


@dataclass(frozen=True)
class Shard:
    """A file to write.

    Attributes:
      path: its name when it is whole.
      outcome: the file that tells what is in it; there before `path` is.
      records: what to write, in order.
      source: what reads them; None if they are slices of files.
      stored: what they have, if a source reads them.
    """

    path: Path
    outcome: Path
    records: list[Record]
    source: Source | None = None
    stored: Stored | None = None


def write_shard(shard: Shard, options: Options, report: Callable[[int], None]) -> None:
    """Write a shard; under its name it is whole, with its outcome beside it.

    Args:
      shard: what to write where.
      options: what to do to records.
      report: called with the number of records done since the last call; may raise to stop.

    Raises:
      DataError: a record is bad and `options.bad` is `error`.
      ResourceError: the shard cannot be written.
    """
    partial = shard.path.with_name(f"{shard.path.name}.partial")
    labels, bad, size = [], [], 0
    beside: dict[str, list[list[float]]] = {}
    try:
        writer = ArrayRecordWriter(os.fspath(partial), WRITER_OPTIONS)
        try:
            slices = (
                _in_order(shard.records) if shard.source is None else ((r, b"", "") for r in shard.records)
            )
            for number, (record, data, reason) in enumerate(slices):
                try:
                    if data is None:
                        raise DataError(reason)
                    if shard.source is not None and shard.stored is not None:
                        example, label, known = _of_source(shard.source, shard.stored, record, options)
                    else:
                        (example, label), known = _example(record, data, options), {}
                except DataError as error:
                    if options.bad == "error":
                        raise DataError(
                            f"{_where(record)}: {error} Repair or remove it, or leave such files out with --bad skip."
                        ) from error
                    bad.append([_where(record), str(error)])
                else:
                    writer.write(example)
                    labels.append(label)
                    for name, row in known.items():
                        beside.setdefault(name, []).append(row)
                    size += len(example)
                if number % _REPORT_EVERY == 0:
                    report(min(_REPORT_EVERY, len(shard.records) - number))
        finally:
            writer.close()
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        outcome = {"bytes": size, "labels": labels, "beside": beside, "bad": bad}
        unfinished = shard.outcome.with_suffix(".partial")
        unfinished.write_text(json.dumps(outcome))
        unfinished.replace(shard.outcome)
        partial.replace(shard.path)
    except (OSError, RuntimeError) as error:  # RuntimeError is what ArrayRecord raises for a full disk
        raise ResourceError(
            f"{shard.path} cannot be written: {error}; free space and run the command again."
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def _in_order(records: list[Record]) -> Iterator[tuple[Record, bytes | None, str]]:
    """Yield each record with its bytes, or None and the reason why they cannot be read."""
    window: list[Record] = []
    size = 0
    for record in records:
        window.append(record)
        size += record.size
        if size >= _WINDOW_BYTES:
            yield from _read(window)
            window, size = [], 0
    yield from _read(window)


def _read(window: list[Record]) -> Iterator[tuple[Record, bytes | None, str]]:
    contents: dict[int, tuple[bytes | None, str]] = {}
    file: BinaryIO | None = None
    name = ""
    try:
        for index in sorted(range(len(window)), key=lambda i: (window[i].file, window[i].offset)):
            record = window[index]
            try:
                if file is None or name != record.file:
                    if file:
                        file.close()
                    file, name = None, record.file
                    file = open_file(name)  # kept while records of the same file follow
                contents[index] = _bytes(file, record), ""
            except DataError as error:
                contents[index] = None, str(error)
            except OSError as error:
                contents[index] = None, f"cannot be read: {error.strerror or error}."
    finally:
        if file:
            file.close()
    for index, record in enumerate(window):
        yield record, *contents.pop(index)


def _bytes(file: BinaryIO, record: Record) -> bytes:
    if record.size > MAX_BYTES:
        raise DataError(f"it has {record.size} bytes, more than any image that can be read.")
    if record.label < 0:
        return tfrecord.read(file, record.offset, record.size)
    file.seek(record.offset)
    data = file.read(record.size)
    if len(data) != record.size:
        raise DataError("the file has shrunk since it was listed.")
    return data


def _example(record: Record, data: bytes, options: Options) -> tuple[bytes, int]:
    """Return the serialized example of a record, checked, and its label (-1 if it need not have one)."""
    if not options.serialized:
        data = _checked(data, record.name, options)
        return serialized(data, record.label, record.name), record.label
    if not options.num_classes:
        return data, -1
    try:
        example = _examples.Example.FromString(data)
        image = example.features.feature["image"].bytes_list.value[0]
        label = example.features.feature["label"].int64_list.value[0]
    except (IndexError, DecodeError) as error:
        raise DataError("the record is not an example with an image and a label.") from error
    if not -1 <= label < options.num_classes:  # tfds gives images without a known label -1
        raise DataError(f"the label is {label}; it must be below {options.num_classes}.")
    smaller = _checked(image, "", options)
    if smaller is image:
        return data, label
    example.features.feature["image"].bytes_list.value[0] = smaller
    return example.SerializeToString(deterministic=True), label


def _of_source(
    source: Source, stored: Stored, record: Record, options: Options
) -> tuple[bytes, int, dict[str, list[float]]]:
    """Return the serialized example of a record of a source, checked, its label (-1 if it has none) and rows."""
    example = read_fields(source[record.offset], source)
    label = int(example.get("label", -1))
    if "label" in source.fields and not 0 <= label < source.num_classes:
        raise DataError(label_message(example["record"], label, source.num_classes))
    if isinstance(example["image"], bytes):
        read_header(example["image"], record.name, options.max_pixels)
        if not PLANE.isdisjoint(source.fields):
            check_plane(example, decode(example["image"], max_pixels=options.max_pixels).shape[:2])
    features = {
        name: _features.Feature(**{kind: _LISTS[kind](value=values)})
        for name, (kind, values) in stored.encoded(example).items()
    }
    rows = {name: example[name].tolist() for name in ("labels", "value") if name in source.fields}
    return _serialized(features, record.name), label, rows


def _checked(data: bytes, name: str, options: Options) -> bytes:
    header = read_header(data, name, options.max_pixels)
    if not options.short_side:
        return data
    return shrunk(data, header, options.short_side, options.quality, options.max_pixels)


def serialized(image: bytes, label: int, file_name: str) -> bytes:
    """Return a labelled image as tfds stores it, a `tf.train.Example`."""
    features = {
        "image": _features.Feature(bytes_list=_features.BytesList(value=[image])),
        "label": _features.Feature(int64_list=_features.Int64List(value=[label])),
    }
    return _serialized(features, file_name)


def _serialized(features: dict[str, Any], file_name: str) -> bytes:
    name = [file_name.encode(errors="backslashreplace")]
    features = {**features, "file_name": _features.Feature(bytes_list=_features.BytesList(value=name))}
    # Otherwise the entries of a map come in any order, differently in each process.
    return _examples.Example(features=_features.Features(feature=features)).SerializeToString(
        deterministic=True
    )


def _where(record: Record) -> str:
    return record.file if record.file.endswith(record.name) else f"{record.name} in {record.file}"


def outcome(shard: Shard) -> dict[str, Any] | None:
    """Return what is in a finished shard, or None if it is not finished."""
    if not shard.path.is_file() or not shard.outcome.is_file():
        return None
    try:
        return json.loads(shard.outcome.read_text())
    except ValueError:  # damaged since: the shard is written anew
        return None
