"""Prepares a dataset: lists it, writes its shards in parallel, and says last what there is."""

import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import filelock
import numpy as np

from vit_jax.data.fields.stored import BESIDE
from vit_jax.data.images.decode import MAX_MEGAPIXELS, check_megapixels
from vit_jax.data.prepare.check import is_of_kind, open_all
from vit_jax.data.prepare.folders import is_imagenet, list_folder, list_imagenet, list_sources, list_table
from vit_jax.data.prepare.listing import Listing, cut, shard_count
from vit_jax.data.prepare.parallel import cpu_count, write_shards
from vit_jax.data.prepare.shards import Options, Shard, outcome
from vit_jax.data.sources.masks import mask_splits
from vit_jax.data.sources.table import DEFAULT, Columns, is_table
from vit_jax.errors import ConfigError, DataError, ResourceError, choose, is_printable
from vit_jax.paths import check_output, expanded

QUALITY = 90
_PLAN = "prepare.json"
_UNFINISHED = "unfinished"
_BYTES_PER_WORKER = 64 << 20


@dataclass(frozen=True)
class Prepared:
    """A finished dataset.

    Attributes:
      directory: where it lies; `data.path` of a configuration with `data.source=tfds`.
      counts: records of each split.
      bytes: of all records.
      bad: where and why, of each record that was left out.
      fresh: False if it was there already.
      left_out: how many files of each kind lay beside the images of a folder and are none.
    """

    directory: Path
    counts: dict[str, int]
    bytes: int
    bad: list[tuple[str, str]]
    fresh: bool
    left_out: Mapping[str, int] = field(default_factory=dict)


def prepare(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    name: str = "",
    splits: Sequence[str] = (),
    shards: int = 0,
    workers: int = 0,
    short_side: int = 0,
    quality: int = QUALITY,
    bad: str = "error",
    kind: str = "",
    data_dir: str = "",
    columns: Columns = DEFAULT,
    max_megapixels: float = MAX_MEGAPIXELS,
    progress: bool = False,
) -> Prepared:
    """Write a dataset as ArrayRecord files that tfds reads; go on with it if an earlier call was interrupted.

    The result does not depend on `workers`. Images are stored byte for byte as they are, unless `short_side`
    shrinks them. Record order is a hash of the file names, as in tfds; of TFRecord files it is kept.

    Args:
      source: a folder of class folders, or of images and of masks, a table of paths and targets, a folder with the
        archives of ILSVRC2012, a directory of a dataset prepared by tfds as TFRecord, or the name of one of tfds's
        datasets; what lies at `data.path`, if `kind` is given, or the name of an embedded source.
      output: a `data_dir` of tfds; the dataset goes to `output/NAME/VERSION`.
      name: of the dataset; by default that of the folder.
      splits: which splits, all by default; `new=old` calls one otherwise.
      shards: files of each split; 0 decides by size.
      workers: processes; 1 works in this one, 0 chooses by size and processors. More than one are spawned, so a
        program must guard its entry with `if __name__ == "__main__"`.
      short_side: shrink larger images to this and store them as JPEG; 0 stores all as they are.
      quality: of the JPEG files of shrunk images.
      bad: what to do with a record that is not an image or has no valid label: `error` or `skip`.
      kind: as `data.source`; by default what `source` looks like. All fields of such records are stored.
      data_dir: where tfds keeps datasets given by name, and their downloads.
      columns: of a table.
      max_megapixels: largest image accepted.
      progress: whether to show bars, if standard error is a terminal.

    Raises:
      VitError: an argument is wrong, the data cannot be prepared, or `output` has something else already.
    """
    for value, what in ((shards, "--shards"), (workers, "--workers"), (short_side, "--short-side")):
        if value < 0:
            raise ConfigError(f"{what} is {value}; it must be at least 0.")
    choose(bad, ("error", "skip"), "--bad")
    check_megapixels(max_megapixels, "--max-megapixels")
    if not 1 <= quality <= 100:
        raise ConfigError(f"--quality is {quality}; it must be from 1 to 100.")
    if name and not re.fullmatch(r"[a-z]\w*", name, re.ASCII):
        raise ConfigError(
            f"--name is {name!r}; it must be lower-case letters, digits and _, and begin with a letter."
        )
    output, source = check_output(output, "--output"), expanded(source)
    listing = _list(source, output, name, _split_names(splits), data_dir, columns, kind, progress)
    if short_side and listing.sources:
        raise ConfigError(
            "--short-side applies only to images with one label each, not to fields that must follow; leave it "
            "out and resize in the transforms."
        )
    options = Options(
        listing.info is not None,
        len(listing.class_names),
        short_side,
        quality,
        bad,
        round(1e6 * max_megapixels),
    )
    directory, lock = output / listing.directory, output / f".{listing.name}.lock"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(lock, timeout=0):
            try:
                done = _prepare(directory, listing, options, shards, workers, progress)
                return replace(done, left_out=listing.left_out)
            finally:
                lock.unlink(missing_ok=True)
    except filelock.Timeout as error:
        raise ResourceError(
            f"{directory} is being prepared by another process; wait for it or stop it."
        ) from error
    except OSError as error:
        raise ResourceError(
            f"{directory} cannot be written: {error}; free space, or choose another --output."
        ) from error


def _list(
    source: str,
    output: Path,
    name: str,
    splits: dict[str, str],
    data_dir: str,
    columns: Columns,
    kind: str,
    progress: bool,
) -> Listing:
    root = Path(source)
    masks = mask_splits(root) if not kind and os.path.isdir(root) else []
    if masks or is_of_kind(source, kind):
        splits = splits or {split.lower(): split for split in masks}
        if not splits:
            raise ConfigError(
                "--split is not given; name the splits of the source: --split train --split test."
            )
        opened = {new: open_all(source, old, data_dir, columns, kind)[old] for new, old in splits.items()}
        listing = list_sources(opened, name or _name_of(root))
    elif os.path.isdir(root) and is_imagenet(root):
        listing = list_imagenet(root, name or "imagenet2012", splits, progress=progress)
    elif os.path.isdir(root) and not os.path.isfile(root / "dataset_info.json"):
        listing = list_folder(root, name or _name_of(root), splits)
    elif is_table(source) and os.path.isfile(source):
        listing = list_table(source, name or _name_of(root.with_suffix("")), splits, columns)
    else:
        listing = _list_tfds(source, output, name, splits, data_dir)
    for split, records in listing.splits.items():
        if not records:
            raise DataError(f"split {split!r} of {source} has no records; leave it out with --split.")
    for name in listing.class_names:  # tfds stores one on each line
        if not is_printable(name):
            raise DataError(f"class {name!r} of {source} cannot be printed on one line; rename it.")
    return listing


def _list_tfds(source: str, output: Path, name: str, splits: dict[str, str], data_dir: str) -> Listing:
    # Here because importing tensorflow_datasets takes a second that mistakes need not wait for.
    from vit_jax.data.prepare.from_tfds import class_names, list_generated, list_prepared, open_builder

    builder = open_builder(source, data_dir)
    if name and name != builder.name:
        raise ConfigError(
            f"--name is {name!r}, but a tfds dataset keeps its own name, {builder.name!r}; leave it out."
        )
    if builder.info.splits:
        return list_prepared(builder, splits)
    inputs = f"{builder.info.full_name} {splits or 'all'}"
    known = Listing(
        builder.name, str(builder.version), {}, class_names(builder.info), {}, builder.info, inputs
    )
    if (output / known.directory / "dataset_info.json").is_file():
        return known
    return list_generated(builder, splits, output / known.directory / _UNFINISHED / "generated", inputs)


def _name_of(root: Path) -> str:
    name = re.sub(r"\W+", "_", root.resolve().name.lower(), flags=re.ASCII).strip("_")
    return name if re.match(r"[a-z]", name) else f"images_{name}".strip("_")


def _split_names(splits: Sequence[str]) -> dict[str, str]:
    """Return the new and the old name of each split."""
    names = {}
    for split in splits:
        new, _, old = split.partition("=")
        if not re.fullmatch(r"[A-Za-z]\w*", new, re.ASCII) or new == "all" or new in names:
            raise ConfigError(
                f"--split is {split!r}; give each split once, as NAME or NAME=FOLDER, for example train."
            )
        names[new] = old or new
    return names


def _prepare(
    directory: Path, listing: Listing, options: Options, shards: int, workers: int, progress: bool
) -> Prepared:
    # What the finished dataset depends on.
    plan = {
        "inputs": listing.digest(),
        "options": {
            "shards": shards,
            "short_side": options.short_side,
            "quality": options.quality if options.short_side else 0,
        },
    }
    finished = _check_plan(directory, plan)
    if finished:
        return finished
    unfinished = directory / _UNFINISHED
    unfinished.mkdir(exist_ok=True)
    made: dict[str, list[Shard]] = {}
    for split, records in listing.splits.items():
        default = listing.shards.get(split) or shard_count(
            sum(record.size for record in records), len(records)
        )
        count = min(shards or default, len(records))
        made[split] = [
            Shard(
                directory / f"{listing.name}-{split}.array_record-{index:05d}-of-{count:05d}",
                unfinished / f"{split}-{index:05d}.json",
                part,
                listing.sources.get(split),
                listing.stored,
            )
            for index, part in enumerate(cut(records, count))
        ]
    workers = workers or _workers(listing)
    write_shards([shard for several in made.values() for shard in several], options, workers, progress)
    # Here because it imports tensorflow_datasets.
    from vit_jax.data.prepare.metadata import write_metadata

    outcomes = {split: [outcome(shard) or {} for shard in several] for split, several in made.items()}
    counts, bad, size = {}, [], 0
    for split, found in outcomes.items():
        labels = np.array([label for one in found for label in one["labels"]], np.int32)
        counts[split], size = len(labels), size + sum(one["bytes"] for one in found)
        bad += [tuple(entry) for one in found for entry in one["bad"]]
        if not counts[split]:
            raise DataError(f"no record of split {split!r} can be read; the first: {': '.join(bad[0])}")
        beside: dict[str, np.ndarray] = {"label": labels} if listing.class_names else {}
        for target in found[0].get("beside", ()):
            rows = [row for one in found for row in one.get("beside", {}).get(target, [])]
            if len({len(row) for row in rows}) == 1:
                beside[target] = np.array(rows, np.float32)
        for target, values in beside.items():
            np.save(directory / f"{listing.name}-{split}.{BESIDE[target]}.npy", values)
    lengths = {split: [len(one["labels"]) for one in found] for split, found in outcomes.items()}
    sizes = {split: sum(one["bytes"] for one in found) for split, found in outcomes.items()}
    _write_json(directory / _PLAN, {**plan, "counts": counts, "bytes": size, "bad": bad})
    write_metadata(directory, listing, lengths, sizes)
    shutil.rmtree(unfinished)
    for left in directory.glob("*.partial"):  # by calls that were killed
        left.unlink()
    return Prepared(directory, counts, size, bad, True)


def _workers(listing: Listing) -> int:
    """Return how many processes are worth their start of seconds."""
    size = sum(record.size for records in listing.splits.values() for record in records)
    return max(1, min(cpu_count(), size // _BYTES_PER_WORKER))


def _check_plan(directory: Path, plan: dict[str, Any]) -> Prepared | None:
    """Return the dataset if it is finished; write the plan if there is none.

    Raises:
      DataError: the directory holds something else.
    """
    path, info = directory / _PLAN, directory / "dataset_info.json"
    remedy = "choose another --output or --name, or remove it"
    if info.is_file() and not path.is_file():
        raise DataError(f"{directory} holds a dataset that was not prepared by this command; {remedy}.")
    if not info.is_file() and not any((directory / _UNFINISHED).glob("*.json")):
        _write_json(path, plan)  # nothing is finished yet
        return None
    try:
        known = json.loads(path.read_text())
        inputs, options = known["inputs"], known["options"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged; {remedy}.") from error
    for key, value in plan["options"].items():
        if options.get(key) != value:
            raise DataError(
                f"{directory} was started with {key.replace('_', '-')} {options.get(key)!r}, but it is now "
                f"{value!r}; {remedy}."
            )
    if inputs != plan["inputs"]:
        raise DataError(
            f"{directory} was started with other inputs (names, labels or sizes of files differ); {remedy}."
        )
    if not info.is_file():
        return None
    return Prepared(
        directory, known["counts"], known["bytes"], [tuple(entry) for entry in known["bad"]], False
    )


def _write_json(path: Path, contents: dict[str, Any]) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(contents, indent=1))
    partial.replace(path)
