"""Images with several labels or values each."""

import numpy as np

from vit_jax.data.base import Example, Source
from vit_jax.data.fields.several import UNKNOWN, Targets
from vit_jax.data.fingerprint import digest
from vit_jax.errors import DataError


class Targeted(Source):
    """The images of a source, each with its row of targets.

    Args:
      source: of images; other fields of it are left out.
      field: `labels` or `value`.
      targets: of all records.
      name: what messages call them.

    Raises:
      DataError: there is not a row for each image.
    """

    def __init__(self, source: Source, field: str, targets: Targets, name: str = "the records"):
        if len(source) != len(targets.values):
            raise DataError(
                f"{name} are {len(source)}, but there are {len(targets.values)} targets; give one per image."
            )
        self._source, self._field, self._targets = source, field, targets.values
        self.fields = ("image", field)
        self.class_names, self.named = targets.names, targets.named
        self.image_shape, self.left_out = source.image_shape, dict(source.left_out)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Example:
        example = self._source[index]
        return {"image": example["image"], self._field: self._rows(index), "record": example["record"]}

    def name_of(self, index: int) -> str:
        """Return what the source calls it."""
        return self._source.name_of(index)

    def take(self, indices: np.ndarray) -> Example | None:
        """Return several records stacked, if the source can."""
        whole = self._source.take(indices)
        return whole and {"image": whole["image"], self._field: self._rows(indices)}

    def known(self, field: str) -> np.ndarray | None:
        """Return the targets of all records."""
        return self._targets if field == self._field else None

    def fingerprint(self) -> str:
        """Return a checksum of the source, of what the targets are called and of them."""
        return digest(self._source.fingerprint(), self._field, "\0".join(self.class_names), self._targets)

    def _rows(self, which: int | np.ndarray) -> np.ndarray:
        rows = self._targets[which]
        return rows if self._field == "value" else np.where(rows == UNKNOWN, np.nan, rows).astype(np.float32)
