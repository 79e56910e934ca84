"""In what two configurations of a model compute different things."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from vit_jax.models.families import family_of, is_config
from vit_jax.models.preprocessing import Preprocessing


def differences(ours: Any, theirs: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield the name of each field in which models compute different things, and both values."""
    if type(ours) is not type(theirs):
        yield "kind", type(ours).__name__, type(theirs).__name__
        return
    family = family_of(ours)
    for field in dataclasses.fields(ours):
        name, one, other = field.name, getattr(ours, field.name), getattr(theirs, field.name)
        if name in family.running or one == other or name in family.idle(ours):
            continue
        if is_config(one):
            yield from differences(one, other, f"{prefix}{name}.")
        elif name == "layer_scale" and one is not None and other is not None:
            continue  # where training starts; the scales themselves are arrays
        elif isinstance(one, Preprocessing) and isinstance(other, Preprocessing):
            for part in dataclasses.fields(one):
                a, b = getattr(one, part.name), getattr(other, part.name)
                if part.name == "crop":  # what counts is the size that images are resized to
                    a, b = one.resized(ours.image_size), other.resized(theirs.image_size)
                # Where an odd crop starts is less than a pixel, and each library has one way only.
                if part.name != "crop_rounding" and not _close(a, b):
                    yield f"{prefix}preprocessing.{part.name}", a, b
        else:
            yield prefix + name, one, other


def _close(a: Any, b: Any) -> bool:
    if isinstance(a, str):
        return a == b
    a, b = np.atleast_1d(a), np.atleast_1d(b)
    return (a.size == b.size or 1 in (a.size, b.size)) and bool(np.allclose(a, b, rtol=1e-6, atol=0))
