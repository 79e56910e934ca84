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
from functools import partial
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from vit_jax import trees
from vit_jax.checkpoints import fingerprint
from vit_jax.errors import CheckpointError, ResourceError, VitError
from vit_jax.paths import read_file
from vit_jax.processes import together

Metadata = dict[str, Any]
STATE, METADATA = "state", "metadata"
FOLDER = "checkpoints"  # of a workdir
SHOWN = 4
# What metadata must say, and what those of models and runs say besides.
_NEEDED: dict[str, type] = {"step": int, "fingerprint": str, "arrays": dict, "metrics": dict}
_KINDS: dict[str, type] = {
    **{"config": dict, "model": dict, "class_names": list, "eval_transforms": str, "monitor": str},
    **{"monitor_mode": str},
}
MAX_METADATA = 100_000_000  # bytes; a line of about 100 for each array


class MismatchError(CheckpointError):
    """A checkpoint is intact but belongs to another model or configuration."""


def is_ours(path: Path) -> bool:
    """Return whether a path is a committed step that this module wrote, readable or not.

    Any of its two parts will do: a damaged checkpoint must be an error, not a fresh start.
    """
    parts = (os.path.isdir(path / part) for part in (STATE, METADATA))
    return path.name.isdecimal() and path.name == str(int(path.name)) and any(parts)


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
            raise CheckpointError(f"{file} is damaged: it says of {name!r} {str(entry)[:80]!r}.")
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
        raise CheckpointError(f"{where} is damaged: a name of a class is no text.")
    if not all(isinstance(value, int | float) for value in metadata["metrics"].values()):
        raise CheckpointError(f"{where} is damaged: a metric is no number.")
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
    loaded = together("checkpoint arrays", partial(_read_arrays, path, arguments, list(flat)))
    found = fingerprint.table(loaded)
    damaged = [name for name in flat if found[name] != stored[name]]
    if damaged:
        raise CheckpointError(f"damaged, the fingerprint differs of {_some(damaged)}.")
    return jax.tree.unflatten(jax.tree.structure(abstract), [loaded[name] for name in flat])


def _read_arrays(path: Path, arguments: ocp.args.PyTreeRestore, names: list[str]) -> dict[str, Any]:
    """Return the arrays of a step by path, not yet verified; waits for no other process."""
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
    lost = [name for name in names if not isinstance(loaded.get(name), jax.Array)]
    if lost:
        raise CheckpointError(f"its index is damaged, it has lost {_some(lost)}.")
    return loaded


def one_line(error: BaseException) -> str:
    """Return the message of somebody else's error as one line of moderate length."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:300]}..."


def explain(action: str, directory: Path, error: OSError | ValueError) -> VitError:
    """Return one line of ours for what the file system, Orbax or TensorStore raised."""
    # TensorStore raises ValueError with the number inside the text; Orbax, cleaning up while others still write,
    # may cover it with an error of its own.
    chain: list[BaseException] = [error]
    while (inner := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(inner)
    match = re.search(r"os_error_code='(\d+)'", " ".join(map(str, chain)))
    number = int(match[1]) if match else getattr(error, "errno", None)
    if number is None:
        return CheckpointError(f"{action} in {directory} failed: {one_line(error)}")
    hint = "check the path and its permissions"
    if number in (errno.ENOSPC, errno.EDQUOT):
        hint = f"{shutil.disk_usage(directory).free / 2**20:.0f} MiB are free: make room"
    return ResourceError(
        f"{action} in {directory} failed: {os.strerror(number)}; {hint}, then start again. "
        "Steps saved before are intact."
    )


def _compare(path: Path, stored: dict[str, list[Any]], wanted: dict[str, Any]) -> None:
    there = {name: f"{dtype}{tuple(shape)}" for name, (dtype, shape, _) in stored.items()}
    here = {name: f"{leaf.dtype}{tuple(leaf.shape)}" for name, leaf in wanted.items()}
    differences = [f"{name} is missing there" for name in here if name not in there]
    differences += [f"{name} is only there" for name in there if name not in here]
    differences += [
        f"{name} is {there[name]} there and {here[name]} here"
        for name in here
        if there.get(name, here[name]) != here[name]
    ]
    if differences:
        raise MismatchError(
            f"checkpoint {path} belongs to another model or configuration: {_some(differences)}. "
            "Use its own configuration, or another --workdir."
        )


def _some(items: list[str]) -> str:
    more = len(items) - SHOWN
    return "; ".join(items[:SHOWN]) + (f"; and {more} more" if more > 0 else "")
