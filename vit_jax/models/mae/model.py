"""Masked autoencoder (He et al. 2021, arXiv 2111.06377): encoder on visible tokens, light decoder on all."""

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax.models.layers.dense import Dense, spread, value_of
from vit_jax.models.layers.encoder import apply_blocks, make_blocks
from vit_jax.models.layers.module import Module
from vit_jax.models.layers.norm import LayerNorm
from vit_jax.models.mae.config import MaeConfig
from vit_jax.models.mae.masking import random_masking, visible_patches
from vit_jax.models.vit.config import ViTConfig
from vit_jax.models.vit.embedding import position_table
from vit_jax.models.vit.model import VisionTransformer
from vit_jax.random import fold


class MaeDecoder(Module):
    """Visible tokens and mask tokens to the pixels of every patch.

    Args:
      config: size and positions of the decoder; its image and patch size say how many patches there are.
      encoder_width: width of the tokens that come in.
      rngs: source of the keys.
    """

    def __init__(self, config: ViTConfig, encoder_width: int, *, rngs: nnx.Rngs):
        self.config = config
        d, (p, q) = config.width, config.patch_size
        self.embed = Dense((encoder_width,), (d,), scheme=config.init, rngs=rngs)
        self.mask_token = nnx.Param(0.02 * jax.random.normal(rngs.params(), (1, d), jnp.float32))
        learned = config.position == "learned"
        self.pos_embed = nnx.Param(jnp.zeros((config.position_slots, d))) if learned else None
        self.blocks = make_blocks(config, rngs=rngs)
        self.norm = LayerNorm(d, config.norm_epsilon)
        self.head = Dense((d,), (p * q * config.in_channels,), scheme=config.init, rngs=rngs)

    def __call__(
        self, tokens: jax.Array, restore: jax.Array, prefix: int, key: jax.Array | None
    ) -> jax.Array:
        """Return patches `(b, n, p*q*c)`.

        Args:
          tokens: the encoder's output `(b, prefix + keep, encoder d)`.
          restore: `(b, n)`, from `random_masking`.
          prefix: number of tokens before the patches.
          key: None for evaluation.
        """
        x = self.embed(tokens)
        first, visible = x[:, :prefix], x[:, prefix:]
        b, keep, d = visible.shape
        hidden = jnp.broadcast_to(self.mask_token[...], (b, restore.shape[1] - keep, d)).astype(x.dtype)
        patches = jnp.take_along_axis(jnp.concatenate([visible, hidden], 1), restore[..., None], axis=1)
        x = jnp.concatenate([first, patches], axis=1)
        positions = position_table(self.config, value_of(self.pos_embed), self.config.grid)
        if positions is not None:
            # Registers, if any, stand between the class token and the patches and have no position.
            n = restore.shape[1]
            own = positions.shape[0] - n
            zeros = jnp.zeros((prefix - own, d), positions.dtype)
            x = x + spread(jnp.concatenate([positions[:own], zeros, positions[own:]]), x)
        x, _ = apply_blocks(self.blocks, x, key)
        return self.head(self.norm(x)[:, prefix:]).astype(jnp.float32)


class MaskedAutoencoder(Module):
    """Images `(b, h, w, c)` with most patches hidden to predictions of all patches.

    Args:
      config: encoder, see `mae_encoder_config`, and decoder.
      rngs: source of the keys.
    """

    def __init__(self, config: MaeConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.encoder = VisionTransformer(config.encoder, rngs=rngs)
        self.decoder = MaeDecoder(config.decoder, config.encoder.width, rngs=rngs)

    def __call__(
        self, images: jax.Array, noise: jax.Array, mask_ratio: float, key: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """Return predicted patches and which of them were hidden.

        Args:
          images: normalised images `(b, h, w, c)`.
          noise: `(b, n)` uniform numbers that choose the mask.
          mask_ratio: share of patches to hide.
          key: None for evaluation.

        Returns:
          Patches `(b, n, p*q*c)` float32 and the mask `(b, n)` float32, 1 where hidden.
        """
        prefix = self.encoder.config.prefix_tokens
        x = self.encoder.embed(images, fold(key, "embed"))
        first, patches = x[:, :prefix], x[:, prefix:]
        kept, restore, mask = random_masking(noise, visible_patches(patches.shape[1], mask_ratio))
        visible = jnp.take_along_axis(patches, kept[..., None], axis=1)
        tokens, _ = self.encoder.encode(jnp.concatenate([first, visible], axis=1), fold(key, "encoder"))
        return self.decoder(tokens, restore, prefix, fold(key, "decoder")), mask
