"""Fields of all records that lie in arrays."""

from collections.abc import Mapping, Sequence

import numpy as np

from vit_jax.data.base import Example, Source
from vit_jax.data.fields.given import classes_in, without_padding
from vit_jax.data.fields.table import KINDS, read_fields
from vit_jax.data.fingerprint import array_digest, digest
from vit_jax.data.labels import checked_names
from vit_jax.errors import DataError


class Arrayed(Source):
    """The records of a source with further fields, all of which are looked at once.

    Args:
      source: of images, maybe with labels.
      arrays: a row for each record, by name of the field; where records have fewer objects than rows, the rest is of
        class -1.
      class_names: of all classes in them; numbers up to the largest by default.
      name: what messages call them.

    Raises:
      DataError: there is not a row for each image, or a field is not what it must be; the record is named.
    """

    def __init__(
        self,
        source: Source,
        arrays: Mapping[str, np.ndarray],
        class_names: Sequence[str] | np.ndarray | None = None,
        name: str = "the arrays",
    ):
        self._source, self._arrays = source, dict(arrays)
        self.fields = tuple(field for field in KINDS if field in source.fields or field in arrays)
        self.image_shape, self.labels = source.image_shape, source.labels
        self.named = class_names is not None
        labels = {} if source.labels is None else {"label": source.labels}
        self.class_names = (
            classes_in([self._arrays | labels]) if class_names is None else checked_names(class_names, name)
        )
        for field, rows in arrays.items():
            if len(rows) != len(source):
                raise DataError(
                    f"{name} has {len(rows)} {field} for {len(source)} images; give one per image."
                )
        for index in range(len(source)):
            read_fields(self[index], self)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Example:
        rows = {field: rows[index] for field, rows in self._arrays.items()}
        return {**self._source[index], **without_padding(rows)}

    def name_of(self, index: int) -> str:
        """Return what the source calls it."""
        return self._source.name_of(index)

    def fingerprint(self) -> str:
        """Return a checksum of the source and of all arrays."""
        parts = [(field, array_digest(rows)) for field, rows in sorted(self._arrays.items())]
        return digest(self._source.fingerprint(), self.class_names, parts)
