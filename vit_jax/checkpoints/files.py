"""One step on disk: which directories are ours, their metadata, their arrays, and whether they are intact.

`<step>/state/` holds the arrays as Orbax stores nested dicts; `<step>/metadata/metadata` is JSON with the
dtype, shape and fingerprint of every array and a checksum of itself.
"""

import errno
import hashlib
import json
import os
import re
import shutil
import time
from functools import partial
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from vit_jax import trees
from vit_jax.checkpoints import fingerprint
from vit_jax.errors import CheckpointError, ResourceError, VitError, argument
from vit_jax.paths import read_file
from vit_jax.processes import together

Metadata = dict[str, Any]
STATE, METADATA = "state", "metadata"
FOLDER = "checkpoints"  # of a workdir
SHOWN = 4
SETTLED_WITHIN = 10.0  # seconds after which nothing writes any more for a save that failed
# How a step's directory is called while Orbax writes it, while it is copied and while it is deleted.
SAVING, COPYING, DELETING = ".orbax-checkpoint-tmp", ".copying", ".deleting"
REMAINDERS = (SAVING, COPYING, DELETING)
REMEDIES = {
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room: this user's quota is used up",
    errno.EFBIG: "raise the limit on the size of a file",
    errno.EROFS: "make the disk writable",
    errno.EIO: "check the disk",
}
# What a step's directory holds.
PARTS = (STATE, METADATA, "_CHECKPOINT_METADATA", "commit_success.txt")
# What metadata must say, and what those of models and runs say besides.
_NEEDED: dict[str, type] = {"step": int, "fingerprint": str, "arrays": dict, "metrics": dict}
_KINDS: dict[str, type] = {
    **{"config": dict, "model": dict, "class_names": list, "eval_transforms": str, "monitor": str},
    **{"monitor_mode": str, "classes_named": bool, "outputs_named": bool},
}
MAX_METADATA = 100_000_000  # bytes; a line of about 100 for each array


class MismatchError(CheckpointError):
    """A checkpoint is intact but belongs to another model or configuration."""


def is_ours(path: Path) -> bool:
    """Return whether a path is a committed step that this module wrote, readable or not.

    Any of its two parts will do: a damaged checkpoint must be an error, not a fresh start.
    """
    return _is_number(path.name) and any(os.path.isdir(path / part) for part in (STATE, METADATA))


def is_remainder(path: Path) -> bool:
    """Return whether a path is what a killed run of ours left of a save, a copy or a removal, and nothing else."""
    number, dot, suffix = path.name.partition(".")
    if not (_is_number(number) and f"{dot}{suffix}" in REMAINDERS) or path.is_symlink() or not path.is_dir():
        return False
    return all(inner.name.partition(SAVING)[0] in PARTS for inner in path.iterdir())


def sweep(folder: Path) -> None:
    """Delete what killed runs left half written in a folder of steps; nothing else is touched."""
    for path in list(folder.iterdir()):
        if is_remainder(path):
            discard(path)


def discard(path: Path) -> None:
    """Delete a directory that a save of this process, which failed a moment ago, may still be writing to."""
    until = time.monotonic() + SETTLED_WITHIN
    while path.exists():
        try:
            shutil.rmtree(path)
        except OSError as error:
            gone_or_new = error.errno in (errno.ENOTEMPTY, errno.ENOENT)
            if not gone_or_new or time.monotonic() > until:
                raise
            time.sleep(0.05)


def remove(path: Path) -> None:
    """Delete a step directory; under its own name it is there whole or not at all."""
    doomed = path.with_name(f"{path.name}{DELETING}")
    path.rename(doomed)
    shutil.rmtree(doomed)


def sync(path: Path) -> None:
    """Have a directory, all files below it and its name on the disk itself, not only in the machine's memory.

    TensorStore sees to that for arrays, Orbax does not for what describes them; a machine that loses its power could
    keep the deletion of the step before and lose this one.
    """
    for inner in [*path.rglob("*"), path, path.parent]:
        file = os.open(inner, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdecimal() and name == str(int(name))


def locate(path: Path) -> tuple[Path, int | None]:
    """Return the folder of steps that a path means, and the step if it means one: `WORKDIR/checkpoints/STEP`."""
    if path.name.isdigit() and path.parent.name == FOLDER:
        return path.parent, int(path.name)
    return path / FOLDER, None


def checksum(metadata: Metadata) -> str:
    """Return the SHA-256 of metadata as JSON, without their own `checksum`."""
    text = json.dumps({key: value for key, value in metadata.items() if key != "checksum"}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def read_metadata(path: Path) -> Metadata:
    """Return the metadata of a step directory.

    Raises:
      CheckpointError: they are missing or damaged.
    """
    file = path / METADATA / "metadata"
    try:
        metadata = json.loads(read_file(file, MAX_METADATA))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} cannot be read: {one_line(error)}") from error
    if not isinstance(metadata, dict) or metadata.get("checksum") != checksum(metadata):
        raise CheckpointError(f"{file} is damaged: its checksum differs.")
    # Whoever makes a file by hand gets its checksum right.
    for key, kind in _NEEDED.items():
        if not isinstance(metadata.get(key), kind):
            raise CheckpointError(f"{file} is damaged: its {key!r} is {str(metadata.get(key))[:80]!r}.")
    for name, entry in metadata["arrays"].items():
        if not _is_entry(entry):
            raise CheckpointError(f"{file} is damaged: its entry for {name!r} is {str(entry)[:80]!r}.")
    return metadata


def check_described(metadata: Metadata, where: object) -> Metadata:
    """Return metadata whose descriptions of a model or run, as far as there are any, are of the right kinds.

    Args:
      metadata: of a step.
      where: names it in the message.

    Raises:
      CheckpointError: something else stands there; only files made by hand have this.
    """
    for key, kind in _KINDS.items():
        value = metadata.get(key)
        if value is not None and not isinstance(value, kind):
            raise CheckpointError(f"{where} is damaged: its {key!r} is {str(value)[:80]!r}.")
    if not all(isinstance(name, str) for name in metadata.get("class_names") or ()):
        raise CheckpointError(f"{where} is damaged: a class name is not a string.")
    if not all(isinstance(value, int | float) for value in metadata["metrics"].values()):
        raise CheckpointError(f"{where} is damaged: a metric is not a number.")
    return metadata


def _is_entry(entry: Any) -> bool:
    """Return whether something is what is said of an array: dtype, shape and fingerprint."""
    if not isinstance(entry, list) or len(entry) != 3 or not isinstance(entry[1], list):
        return False
    return isinstance(entry[0], str) and all(type(size) is int for size in entry[1])


def read_state(path: Path, prefix: str, abstract: trees.Tree, metadata: Metadata) -> trees.Tree:
    """Return the arrays of a step directory in the structure and shardings of `abstract`, verified.

    Args:
      path: the step directory.
      prefix: what stands before the paths of `abstract` in the stored state: empty, or such as `params/`.
      abstract: arrays or `jax.ShapeDtypeStruct`; without a sharding, an array goes to the first local device.
      metadata: of the step.

    Raises:
      MismatchError: names, shapes or dtypes differ.
      CheckpointError: the arrays cannot be read, or are not those that were saved.
      ResourceError: there is not enough memory.
    """
    flat = {prefix + name: leaf for name, leaf in trees.flatten(abstract).items()}
    stored = {name: entry for name, entry in metadata["arrays"].items() if name.startswith(prefix)}
    _compare(path, stored, flat)
    if not flat:
        return abstract
    first = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    wanted = trees.unflatten(
        {
            name: jax.ShapeDtypeStruct(
                leaf.shape, leaf.dtype, sharding=getattr(leaf, "sharding", None) or first
            )
            for name, leaf in flat.items()
        }
    )
    arguments = ocp.args.PyTreeRestore(
        item=wanted,
        restore_args=ocp.checkpoint_utils.construct_restore_args(wanted),
        partial_restore=True,
    )
    # All processes take part in the fingerprints, or none: a file may be unreadable for one of them alone.
    loaded = together("checkpoint arrays", partial(read_arrays, path, arguments, list(flat)))
    found = fingerprint.table(loaded)
    damaged = [name for name in flat if found[name] != stored[name]]
    if damaged:
        raise CheckpointError(f"damaged, the fingerprint differs of {some(damaged)}.")
    return jax.tree.unflatten(jax.tree.structure(abstract), [loaded[name] for name in flat])


def read_arrays(
    path: Path, arguments: ocp.args.PyTreeRestore, names: list[str], kind: type = jax.Array
) -> dict[str, Any]:
    """Return the arrays of a step by path, not yet verified; waits for no other process.

    Args:
      path: the step directory.
      arguments: for Orbax: what to read, and as what.
      names: of the arrays wanted.
      kind: what they must come back as.
    """
    handler = ocp.PyTreeCheckpointHandler()
    try:
        # Any path will do, whatever its annotation says.
        loaded = trees.flatten(handler.restore(path / STATE, args=arguments))  # pyright: ignore[reportArgumentType]
    except Exception as error:
        # Orbax and TensorStore report damage as ValueError, KeyError, OSError and as plain Exception.
        if isinstance(error, MemoryError | jax.errors.JaxRuntimeError):
            raise ResourceError(f"checkpoint {path} does not fit into memory: {one_line(error)}") from error
        raise CheckpointError(f"its arrays cannot be read: {one_line(error)}") from error
    finally:
        handler.close()
    # A name that Orbax's own index has lost is not an error to it: the request comes back unfilled.
    lost = [name for name in names if not isinstance(loaded.get(name), kind)]
    if lost:
        raise CheckpointError(f"its index is damaged and lacks {some(lost)}.")
    return loaded


def one_line(error: BaseException) -> str:
    """Return the message of somebody else's error as one line of moderate length."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:300]}..."


def explain(action: str, directory: Path, error: OSError | ValueError, needed: int = 0) -> VitError:
    """Return one line of ours for what the file system, Orbax or TensorStore raised.

    Args:
      action: what failed.
      directory: where.
      error: what was raised.
      needed: bytes that a step takes, at most; 0 if that is not known yet.
    """
    # TensorStore raises ValueError with the number inside the text; Orbax, cleaning up while others still write,
    # may cover it with an error of its own.
    chain: list[BaseException] = [error]
    while (inner := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(inner)
    match = re.search(r"os_error_code='(\d+)'", " ".join(map(str, chain)))
    numbers = [inner.errno for inner in chain if isinstance(inner, OSError) and inner.errno]
    number = int(match[1]) if match else next(iter(numbers), None)
    if number is None:
        return CheckpointError(f"{action} in {directory} failed: {one_line(error)}")
    remedy = REMEDIES.get(number, "check the path and its permissions")
    return ResourceError(
        f"{action} in {directory} failed: {os.strerror(number)}; {_space(directory, needed)}{remedy}, then start "
        "again. Steps saved before are intact."
    )


def _space(directory: Path, needed: int) -> str:
    try:
        free = f"{shutil.disk_usage(directory).free / 2**20:.0f} MiB are free there"
    except OSError:
        return ""  # The folder itself is what is missing.
    return f"{free}{f' and a step needs up to {needed / 2**20:.1f} MiB' if needed else ''}; "


def _compare(path: Path, stored: dict[str, list[Any]], wanted: dict[str, Any]) -> None:
    there = {name: f"{dtype}{tuple(shape)}" for name, (dtype, shape, _) in stored.items()}
    here = {name: f"{leaf.dtype}{tuple(leaf.shape)}" for name, leaf in wanted.items()}
    differences = [f"{name} is missing there" for name in here if name not in there]
    differences += [f"{name} exists only there" for name in there if name not in here]
    differences += [
        f"{name} is {there[name]} there and {here[name]} here"
        for name in here
        if there.get(name, here[name]) != here[name]
    ]
    if differences:
        raise MismatchError(
            f"checkpoint {path} belongs to a different model or configuration: {some(differences)}. "
            f"Use the configuration it was saved with, or another {argument('workdir')}."
        )


def some(items: list[str]) -> str:
    """Return the first items of a list as text, and how many more there are."""
    more = len(items) - SHOWN
    return "; ".join(items[:SHOWN]) + (f"; and {more} more" if more > 0 else "")
