"""Attention whose queries, keys and values come from depthwise convolutions."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax.models.cvt.config import CvtConfig
from vit_jax.models.layers.attention import ALONE, Surroundings, attention
from vit_jax.models.layers.batch_norm import BatchNorm
from vit_jax.models.layers.convolutional import depthwise
from vit_jax.models.layers.dense import Dense
from vit_jax.models.layers.dropout import dropout
from vit_jax.models.layers.encoder_config import EncoderConfig
from vit_jax.models.layers.module import Module
from vit_jax.random import fold


class Projection(Module):
    """A depthwise convolution, a batch norm, and a dense layer to heads; a class token goes to that layer alone."""

    def __init__(self, config: CvtConfig, blocks: EncoderConfig, stride: int, *, rngs: nnx.Rngs):
        self.stride, size, d = stride, config.projection_kernel, blocks.width
        limit = 1 / size  # as torch starts it
        self.conv = DepthwiseKernel((size, size, d), limit, rngs=rngs)
        self.norm = BatchNorm(d, frozen=config.frozen_statistics)
        heads = (blocks.heads, blocks.head_dim)
        self.dense = Dense((d,), heads, use_bias=blocks.qkv_bias, scheme=blocks.init, rngs=rngs)

    def __call__(self, first: jax.Array, places: jax.Array, training: bool) -> jax.Array:
        """Return `(b, p + m, h, k)` of tokens `first` `(b, p, d)` and a map `places` `(b, h, w, d)`."""
        x = depthwise(places, self.conv.kernel[...].astype(places.dtype), (self.stride, self.stride))
        x = self.norm(x, training)
        return self.dense(jnp.concatenate([first, x.reshape(x.shape[0], -1, x.shape[-1])], axis=1))


class DepthwiseKernel(Module):
    """The kernel of a depthwise convolution."""

    def __init__(self, shape: tuple[int, ...], limit: float, *, rngs: nnx.Rngs):
        self.kernel = nnx.Param(jax.random.uniform(rngs.params(), shape, jnp.float32, -limit, limit))


class ConvAttention(Module):
    """Self-attention of a map, with fewer keys than queries; called as `SelfAttention`.

    Args:
      blocks: of the stage.
      config: of the whole model.
      rngs: source of the keys.
    """

    def __init__(self, blocks: EncoderConfig, config: CvtConfig, *, rngs: nnx.Rngs):
        self.config = blocks
        self.query = Projection(config, blocks, 1, rngs=rngs)
        self.key = Projection(config, blocks, config.kv_stride, rngs=rngs)
        self.value = Projection(config, blocks, config.kv_stride, rngs=rngs)
        heads = (blocks.heads, blocks.head_dim)
        self.out = Dense(heads, (blocks.width,), scheme=blocks.init, rngs=rngs)

    def __call__(
        self,
        x: jax.Array,
        key: jax.Array | None,
        around: Surroundings = ALONE,
        return_weights: bool = False,
    ) -> tuple[jax.Array, jax.Array | None]:
        """Return the attention of `x` `(b, p + n, d)` to itself, and its weights `(b, heads, p + n, p + m)` or None."""
        assert around.grid is not None
        h, w = around.grid
        b, tokens, d = x.shape
        prefix = tokens - h * w
        first, places = x[:, :prefix], x[:, prefix:].reshape(b, h, w, d)
        q, k, v = (project(first, places, key is not None) for project in (self.query, self.key, self.value))
        attend = partial(
            attention,
            implementation=self.config.attention,
            dropout_rate=self.config.attention_dropout_rate,
            return_weights=return_weights,
        )
        if self.config.remat == "attention":  # the backward pass makes scores and weights again from q and k
            attend = jax.checkpoint(attend)
        # Scores are divided by the root of the whole width, and not of a head's as everywhere else.
        y, weights = attend(q * self.config.heads**-0.5, k, v, key=fold(key, "weights"))
        return dropout(self.out(y), self.config.dropout_rate, fold(key, "out")), weights
