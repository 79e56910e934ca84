"""Features made up for tests of probes: classes are clouds that overlap a little."""

from functools import cache

import jax
import numpy as np

from vit_jax.evaluation.probes.base import Features
from vit_jax.training.devices.mesh import batch_sharding, make_mesh


@cache
def rows(devices=8, fsdp=1):
    """How rows are divided over so many devices."""
    return batch_sharding(make_mesh({"data": -1, "fsdp": fsdp, "tensor": 1}, jax.devices()[:devices]))


@cache
def clouds(count=203, width=12, classes=4, seed=0, shift=5.0):
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((classes, width))
    labels = (np.arange(count) % classes).astype(np.int32)
    values = centres[labels] + 1.5 * rng.standard_normal((count, width)) * np.linspace(0.3, 3, width)
    return Features(values.astype(np.float32) + np.float32(shift), labels)
