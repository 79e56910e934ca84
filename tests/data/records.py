"""A source of records with any fields, for tests."""

import numpy as np

from vit_jax.data.base import Source


class Records(Source):
    """Records that are given as dicts of fields, numbered; those of the first are the fields of all."""

    def __init__(self, records, classes=("a", "b", "c")):
        self._records = list(records)
        self.fields = tuple(self._records[0])
        self.class_names = tuple(classes)

    def __len__(self):
        return len(self._records)

    def __getitem__(self, index):
        return {**self._records[index], "record": f"row {index}"}


def pixels(number=0, height=4, width=6, channels=3):
    """An image of noise."""
    return np.random.default_rng(number).integers(0, 256, (height, width, channels), np.uint8)


SEVERAL = {
    "image": pixels(),
    "labels": np.array([1, 0, np.nan]),
    "value": 2.5,
    "segmentation": np.array([[0, 1, 2, -1, 0, 1]] * 4, np.int16),
    "masks": np.ones((2, 4, 6), bool),
    "boxes": [[0, 0, 2, 2], [1, 1, 6, 4]],
    "classes": [2, 0],
    "crowd": [False, True],
    "depth": np.linspace(0, 1, 24).reshape(4, 6),
    "points": [[1.5, 2.0]],
}
