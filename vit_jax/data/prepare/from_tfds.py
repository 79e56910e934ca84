"""Datasets of tfds, listed record by record: prepared ones in TFRecord files, others by their builders.

Neither needs TensorFlow here. Of tfds's builders, those that use more of it than its file functions cannot run.
"""

import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core.example_serializer import ExampleSerializer
from tqdm import tqdm

from vit_jax.data.prepare import tfrecord
from vit_jax.data.prepare.gfile import file_functions
from vit_jax.data.prepare.listing import Listing, Record, shuffled
from vit_jax.data.sources import tfds_builder
from vit_jax.errors import DataError, VitError


def open_builder(source: str, data_dir: str) -> Any:
    """Return the builder of a directory, or of a name in `data_dir` (tfds's default if empty).

    Raises:
      DataError: there is none.
    """
    if os.path.isdir(source):
        return tfds_builder.open_builder("", source)
    try:
        return tfds_builder.open_builder(source, data_dir)
    except DataError as error:
        raise DataError(f"{source!r} is neither a folder nor a dataset of tfds: {error}") from error


def list_prepared(builder: Any, splits: dict[str, str]) -> Listing:
    """Return the records of a dataset prepared as TFRecord files, in their order.

    Raises:
      DataError: it is stored in another way, a split or file is missing, or a file is damaged.
    """
    info = builder.info
    where = f"tfds dataset {info.full_name} in {builder.data_dir}"
    if info.file_format.value != "tfrecord":
        raise DataError(
            f"{where} is stored as {info.file_format.value}; only tfrecord is converted; array_record can be read "
            "directly (data.source=tfds)."
        )
    records: dict[str, list[Record]] = {}
    shards = {}
    for split, stored in (splits or {name: name for name in info.splits}).items():
        if stored not in info.splits:
            raise DataError(f"{where} has no split {stored!r}; it has {', '.join(info.splits)}.")
        records[split], shards[split] = [], info.splits[stored].num_shards
        for path, length in zip(info.splits[stored].filepaths, info.splits[stored].shard_lengths):
            path = Path(os.fspath(path))
            if not path.is_file():
                raise DataError(f"{where} is incomplete: {path.name} is missing; copy or download it.")
            found = [
                Record(f"{path.name}:{index}", -1, os.fspath(path), *at)
                for index, at in enumerate(tfrecord.scan(path))
            ]
            if len(found) != length:
                raise DataError(f"{path} has {len(found)} records instead of {length}; fetch it again.")
            records[split] += found
    return Listing(info.name, str(info.version), records, class_names(info), shards, info)


def list_generated(builder: Any, splits: dict[str, str], staging: Path, inputs: str) -> Listing:
    """Return the records that a builder of tfds yields, which are written to files in `staging` first.

    If a former call wrote them all, they are taken from there. `inputs` is that of the listing.

    Raises:
      DataError: the builder fails, for example since it needs TensorFlow or data that must be fetched by hand.
    """
    index = staging / "staged.json"
    try:
        staged = json.loads(index.read_text()) if index.is_file() else {}
    except ValueError:  # damaged since: all is written anew
        staged = {}
    if staged.get("asked") != splits:
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        try:
            staged = {"asked": splits, "names": _generate(builder, splits, staging)}
        except VitError:
            shutil.rmtree(staging)
            raise
        partial = staging / "staged.partial"
        partial.write_text(json.dumps(staged))
        partial.replace(index)
    records = {}
    for split, names in staged["names"].items():
        path = staging / f"{split}.tfrecord"
        found = [Record(name, -1, os.fspath(path), *at) for name, at in zip(names, tfrecord.scan(path))]
        records[split] = shuffled(found, split)
    info = builder.info
    return Listing(info.name, str(info.version), records, class_names(info), {}, info, inputs)


def _generate(builder: Any, splits: dict[str, str], staging: Path) -> dict[str, list[str]]:
    """Write what a builder yields to a TFRecord file per split; return the names of the records."""
    try:
        with file_functions():
            generators = _generators(builder)
            splits = splits or {name: name for name in generators}
            for made in splits.values():
                if made not in generators:
                    known = ", ".join(generators)
                    raise DataError(f"tfds's {builder.name} has no split {made!r}; it has {known}.")
            features = builder.info.features
            return {
                split: _write(generators[made], features, staging / f"{split}.tfrecord")
                for split, made in splits.items()
            }
    except VitError:
        raise
    # Builders are code of many authors, downloads included, and fail in as many ways.
    except Exception as error:
        missing = f"it needs {error.name}" if isinstance(error, ImportError) else _first_line(error)
        raise DataError(
            f"tfds's builder of {builder.name!r} cannot run here ({missing}); prepare the dataset with tfds where "
            "TensorFlow is installed, then give its folder (with dataset_info.json) to `vit-jax data prepare`."
        ) from error


def _write(generator: Any, features: Any, path: Path) -> list[str]:
    """Write what a generator yields; return the names of the records."""
    serializer, names = ExampleSerializer(features.get_serialized_info()), []
    with path.open("wb") as file:
        for key, example in tqdm(generator, f"reading {path.stem}", unit=" records", disable=None):
            encoded = features.encode_example(_with_encoded_images(example, features))
            record = serializer.get_tf_example(encoded)
            tfrecord.write(file, record.SerializeToString(deterministic=True))
            names.append(key.decode(errors="replace") if isinstance(key, bytes) else str(key))
    return names


def _generators(builder: Any) -> dict[str, Any]:
    """Return the generator of each split, after downloading what it needs into tfds's data_dir."""
    downloads = Path(builder.data_dir_root) / "downloads"
    manager = tfds.download.DownloadManager(
        download_dir=downloads,
        extract_dir=downloads / "extracted",
        manual_dir=downloads / "manual",
        manual_dir_instructions=builder.MANUAL_DOWNLOAD_INSTRUCTIONS,
        url_infos=builder.url_infos,
        dataset_name=builder.name,
    )
    generators = builder._split_generators(manager)
    if isinstance(generators, dict):
        return generators
    # As builders written before tfds 4 say it.
    return {str(one.name): builder._generate_examples(**one.gen_kwargs) for one in generators}


def _with_encoded_images(example: dict[str, Any], features: Any) -> dict[str, Any]:
    """Return an example whose images are files: tfds would encode arrays with TensorFlow."""
    encoded = dict(example)
    for name, feature in features.items():
        image: Any = encoded.get(name)
        is_array = isinstance(feature, tfds.features.Image) and isinstance(image, np.ndarray)
        if is_array and image.dtype == np.uint8:
            buffer = io.BytesIO()
            pixels = image[..., 0] if image.shape[-1] == 1 else image
            # The quality of TensorFlow.
            Image.fromarray(pixels).save(buffer, feature.encoding_format or "png", quality=95)
            encoded[name] = buffer.getvalue()
    return encoded


def class_names(info: Any) -> tuple[str, ...]:
    """Return the classes of a dataset of labelled images, or nothing for another kind."""
    features = dict(info.features)
    if isinstance(features.get("label"), tfds.features.ClassLabel) and isinstance(
        features.get("image"), tfds.features.Image
    ):
        return tuple(features["label"].names)
    return ()


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
