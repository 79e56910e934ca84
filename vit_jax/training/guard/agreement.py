"""Whether all processes of a run are about to do the same, checked before anything is compiled.

A process with another learning rate, another version of a library or another copy of the data would train along
without an error, and to nothing useful. One process alone checks nothing.
"""

import hashlib
import time
import uuid
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vit_jax.data.base import Source
from vit_jax.errors import ConfigError, DataError, ResourceError, VitError
from vit_jax.processes import from_main, gather, is_main, together
from vit_jax.training.config.defaults import Config, flatten
from vit_jax.version import __version__

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
SHOWN = 3  # differences, and characters of a value in them
SHOWN_CHARACTERS = 100
VISIBLE_WITHIN = 10.0  # seconds after which a file on a shared disk must be seen by all


def check_settings(config: Config) -> None:
    """Raise `ConfigError` in every process unless all have the same configuration, code and packages."""
    if jax.process_count() == 1:
        return
    settings = {
        **flatten(config),
        "vit_jax": f"{__version__}, source {source_hash(Path(__file__).parents[2])}",
        **{package: version(package) for package in PACKAGES},
    }
    _compare(
        "settings",
        settings,
        ConfigError,
        "start all of them with the same configuration and installation.",
    )


def check_data(
    train_source: Source, eval_source: Source, identity: Callable[[], Mapping[str, Any]] = dict
) -> None:
    """Raise `DataError` in every process unless all have opened the same records.

    Args:
      train_source, eval_source: of which a few records are read.
      identity: returns what is kept with the run of all of them, see `training.parts.identity`.
    """
    if jax.process_count() == 1:
        return
    sources = {"training": train_source, "evaluation": eval_source}

    def describe() -> dict[str, Any]:
        return {
            f"{split} data: {name}": value
            for split, source in sources.items()
            for name, value in (describe_source(source) | _fingerprint(identity(), split)).items()
        }

    descriptions = together("first records", describe)
    _compare("data", descriptions, DataError, "give all of them the same data.")


def check_workdir(workdir: Path) -> None:
    """Raise `ResourceError` in every process unless all see the files that process 0 writes to the workdir."""
    if jax.process_count() == 1:
        return
    marker = Path(from_main("workdir", str(workdir.absolute() / f".seen-by-all-{uuid.uuid4().hex}")))

    def write() -> None:
        if is_main():
            try:
                marker.parent.mkdir(parents=True, exist_ok=True)
                marker.touch()
            except OSError as error:
                raise ResourceError(f"workdir {workdir} cannot be written: {error}; give another.") from error

    together("writing to the workdir", write)
    seen = gather("seeing the workdir", _appears(workdir.absolute() / marker.name))
    if is_main():
        marker.unlink()
    blind = [index for index, sees in enumerate(seen) if not sees]
    if blind:
        raise ResourceError(
            f"workdir {workdir} of {_processes(blind)} is not that of process 0; it must be on a disk that all "
            "processes share."
        )


def describe_source(source: Source) -> dict[str, Any]:
    """Return what tells one set of records from another, without reading all of it."""
    count = len(source)
    records = hashlib.blake2b(digest_size=8)
    for index in sorted({0, count // 2, count - 1}):
        example = source[index]
        image = example["image"]
        records.update(image if isinstance(image, bytes) else np.ascontiguousarray(image).tobytes())
        records.update(str(int(example["label"])).encode() if "label" in example else b"")
    labels = None if source.labels is None else _hash(np.asarray(source.labels, np.int32).tobytes())
    return {
        "number of records": count,
        "classes": f"{source.num_classes}, names {_hash(repr(source.class_names).encode())}",
        "shape of images": source.image_shape,
        "labels": labels,
        "first, middle and last record": records.hexdigest(),
    }


def _fingerprint(identity: Mapping[str, Any], use: str) -> dict[str, Any]:
    return {"fingerprint": identity[use]["fingerprint"]} if use in identity else {}


def source_hash(package: Path) -> str:
    """Return a hash of the Python files below a folder: their names and contents."""
    digest = hashlib.blake2b(digest_size=8)
    for file in sorted(package.rglob("*.py")):
        digest.update(f"{file.relative_to(package)}\n".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _compare(name: str, values: Mapping[str, Any], error: type[VitError], remedy: str) -> None:
    """Raise an error in every process that names what differs between any two of them, with all values."""
    shown = {key: repr(value) for key, value in values.items()}
    digest = _hash(repr(sorted(shown.items())).encode())
    if len(set(gather(name, digest))) == 1:
        return
    # Only now everything is sent: usually a few bytes of each process do.
    everyone = gather(f"all {name}", shown)
    differences = []
    for key in sorted({key for one in everyone for key in one}):
        holders: dict[str, list[int]] = {}
        for index, one in enumerate(everyone):
            holders.setdefault(one.get(key, "not there"), []).append(index)
        if len(holders) > 1:
            there = ", ".join(
                f"{value[:SHOWN_CHARACTERS]} on {_processes(indices)}" for value, indices in holders.items()
            )
            differences.append(f"{key} is {there}")
    more = len(differences) - SHOWN
    listed = "; ".join(differences[:SHOWN]) + (f"; and {more} more" if more > 0 else "")
    raise error(f"the processes of this run differ: {listed}; {remedy}")


def _processes(indices: list[int]) -> str:
    if len(indices) == 1:
        return f"process {indices[0]}"
    listed = ", ".join(map(str, indices[:8]))
    return f"processes {listed}" + (f" and {len(indices) - 8} more" if len(indices) > 8 else "")


def _appears(path: Path) -> bool:
    """Return whether a path exists, now or soon: shared disks may show new files late."""
    until = time.monotonic() + VISIBLE_WITHIN
    while not path.exists():
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True


def _hash(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=8).hexdigest()
