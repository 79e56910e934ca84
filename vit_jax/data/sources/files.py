"""Image files named one by one, with their labels."""

import os
from collections.abc import Sequence

from vit_jax.data.base import Example, Source
from vit_jax.data.fingerprint import digest, file_sizes
from vit_jax.data.images.decode import read_bytes
from vit_jax.data.labels import Numbered
from vit_jax.errors import DataError
from vit_jax.paths import Named, expanded


class FileSource(Source):
    """Image files in the order in which they are named.

    Args:
      files: paths, relative to `folder` or absolute.
      numbered: their labels, one for each, see `data.labels`; None for images alone.
      folder: what relative paths are relative to.
      name: what messages call where the names come from.

    Raises:
      DataError: there is not a label for each file, or the first file is not there.
    """

    def __init__(
        self, files: Sequence[Named], numbered: Numbered | None, folder: Named = "", name: str = "the files"
    ):
        if numbered is None:
            self.fields = ("image",)
        else:
            self.labels, self.class_names, self.named = numbered
        self.files = [expanded(file) for file in files]
        self._folder = expanded(folder)
        if self.labels is not None and len(self.files) != len(self.labels):
            raise DataError(
                f"{name} are {len(self.files)}, but there are {len(self.labels)} labels; give one per image."
            )
        # One is looked at: so a wrong folder is told at once, and not as a million files that cannot be read.
        if self.files and not os.path.isfile(self.name_of(0)):
            raise DataError(
                f"{self.name_of(0)}, the first of {name}, does not exist; paths must be absolute or relative to "
                f"{self._folder or 'the current folder'}."
            )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Example:
        path = self.name_of(index)
        label = {} if self.labels is None else {"label": int(self.labels[index])}
        return {"image": read_bytes(path), **label, "record": path}

    def name_of(self, index: int) -> str:
        """Return the path of an image."""
        return os.path.join(self._folder, self.files[index])

    def fingerprint(self) -> str:
        """Return a checksum of names, sizes and labels of the files; of names only what differs between them."""
        return digest("\0".join(self.names), file_sizes(self._folder, self.files), self.labels)

    @property
    def names(self) -> list[str]:
        """The files as they are named, absolute ones without the folder that all lie in."""
        return _within(self.files)


def _within(files: list[str]) -> list[str]:
    """Return paths, where one is absolute without the folder that they all lie in."""
    if not any(os.path.isabs(file) for file in files):
        return files
    common = os.path.commonpath([os.path.dirname(os.path.abspath(file)) for file in files])
    return [os.path.relpath(os.path.abspath(file), common) for file in files]
