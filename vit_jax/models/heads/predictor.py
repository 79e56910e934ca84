"""The predictor of I-JEPA (Assran et al. 2023, arXiv 2301.08243): from some patches' features to those of others."""

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax.models.layers.attention import Surroundings
from vit_jax.models.layers.dense import Dense, spread
from vit_jax.models.layers.encoder import apply_blocks, make_blocks
from vit_jax.models.layers.module import Module
from vit_jax.models.layers.norm import LayerNorm
from vit_jax.models.layers.positions.absolute import sincos2d
from vit_jax.models.vit.config import ViTConfig


class Predictor(Module):
    """A narrow Vision Transformer that sees the context's features, and a mask token at each place that is wanted.

    Args:
      config: its size; its grid is the encoder's.
      encoder_width: width of the features.
      rngs: source of the keys.
    """

    def __init__(self, config: ViTConfig, encoder_width: int, *, rngs: nnx.Rngs):
        self.config, d = config, config.width
        self.embed = Dense((encoder_width,), (d,), scheme=config.init, rngs=rngs)
        self.mask_token = nnx.Param(0.02 * jax.random.normal(rngs.params(), (1, d), jnp.float32))
        self.blocks = make_blocks(config, rngs=rngs)
        self.norm = LayerNorm(d, config.norm_epsilon)
        self.head = Dense((d,), (encoder_width,), scheme=config.init, rngs=rngs)

    def __call__(
        self,
        context: jax.Array,
        places: jax.Array,
        seen: jax.Array,
        wanted: jax.Array,
        valid: jax.Array,
        key: jax.Array | None = None,
    ) -> jax.Array:
        """Return predicted features `(b, t, m, encoder d)`, float32; each of the `t` blocks is predicted on its own.

        Args:
          context: the encoder's output `(b, k, encoder d)`.
          places: `(b, k)`, where in the grid its patches are.
          seen: `(b, k)` bool, False for padding.
          wanted: `(b, t, m)`, where the patches are whose features are predicted.
          valid: `(b, m)` bool, False for padding.
          key: None for evaluation.
        """
        b, t, m = wanted.shape
        positions = sincos2d(self.config.grid, self.config.width, "mae")
        x = self.embed(context)
        x = x + spread(positions[places], x)
        x = jnp.broadcast_to(x[:, None], (b, t, *x.shape[1:]))
        asked = (self.mask_token[...] + positions[wanted]).astype(x.dtype)
        x = jnp.concatenate([x, asked], axis=2).reshape(b * t, -1, x.shape[-1])
        known = jnp.concatenate([seen, valid], axis=1)
        known = jnp.broadcast_to(known[:, None], (b, t, known.shape[1])).reshape(b * t, 1, 1, -1)
        x, _ = apply_blocks(self.blocks, x, key, Surroundings(mask=known))
        x = self.head(self.norm(x[:, -m:])).astype(jnp.float32)
        return x.reshape(b, t, m, -1)
