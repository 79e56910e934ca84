"""Muon: matrices move along the orthogonal matrix nearest to their momentum."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from vit_jax import trees
from vit_jax.errors import ConfigError
from vit_jax.models.families import kernels
from vit_jax.models.family import Kernel
from vit_jax.training.parts.treatments import stack_of

# Of a polynomial that brings singular values between 0.7 and 1.2 in few steps, rather than to 1 in many.
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_STEPS = (2, 3)
# Root mean square of an update, about that of AdamW's, whose learning rate and decay are then right for it too.
_SIZE = 0.2


class MuonState(NamedTuple):
    """Averages of the gradients, a tree like the parameters."""

    mu: Any


def scale_by_muon(momentum: float, nesterov: bool, dtype: Any = None) -> optax.GradientTransformation:
    """Return the update rule `w <- w - rate * 0.2 sqrt(max(rows, columns)) * orthogonal(average)`.

    Jordan et al. 2024 (https://kellerjordan.github.io/posts/muon), scaled by Liu et al. 2025, arXiv 2502.16982. The
    kernels of convolutions are matrices of what is summed over by their channels; queries, keys and values are three
    matrices, and so is each block of stacked ones. Depthwise convolutions are none, see `is_depthwise`.

    Args:
      momentum: of the average `m = momentum m + (1 - momentum) g`; 0.95 in the paper.
      nesterov: whether the matrix is that of `momentum m + (1 - momentum) g`, as in the paper, or of `m`.
      dtype: of the average; None for that of the parameters.

    Raises:
      ConfigError: a parameter that is no matrix; raised by `init`.
    """

    def init(params: Any) -> MuonState:
        for path, leaf in trees.flatten(params).items():
            if leaf.ndim - bool(stack_of(path)) < 2:
                raise ConfigError(
                    f"optimizer.matrices matches {path}, a vector, which cannot be made orthogonal; let its patterns "
                    "end with 'kernel$'."
                )
        return MuonState(optax.tree.zeros_like(params, dtype=dtype))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, MuonState]:
        del params

        def average(m: jax.Array, g: jax.Array) -> jax.Array:
            return momentum * m + (1 - momentum) * g

        mu = jax.tree.map(average, state.mu, updates)
        ahead = jax.tree.map(average, mu, updates) if nesterov else mu
        directions = trees.map_named(_direction, ahead)
        return directions, MuonState(optax.tree.cast(mu, dtype))

    return optax.GradientTransformation(init, update)


def is_depthwise(path: str, kernel: Any) -> bool:
    """Return whether a kernel has one filter for each channel, `(p, q, c)`, and so maps no channel to another."""
    return kernel.ndim - bool(stack_of(path)) == 3 and _kernel(path) is None


def orthogonal(x: jax.Array) -> jax.Array:
    """Return about the orthogonal matrix nearest to `x`, by five steps of a Newton-Schulz iteration.

    Args:
      x: float32 `(..., m, n)`.

    Returns:
      `(..., m, n)` with the singular vectors of `x`, and singular values between 0.7 and 1.2.
    """
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / (jnp.sqrt(jnp.square(x).sum((-2, -1), keepdims=True)) + 1e-7)
    a, b, c = _COEFFICIENTS
    # Each step multiplies `x` by a polynomial of the smaller `x @ x.mT`. Some are multiplied with each other first, but
    # not all: small singular values grow 500 times, and so would errors.
    with jax.default_matmul_precision("highest"):
        for steps in _STEPS:
            gram, whole = x @ x.mT, jnp.eye(x.shape[-2], dtype=x.dtype)
            for _ in range(steps):
                factor = a * jnp.eye(x.shape[-2], dtype=x.dtype) + b * gram + c * gram @ gram
                whole, gram = factor @ whole, factor @ gram @ factor
            x = whole @ x
    return x.mT if tall else x


def _direction(path: str, average: jax.Array) -> jax.Array:
    """Return the update of one kernel."""
    kernel = _kernel(path)
    stacked, several = bool(stack_of(path)), kernel is not None and len(kernel.layers) > 1
    # Usual kernels sum over all axes but the last.
    inputs = kernel.inputs if kernel else average.ndim - 1 - stacked
    split = stacked + inputs
    x = jnp.moveaxis(average, split, 0) if several else average
    first = stacked + several
    rows = math.prod(x.shape[first : first + inputs])
    columns = math.prod(x.shape[first + inputs :])
    matrices = orthogonal(x.reshape(-1, rows, columns)).reshape(x.shape) * (_SIZE * max(rows, columns) ** 0.5)
    return jnp.moveaxis(matrices, 0, split) if several else matrices


def _kernel(path: str) -> Kernel | None:
    """Return what is known of the axes of a kernel, other than that all but the last are summed over."""
    words = path.split("/")[:-1]
    known = kernels()
    return next((known[name] for n in range(len(words)) if (name := "/".join(words[n:])) in known), None)
