"""Masked autoencoder with a Hiera (Ryali et al. 2023, arXiv 2306.00989): the encoder sees whole mask units."""

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax.models.hiera.mae_config import HieraMaeConfig
from vit_jax.models.hiera.model import Hiera
from vit_jax.models.hiera.order import reroll, unroll
from vit_jax.models.layers.dense import Dense, spread
from vit_jax.models.layers.encoder import apply_blocks, make_blocks
from vit_jax.models.layers.module import Module
from vit_jax.models.layers.norm import LayerNorm
from vit_jax.models.mae.masking import random_masking, visible_patches
from vit_jax.random import fold


class UnitDecoder(Module):
    """Tokens of visible mask units and mask tokens to the pixels of every patch.

    Args:
      config: of the whole.
      rngs: source of the keys.
    """

    def __init__(self, config: HieraMaeConfig, *, rngs: nnx.Rngs):
        self.config = config
        blocks, (p, q), (h, w) = config.decoder, config.patch_size, config.grid
        d, scheme = blocks.width, blocks.init
        self.embed = Dense((config.encoder.feature_width,), (d,), scheme=scheme, rngs=rngs)
        self.mask_token = nnx.Param(0.02 * jax.random.normal(rngs.params(), (1, d), jnp.float32))
        self.pos_embed = nnx.Param(0.02 * jax.random.normal(rngs.params(), (h * w, d), jnp.float32))
        self.blocks = make_blocks(blocks, rngs=rngs)
        self.norm = LayerNorm(d, blocks.norm_epsilon)
        self.head = Dense((d,), (p * q * config.encoder.in_channels,), scheme=scheme, rngs=rngs)

    def __call__(self, tokens: jax.Array, hidden: jax.Array, key: jax.Array | None) -> jax.Array:
        """Return patches `(b, n, p*q*c)`, row by row.

        Args:
          tokens: of the visible units, in their order in the image, `(b, seen, f, f, encoder d)`.
          hidden: `(b, units)` float32, 1 where a unit is hidden.
          key: None for evaluation.
        """
        x = self.embed(tokens)
        b, seen, f, _, d = x.shape
        # Which of the visible units each one is; what hidden ones take is not used.
        place = jnp.clip(jnp.cumsum(1 - hidden, axis=1).astype(jnp.int32) - 1, 0, seen - 1)
        x = jnp.take_along_axis(x.reshape(b, seen, f * f * d), place[..., None], axis=1)
        x = x.reshape(b, -1, f * f, d)
        mask_token = jnp.broadcast_to(self.mask_token[...], x.shape).astype(x.dtype)
        x = jnp.where(hidden[:, :, None, None] > 0, mask_token, x)
        x = in_place(x.reshape(b, -1, f, f, d), self.config.unit_grid)
        x = x + spread(self.pos_embed[...], x)
        x, _ = apply_blocks(self.blocks, x, key)
        return self.head(self.norm(x)).astype(jnp.float32)


class HieraMae(Module):
    """Images `(b, h, w, c)` with most mask units hidden to predictions of all patches.

    Args:
      config: encoder and decoder.
      rngs: source of the keys.
    """

    def __init__(self, config: HieraMaeConfig, *, rngs: nnx.Rngs):
        self.config, encoder = config, config.encoder
        self.encoder = Hiera(encoder, rngs=rngs)
        width = (encoder.feature_width,)
        self.fusion = nnx.List(
            [Dense((side, side, d), width, scheme=encoder.init, rngs=rngs) for side, d in config.fused]
        )
        self.decoder = UnitDecoder(config, rngs=rngs)

    def __call__(
        self, images: jax.Array, noise: jax.Array, mask_ratio: float, key: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """Return predicted patches and which of them were hidden.

        Args:
          images: normalised images `(b, h, w, c)`.
          noise: `(b, units)` uniform numbers that choose the mask.
          mask_ratio: share of mask units to hide.
          key: None for evaluation.

        Returns:
          Patches `(b, n, p*q*c)` float32, row by row, and the mask `(b, n)` float32, 1 where hidden.
        """
        fused, hidden = self.encode(images, noise, mask_ratio, fold(key, "encoder"))
        assert self.encoder.norm is not None  # as the configuration has seen to
        predicted = self.decoder(self.encoder.norm(fused), hidden, fold(key, "decoder"))
        side = fused.shape[2]
        mask = jnp.broadcast_to(hidden[:, :, None, None, None], (*hidden.shape, side, side, 1))
        return predicted, in_place(mask, self.config.unit_grid)[..., 0]

    def encode(
        self, images: jax.Array, noise: jax.Array, mask_ratio: float, key: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """Return what the stages say together of the visible mask units, and which units were hidden.

        Args:
          images, noise, mask_ratio, key: as for the call.

        Returns:
          `(b, seen, f, f, d)`, units in their order in the image, before the norm; and `(b, units)` float32.
        """
        config, side = self.config.encoder, self.config.encoder.mask_unit
        kept, _, hidden = random_masking(noise, visible_patches(noise.shape[1], mask_ratio))
        kept = jnp.sort(kept, axis=1)
        visible = (1 - hidden).reshape(len(hidden), *self.config.unit_grid, 1)
        embedded = unroll(self.encoder.embed(images, visible), _depth(side))  # units row by row
        b, _, d = embedded.shape
        units = embedded.reshape(b, -1, side * side * d)
        x = jnp.take_along_axis(units, kept[..., None], axis=1).reshape(b, -1, d)
        ends, _ = self.encoder.encode(x, key)
        pools = config.pooled_stages
        fused = self._units(ends[-1], side >> pools)
        for number, layer in enumerate(self.fusion):
            maps = self._units(ends[number], side >> number)
            (_, seen, m, _, d), small = maps.shape, side >> pools
            squares = maps.reshape(b, seen, small, m // small, small, m // small, d).swapaxes(3, 4)
            fused = fused + layer(squares)
        return fused, hidden

    def _units(self, x: jax.Array, side: int) -> jax.Array:
        """Return tokens `(b, n, d)` of visible mask units as a map of each, `(b, seen, side, side, d)`."""
        b, n, d = x.shape
        units = n // side**2
        return reroll(x.reshape(b * units, side**2, d), _depth(side), (side, side)).reshape(
            b, units, side, side, d
        )


def in_place(units: jax.Array, grid: tuple[int, int]) -> jax.Array:
    """Return tokens `(b, n, d)`, row by row, of a map of each unit of a grid, `(b, units, f, f, d)`."""
    b, _, f, _, d = units.shape
    return units.reshape(b, *grid, f, f, d).swapaxes(2, 3).reshape(b, -1, d)


def _depth(side: int) -> int:
    """Return how many times a square of a power of two is divided down to one."""
    return side.bit_length() - 1
