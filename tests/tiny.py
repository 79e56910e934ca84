"""Models, parameters and batches small enough for tests that compile them many times."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax.models.registry import model_functions
from vit_jax.models.vit.config import ViTConfig, replace
from vit_jax.trees import flatten, map_named, unflatten

# Rolled: one block to compile.
TINY = ViTConfig(image_size=16, patch_size=4, width=32, depth=2, heads=2, mlp_dim=64, num_classes=5, unroll=1)


def tiny(**changes):
    return replace(TINY, **changes)


@cache
def functions(config):
    return model_functions(config)


def randomised(shapes, seed=0):
    """Parameters with noise everywhere: fresh ones would hide what zero heads and biases multiply.

    Made by NumPy, since compiling the initialisation takes longer than most tests.
    """
    rng = np.random.default_rng(seed)

    def make(name, leaf):
        noise = 0.15 * rng.standard_normal(leaf.shape)
        if name.endswith("variance"):
            noise = 0.1 + np.abs(noise)
        return jnp.asarray(name.endswith("scale") + noise, jnp.float32)

    return map_named(make, shapes)


@cache
def parameters(config, seed=0):
    """Parameters, and batch statistics among them."""
    model = functions(config)
    return randomised(unflatten(flatten(model.abstract) | flatten(model.abstract_buffers)), seed)


def pixels(batch=2, height=16, width=16, channels=3, seed=0):
    shape = (batch, height, width, channels)
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def run(config, images, key=None, params=None, capture=()):
    """The model's output, compiled, with randomised parameters unless they are given."""
    params = parameters(config) if params is None else params
    return jax.jit(functions(config).apply, static_argnames="capture")(params, images, key, capture=capture)


def labelled(batch=8, size=16, channels=3, classes=5, seed=0):
    """A batch as the data pipeline ships it."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (batch, size, size, channels), dtype=np.uint8)
    label = rng.integers(0, classes, batch, dtype=np.int32)
    return {"image": jnp.asarray(image), "label": jnp.asarray(label)}


def assert_trees_close(ours, other, rtol=1e-6, atol=1e-7):
    """Every leaf agrees to `rtol` of its largest value, plus `atol`."""
    assert jax.tree.structure(ours) == jax.tree.structure(other)
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(ours), jax.tree.leaves(other)):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        limit = rtol * np.abs(b).max() + atol
        assert np.abs(a - b).max() <= limit, f"{jax.tree_util.keystr(path)}: {np.abs(a - b).max()} > {limit}"
