"""The projection head of DINO (Caron et al. 2021, arXiv 2104.14294), of iBOT and DINOv2 too."""

from itertools import pairwise

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax.models.heads.dino.config import DinoHeadConfig
from vit_jax.models.layers.activations import ACTIVATIONS
from vit_jax.models.layers.dense import Dense, dense
from vit_jax.models.layers.module import Module
from vit_jax.models.layers.norm import unit


class Prototypes(Module):
    """Dense layer without bias whose weights are a direction and a length (Salimans & Kingma 2016, arXiv 1602.07868).

    Without lengths of their own, they all have length 1, and outputs are cosines.
    """

    def __init__(self, inputs: int, outputs: int, lengths: bool = True, *, rngs: nnx.Rngs):
        limit = inputs**-0.5
        shape = (inputs, outputs)
        self.kernel = nnx.Param(jax.random.uniform(rngs.params(), shape, jnp.float32, -limit, limit))
        self.scale = nnx.Param(jnp.ones((outputs,))) if lengths else None

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return `(..., outputs)` for `x` `(..., inputs)`."""
        kernel = unit(self.kernel[...], axis=0)
        return dense(x, kernel if self.scale is None else kernel * self.scale[...])


class DinoHead(Module):
    """Features to the scores of prototypes: three dense layers with GELU, a unit vector, its products.

    Args:
      config: sizes.
      rngs: source of the keys that initialise the parameters.
    """

    def __init__(self, config: DinoHeadConfig, *, rngs: nnx.Rngs):
        self.config = config
        sizes = (config.input_dim, config.hidden_dim, config.hidden_dim, config.bottleneck_dim)
        self.layers = nnx.List(
            [Dense((i,), (o,), scheme="trunc_normal", rngs=rngs) for i, o in pairwise(sizes)]
        )
        sizes = config.bottleneck_dim, config.output_dim
        self.prototypes = Prototypes(*sizes, lengths=not config.norm_last_layer, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return scores `(..., output_dim)` float32 of features `x` `(..., input_dim)`."""
        first, second, last = self.layers
        for layer in (first, second):
            x = ACTIVATIONS["gelu"](layer(x))
        # Divided by small temperatures, scores feed exponentials.
        return self.prototypes(unit(last(x).astype(jnp.float32)))
