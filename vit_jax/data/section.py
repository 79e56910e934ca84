"""What a configuration may say about data, as data. Imports nothing, so that mistakes are told at once."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from vit_jax.errors import ConfigError, choose, nearest

SOURCES = ("digits", "arrays", "folder", "tfds", "synthetic")
CACHES = ("none", "encoded", "decoded")
POLICIES = ("skip", "error")


@dataclass(frozen=True)
class Part:
    """One source of a mixture.

    Attributes:
      source, path, name, size: as in the section `data`.
      split: which part of it, as `data.train_split`.
      weight: how often it is drawn from, relative to the others.
    """

    source: str = "folder"
    path: str = ""
    name: str = ""
    size: int = 1024
    split: str = "train"
    weight: float = 1.0

    @property
    def train_split(self) -> str:
        """The split that has the classes."""
        return self.split


def mixture_parts(mixture: Any) -> list[Part]:
    """Return the parts that `data.mixture` describes.

    Args:
      mixture: a sequence of dicts with fields of `Part`.

    Raises:
      ConfigError: not such a sequence; the part and the key are named.
    """
    known, parts = {field.name: field for field in fields(Part)}, []
    for number, values in enumerate(mixture):
        name = f"data.mixture[{number}]"
        if not isinstance(values, Mapping):
            raise ConfigError(
                f"{name} is {values!r}; it must be a dict such as dict(path='folder', weight=2.0)."
            )
        for key, value in values.items():
            if key not in known:
                raise ConfigError(
                    f"{name} has no key {key!r}; it takes {', '.join(known)}.{nearest(key, known)}"
                )
            kind = (int, float) if key == "weight" else type(known[key].default)
            if not isinstance(value, kind) or isinstance(value, bool):
                raise ConfigError(f"{name}: {key} is {value!r}; it must be like {known[key].default!r}.")
        part = Part(**values)
        choose(part.source, SOURCES, f"{name}: source")
        if not 0 < part.weight < float("inf"):
            raise ConfigError(f"{name}: weight is {part.weight}; it must be a positive number.")
        parts.append(part)
    return parts
