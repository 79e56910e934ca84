"""Zip archives as containers of arrays: a directory checked before use, members read into given memory."""

import struct
import threading
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from vit_jax.errors import CheckpointError
from vit_jax.weights.formats.tensors import MAX_TENSORS, fill, reading, short

MAX_DEFLATE_RATIO = 1032  # of the format: https://zlib.net/zlib_tech.html


class Archive:
    """A zip file whose members are stored or deflated and no larger than their bytes can be.

    Args:
      path: the file; it stays open as long as the archive is used.

    Raises:
      CheckpointError: the archive is damaged, or holds what no library writes for weights.
    """

    def __init__(self, path: Path):
        self.path = path
        with self._guard():
            self._zip = zipfile.ZipFile(path)
            self._lock = threading.Lock()
            members = self._zip.infolist()
        self._members = {member.filename: member for member in members}
        if not 0 < len(members) <= MAX_TENSORS or len(self._members) < len(members):
            raise self._damaged("it is empty, a name comes twice or there are too many")
        size = path.stat().st_size
        for member in members:
            name = short(member.filename)
            if member.flag_bits & 1:
                raise CheckpointError(f"{path}: member {name} is encrypted; store it without a password.")
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise CheckpointError(
                    f"{path}: member {name} must be stored or deflated; save it again that way."
                )
            ratio = MAX_DEFLATE_RATIO if member.compress_type else 1
            if member.compress_size > size or member.file_size > ratio * member.compress_size:
                raise self._damaged(f"member {name} declares more bytes than it has")

    def names(self) -> list[str]:
        """Return the names of all members, in the archive's order."""
        return list(self._members)

    def size(self, name: str) -> int | None:
        """Return how many bytes a member has, None if there is none of that name."""
        return self._members[name].file_size if name in self._members else None

    def read(self, name: str, offset: int, size: int) -> np.ndarray:
        """Read part of a member; what is read from near its start to its end is compared with its checksum.

        Args:
          name: the member.
          offset: where the part begins.
          size: its bytes.

        Returns:
          (size,) uint8.

        Raises:
          CheckpointError: the member has fewer bytes or is damaged.
        """
        if offset + size > self._members[name].file_size:
            raise self._damaged(f"member {short(name)} ends early")
        out = np.empty(size, np.uint8)
        # zipfile's members share one file, and its own locks do not make reading from several threads safe.
        with self._lock, self._guard(), self._zip.open(self._members[name]) as file:
            if offset < 2**16:
                file.read(offset)  # seeking would switch the checksum off
            else:
                file.seek(offset)
            fill(file, out, self.path)
            if offset + size == self._members[name].file_size:
                file.read(1)  # only at the end of the member is its checksum compared
        return out

    @contextmanager
    def _guard(self) -> Iterator[None]:
        """What `zipfile` and `zlib` raise about damaged files, as one line."""
        try:
            with reading(self.path):
                yield
        except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError) as error:
            raise self._damaged(str(error).splitlines()[0][:100] if str(error) else "it ends early") from None
        except (ValueError, OverflowError, RuntimeError, LookupError) as error:
            raise self._damaged(type(error).__name__) from None

    def _damaged(self, why: str) -> CheckpointError:
        return CheckpointError(
            f"{self.path} is not a valid archive: {why}; it is damaged or was not copied completely."
        )
