"""Attention inside windows, with a bias by relative position; of version 2, by cosine similarity."""

import math
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax.models.layers.attention import QueryKeyValue, attention
from vit_jax.models.layers.dense import Dense
from vit_jax.models.layers.dropout import dropout
from vit_jax.models.layers.encoder_config import EncoderConfig
from vit_jax.models.layers.module import Module
from vit_jax.models.layers.positions.windows import Cut, Sides, log_offsets, offset_rows
from vit_jax.models.swin.config import BIAS_UNITS
from vit_jax.random import fold

LARGEST_SCALE = math.log(100)  # of the temperature's logarithm


@dataclass(frozen=True)
class WindowPositions:
    """What attention knows of places in a window, for all blocks of a stage.

    Attributes:
      table: sides of the windows that positions are learned for.
      bias: `table` or `log`, see `SwinConfig`.
      pretrained: sides of the windows that the log scale was made for; None for `table`.
      cosine: whether scores are cosines with a learned temperature.
      mask_bias: what is added between places that a shift brought together.
    """

    table: Sides
    bias: str
    pretrained: Sides | None
    cosine: bool
    mask_bias: float

    @property
    def rows(self) -> int:
        """Number of offsets between two places."""
        return math.prod(2 * side - 1 for side in self.table)


class BiasMlp(Module):
    """Bias of attention as a function of the offset on a log scale (Liu et al. 2021, arXiv 2111.09883, section 3.3)."""

    def __init__(self, axes: int, heads: int, scheme: str, *, rngs: nnx.Rngs):
        self.fc1 = Dense((axes,), (BIAS_UNITS,), scheme=scheme, rngs=rngs)
        self.fc2 = Dense((BIAS_UNITS,), (heads,), use_bias=False, scheme=scheme, rngs=rngs)

    def __call__(self, offsets: jax.Array) -> jax.Array:
        """Return the bias `(rows, h)`, from 0 to 16, of offsets `(rows, axes)`."""
        return 16 * jax.nn.sigmoid(self.fc2(jax.nn.relu(self.fc1(offsets))))


class WindowAttention(Module):
    """Multi-head self-attention inside the windows of a map.

    Args:
      config: sizes and options.
      positions: see `WindowPositions`.
      rngs: source of the keys.
    """

    def __init__(self, config: EncoderConfig, positions: WindowPositions, *, rngs: nnx.Rngs):
        self.config, self.positions = config, positions
        d, h, k = config.width, config.heads, config.head_dim
        self.qkv = QueryKeyValue(config, rngs=rngs)
        learned = positions.bias == "table"
        noise = 0.02 * jax.random.normal(rngs.params(), (positions.rows, h), jnp.float32)
        self.position_bias = nnx.Param(noise) if learned else None
        axes = len(positions.table)
        self.bias_mlp = None if learned else BiasMlp(axes, h, config.init, rngs=rngs)
        self.logit_scale = nnx.Param(jnp.full((h,), math.log(10), jnp.float32)) if positions.cosine else None
        self.out = Dense((h, k), (d,), scheme=config.init, rngs=rngs)

    def __call__(
        self, x: jax.Array, key: jax.Array | None, around: tuple[Cut, Sides], return_weights: bool = False
    ) -> tuple[jax.Array, jax.Array | None]:
        """Return the attention of maps to themselves, and its weights `(b w, h, n, n)` or None.

        Args:
          x: maps `(b, *sides, d)`, or their places in the order of windows that divide them, `(b, w n, d)`.
          key: None for evaluation.
          around: how maps are cut, and their sides.
          return_weights: whether to return the weights.
        """
        cut, sides = around
        ordered = x.ndim == 3
        # Cut after the dense layer and joined before the other one: these are faster on whole rows.
        q, k, v = self.qkv.split(x if ordered else cut.split(x))
        rows = q.shape
        q, k, v = (y.reshape(-1, math.prod(cut.window), *y.shape[2:]) for y in (q, k, v))
        if self.logit_scale is not None:
            scale = jnp.exp(jnp.minimum(self.logit_scale[...], LARGEST_SCALE)) * math.sqrt(q.shape[-1])
            q, k = _directions(q, scale[:, None]), _directions(k)
        attend = partial(
            attention,
            implementation=self.config.attention,
            dropout_rate=self.config.attention_dropout_rate,
            return_weights=return_weights,
            windows=cut.count(sides),
        )
        if self.config.remat == "attention":  # the backward pass makes scores and weights again from q and k
            attend = jax.checkpoint(attend)
        y, weights = attend(q, k, v, bias=self.bias(cut, sides), key=fold(key, "weights"))
        y = self.out(y.reshape(rows))
        y = y if ordered else cut.join(y, sides)
        return dropout(y, self.config.dropout_rate, fold(key, "out")), weights

    def bias(self, cut: Cut, sides: Sides) -> jax.Array:
        """Return what is added to scores, `(h, n, n)`, or `(w, h, n, n)` where a shift makes windows differ."""
        positions = self.positions
        if self.bias_mlp is None:
            assert self.position_bias is not None
            table = self.position_bias[...]
        else:
            table = self.bias_mlp(jnp.asarray(log_offsets(positions.table, positions.pretrained)))
        bias = jnp.moveaxis(table[offset_rows(cut.window, positions.table)], -1, 0)
        near = cut.neighbours(sides)
        if near is None:
            return bias
        return bias + jnp.where(near, 0.0, jnp.float32(positions.mask_bias))[:, None]


def _directions(x: jax.Array, length: jax.Array | float = 1.0) -> jax.Array:
    """Return vectors `(..., k)` of a given length in the direction of `x`; zero stays zero."""
    wide = x.astype(jnp.float32)
    squares = jnp.square(wide).sum(axis=-1, keepdims=True)
    return (wide / jnp.sqrt(jnp.maximum(squares, 1e-24)) * length).astype(x.dtype)
