"""Projectors and predictors of joint-embedding methods: dense layers with batch normalisation between them."""

from functools import lru_cache, partial
from itertools import pairwise

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax.models.functional import ModelFunctions, functions
from vit_jax.models.layers.batch_norm import BatchNorm
from vit_jax.models.layers.dense import Dense
from vit_jax.models.layers.module import Module


class Projector(Module):
    """Features to projections, or projections to predictions.

    Args:
      sizes: widths of the input, hidden layers and output; each hidden layer is normalised over the batch, and a ReLU
        follows.
      last_norm: the output is normalised over the batch too, without scale and shift of its own.
      rngs: source of the keys that initialise the parameters.
    """

    def __init__(self, sizes: tuple[int, ...], last_norm: bool = False, *, rngs: nnx.Rngs):
        self.ends_normed = last_norm
        pairs, normed = list(pairwise(sizes)), len(sizes) - 2 + last_norm
        # A shift before a batch norm is taken out by it.
        self.layers = nnx.List(
            [Dense((i,), (o,), use_bias=index >= normed, rngs=rngs) for index, (i, o) in enumerate(pairs)]
        )
        norms = [BatchNorm(o, affine=index < len(pairs) - 1) for index, (_, o) in enumerate(pairs[:normed])]
        self.norms = nnx.List(norms)

    def __call__(self, x: jax.Array, training: bool = False) -> jax.Array:
        """Return `(b, o)` float32 of `x` `(b, i)`; with `training`, by the statistics of this batch."""
        *hidden, last = self.layers
        for layer, norm in zip(hidden, self.norms):
            x = jax.nn.relu(norm(layer(x), training))
        # What losses compare feeds exponentials and covariances.
        x = last(x.astype(jnp.float32))
        return self.norms[-1](x, training) if self.ends_normed else x


@lru_cache(maxsize=16)
def projector_functions(sizes: tuple[int, ...], last_norm: bool = False) -> ModelFunctions:
    """Return the pure functions of a projector or predictor; its running statistics are its buffers."""
    return functions(partial(Projector, sizes, last_norm))
