"""Checkpoints on a remote or FUSE folder (Colab's Drive): written to a local folder, copied, read back, renamed.

Such folders go away for minutes, and a file that was closed there need not be whole. So a step is written where
writing is reliable, and appears in the workdir under its own name only when a copy has been read back and is equal.
"""

import errno
import hashlib
import os
import re
import shutil
from pathlib import Path

from vit_jax.checkpoints.files import COPYING
from vit_jax.errors import ResourceError

BLOCK = 2**22  # bytes read at a time
# What does not pass by waiting. Anything else may be a folder that has lost its connection.
LASTING = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)


def staging_folder(staging: str, directory: Path) -> Path:
    """Return the folder for one run inside a staging folder; the same run finds the same again.

    Raises:
      ResourceError: it is an address, or inside of the folder that it stands in for.
    """
    if "://" in staging:
        raise ResourceError(f"checkpoint.staging {staging} is a URL; it must be a local folder.")
    folder = Path(staging).expanduser().absolute()
    if folder == directory.parent or directory.parent in folder.parents:
        raise ResourceError(
            f"checkpoint.staging {staging} is inside the workdir; give a local folder instead."
        )
    run = re.sub(r"[^A-Za-z0-9_-]+", "-", directory.parent.name)[:40]
    return folder / f"{run}-{hashlib.sha256(str(directory).encode()).hexdigest()[:12]}"


def copy_verified(source: Path, target: Path) -> None:
    """Copy a directory so that `target` appears whole and read back, or not at all.

    Args:
      source: a directory of ordinary files.
      target: does not exist; its parent does, or is a folder that has gone away.

    Raises:
      OSError: a file could not be written or reads back differently; what was copied so far is swept by the next try.
    """
    # Not with parents: where a mount point has lost its mount, its path is an ordinary folder of this machine.
    beside = target.with_name(f"{target.name}{COPYING}")
    if beside.exists():
        shutil.rmtree(beside)
    beside.mkdir()
    digests = {}
    for path in sorted(source.rglob("*")):
        copy = beside / path.relative_to(source)
        if path.is_dir():
            copy.mkdir()
        else:
            digests[copy] = _copy(path, copy)
    for copy, digest in digests.items():
        if _digest(copy) != digest:
            raise OSError(errno.EIO, f"{copy} does not read back as it was written")
    beside.rename(target)


def same_files(first: Path, second: Path) -> bool:
    """Return whether two directories hold the same files, byte by byte."""
    contents = [
        {path.relative_to(folder): _digest(path) for path in folder.rglob("*") if path.is_file()}
        for folder in (first, second)
    ]
    return contents[0] == contents[1]


def _copy(source: Path, target: Path) -> bytes:
    digest = hashlib.blake2b()
    with source.open("rb") as reader, target.open("xb") as writer:
        while block := reader.read(BLOCK):
            digest.update(block)
            writer.write(block)
        writer.flush()
        os.fsync(writer.fileno())
    return digest.digest()


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, hashlib.blake2b).digest()
