"""Data that is not here: its size and classes suffice to plan a run."""

from typing import Any

import cv2
import numpy as np

from vit_jax.data.base import Example, Source
from vit_jax.data.section import mixture_parts
from vit_jax.data.split import parse_split
from vit_jax.errors import ConfigError

# Records by split, and classes, as tensorflow_datasets' catalogue and the datasets' authors say.
KNOWN: dict[str, tuple[dict[str, int], int]] = {
    "imagenet2012": ({"train": 1_281_167, "validation": 50_000}, 1000),
    "imagenet21k_resized": ({"train": 11_060_223, "validation": 522_500}, 10_450),
    "cifar10": ({"train": 50_000, "test": 10_000}, 10),
    "cifar100": ({"train": 50_000, "test": 10_000}, 100),
}


class StandIn(Source):
    """As many records and classes as the real data has; every record is the same photograph-sized image."""

    named = False

    def __init__(self, records: int, classes: int):
        self._records = records
        self.class_names = tuple(str(label) for label in range(classes))
        done, encoded = cv2.imencode(".jpg", np.zeros((375, 500, 3), np.uint8))
        assert done
        self._image = encoded.tobytes()

    def __len__(self) -> int:
        return self._records

    def __getitem__(self, index: int) -> Example:
        return {"image": self._image, "label": 0, "record": f"record {index} of a stand-in"}


def stand_ins(section: Any, records: int | None, classes: int | None) -> tuple[StandIn, StandIn]:
    """Return stand-ins for the training and evaluation data of a configuration.

    Args:
      section: `data` of a checked configuration.
      records: of the whole training split, where it is not known.
      classes: of the data, where it does not say.

    Raises:
      ConfigError: a number is not known and not given.
    """
    splits, known_classes = KNOWN.get(section.name.partition("/")[0].partition(":")[0], ({}, None))
    if mixture_parts(section.mixture):
        splits = {}
    classes = classes or known_classes
    parts = parse_split(section.train_split)
    sizes = [records or splits.get(part.name) for part in parts]
    for given, option in ((None if None in sizes else sizes, "--records"), (classes, "--classes")):
        if given is None:
            raise ConfigError(
                f"the data ({section.source} {section.name or section.path!r}) is not on this machine, and its "
                f"size is not known; give it with {option} N."
            )
    assert classes is not None
    lengths = [np.diff(part.bounds(size or 0)).item() for part, size in zip(parts, sizes)]
    evaluation = splits.get(parse_split(section.eval_split)[0].name) or sizes[0]
    assert evaluation is not None
    return StandIn(sum(lengths), classes), StandIn(evaluation, classes)
