"""Attention with rotary frequencies of its own: learned ones, of both axes mixed in each pair of channels."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from vit_jax.models.layers.attention import ALONE, SelfAttention, Surroundings
from vit_jax.models.layers.positions.rotary import Rotation


class MixedAttention(SelfAttention):
    """Self-attention in which pair i of a head's channels turns by `x f_x[i] + y f_y[i]`, learned by head and block.

    Frequencies start as those of the axes, all pairs of a head turned by one random angle.

    Source: RoPE-Mixed, Heo et al. 2024, arXiv 2403.13298.
    """

    def __init__(self, config: Any, relative: Any = None, *, rngs: nnx.Rngs):
        super().__init__(config, relative, rngs=rngs)
        h, bands = config.heads, config.head_dim // 4
        turns = jax.random.uniform(rngs.params(), (h, 1), maxval=2 * np.pi)
        sizes = jnp.asarray(config.rope_theta ** -(np.arange(bands) / bands), jnp.float32)
        # The second half of the pairs looks along the axis at a right angle to the first one's.
        angles = jnp.concatenate([turns, turns + np.pi / 2], axis=1)[..., None]
        start = jnp.stack([jnp.cos(angles), jnp.sin(angles)]) * sizes
        self.frequencies = nnx.Param(start.reshape(2, h, 2 * bands))

    def __call__(
        self,
        x: jax.Array,
        key: jax.Array | None,
        around: Surroundings = ALONE,
        return_weights: bool = False,
    ) -> tuple[jax.Array, jax.Array | None]:
        """Return the attention of `x` `(b, n, d)` to itself, and its weights `(b, h, n, n)` or None."""
        assert around.places is not None
        first, second = self.frequencies[...][:, None]
        angles = around.places[0][..., None, None] * first + around.places[1][..., None, None] * second
        angles = jnp.repeat(angles, 2, axis=-1)
        turned = around._replace(
            rotation=Rotation(jnp.sin(angles), jnp.cos(angles), interleaved=True, by_head=True)
        )
        return super().__call__(x, key, turned, return_weights)
