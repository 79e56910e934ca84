"""Data that is not here: its size and classes suffice to plan a run."""

from typing import Any

import cv2
import numpy as np

from vit_jax.data.base import Example, Source
from vit_jax.data.section import mixture_parts
from vit_jax.data.split import bound, parse_split
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


def stand_ins(config: Any, records: int | None, classes: int | None) -> tuple[StandIn, StandIn]:
    """Return stand-ins for the training and evaluation data of a configuration.

    Args:
      config: a checked configuration.
      records: of the whole training split, where it is not known.
      classes: of the data, where neither it nor the model says.

    Raises:
      ConfigError: a number is not known and not given.
    """
    data = config.data
    splits, known_classes = KNOWN.get(data.name.partition("/")[0].partition(":")[0], ({}, None))
    if mixture_parts(data.mixture):
        splits = {}
    classes = classes or config.model.get("num_classes") or known_classes
    name, first, last = parse_split(data.train_split)
    records = records or splits.get(name)
    for given, option in ((records, "--records"), (classes, "--classes")):
        if given is None:
            raise ConfigError(
                f"the data ({data.source} {data.name or data.path!r}) is not here, and its size is not known; say it "
                f"with {option} N."
            )
    assert records is not None
    assert classes is not None
    length = bound(last or "100%", records) - bound(first or "0%", records)
    return StandIn(length, classes), StandIn(splits.get(parse_split(data.eval_split)[0], records), classes)
