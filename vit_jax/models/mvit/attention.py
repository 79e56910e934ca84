"""Attention of maps whose queries, keys and values are pooled (Fan et al. 2021, arXiv 2104.11227; Li et al. 2021, arXiv
2112.01526). Written for maps of any number of axes: `h w` of images, or `t h w` of clips.

Letters: `y` counts heads, `k` is their width, `p` counts keys along one axis.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from vit_jax.models.layers.attention import QueryKeyValue, attention
from vit_jax.models.layers.convolutional import depthwise
from vit_jax.models.layers.dense import Dense
from vit_jax.models.layers.dropout import dropout
from vit_jax.models.layers.encoder_config import EncoderConfig
from vit_jax.models.layers.module import Module
from vit_jax.models.layers.norm import LayerNorm
from vit_jax.models.layers.positions.resample import resize_matrix
from vit_jax.models.mvit.config import table_sizes
from vit_jax.random import fold

Sides = tuple[int, ...]


def axes_of(sides: Sequence[int]) -> str:
    """Return the letters of a map's axes."""
    return "thw"[-len(sides) :]


class Pool(Module):
    """A depthwise convolution, the same for all heads, then a norm; tokens before the map go to the norm alone."""

    def __init__(self, sizes: Sides, config: EncoderConfig, *, rngs: nnx.Rngs):
        k, limit = config.head_dim, 1 / np.sqrt(np.prod(sizes))  # as torch starts it
        shape = (*sizes, k)
        self.kernel = nnx.Param(jax.random.uniform(rngs.params(), shape, jnp.float32, -limit, limit))
        self.norm = LayerNorm(k, config.norm_epsilon)

    def __call__(self, x: jax.Array, grid: Sides, strides: Sides) -> jax.Array:
        """Return `(b, p + m, y, k)` of tokens `x` `(b, p + n, y, k)`, of which the last are a map of sides `grid`."""
        b, tokens, heads, k = x.shape
        prefix = tokens - int(np.prod(grid))
        first, places = x[:, :prefix], x[:, prefix:].reshape(b, *grid, heads * k)
        places = depthwise(places, self.kernel[...].astype(x.dtype), strides).reshape(b, -1, heads, k)
        return self.norm(jnp.concatenate([first, places], axis=1))


class RelativePositions(Module):
    """What attention adds to scores by the distance of a query from a key along each axis, in terms of the query.

    Args:
      sizes: rows of each axis' table.
      width: of a head.
      rngs: source of the keys.
    """

    def __init__(self, sizes: Sides, width: int, *, rngs: nnx.Rngs):
        for axis, size in zip(axes_of(sizes), sizes):
            table = 0.02 * jax.random.normal(rngs.params(), (size, width), jnp.float32)
            setattr(self, axis, nnx.Param(table))

    def __call__(self, q: jax.Array, queries: Sides, keys: Sides) -> jax.Array:
        """Return `(b, y, p + n, p + m)`, 0 for tokens before the map, of queries `q` `(b, p + n, y, k)`."""
        b, tokens, heads, k = q.shape
        prefix, letters = tokens - int(np.prod(queries)), axes_of(queries)
        places = q[:, prefix:].reshape(b, *queries, heads, k)
        total = jnp.zeros((), q.dtype)
        for number, axis in enumerate(letters):
            table = resized(getattr(self, axis)[...], table_sizes(queries, keys)[number])
            rows = table[distances(queries[number], keys[number])].astype(q.dtype)
            scores = jnp.einsum(f"b{letters}yk,{axis}pk->by{letters}p", places, rows)
            others = [1] * len(keys)
            others[number] = keys[number]
            total = total + scores.reshape(b, heads, -1, *others)
        total = total.reshape(b, heads, tokens - prefix, -1)
        return jnp.pad(total, ((0, 0), (0, 0), (prefix, 0), (prefix, 0)))


def distances(queries: int, keys: int) -> np.ndarray:
    """Return the row of the table for each query and key along an axis, `(queries, keys)`; steps are of the finer.

    In float32 and in this order, as in torch: where sides do not divide, rounding decides which row is taken.
    """
    finer, coarser = np.float32(max(keys / queries, 1)), np.float32(max(queries / keys, 1))
    i, j = np.arange(queries, dtype=np.float32), np.arange(keys, dtype=np.float32)
    steps = i[:, None] * finer - j * coarser + (keys - 1) * coarser
    return steps.astype(np.int64)


def resized(table: jax.Array, size: int) -> jax.Array:
    """Return a table `(size', k)` for another number of distances, interpolated linearly as torchvision does."""
    if len(table) == size:
        return table
    matrix = jnp.asarray(resize_matrix(len(table), size, "bilinear"), table.dtype)
    return jnp.einsum("nm,mk->nk", matrix, table, precision=jax.lax.Precision.HIGHEST)


class PoolingAttention(Module):
    """Multi-head attention with pooled queries, keys and values; what is pooled of a query is added to its output.

    Args:
      config: of the blocks; its width is that of queries, keys and values.
      inputs: width of what comes in.
      sizes: of the pooling convolutions, by axis.
      strides: places from one query, and from one key, to the next, by axis.
      tables: rows of the tables of relative positions, by axis.
      rngs: source of the keys.
    """

    def __init__(
        self,
        config: EncoderConfig,
        inputs: int,
        sizes: Sides,
        strides: tuple[Sides, Sides],
        tables: Sides,
        *,
        rngs: nnx.Rngs,
    ):
        self.config, self.strides = config, strides
        self.qkv = QueryKeyValue(config, inputs, rngs=rngs)
        self.pool_q, self.pool_k, self.pool_v = (Pool(sizes, config, rngs=rngs) for _ in range(3))
        self.positions = RelativePositions(tables, config.head_dim, rngs=rngs)
        self.out = Dense((config.heads, config.head_dim), (config.width,), scheme=config.init, rngs=rngs)

    def __call__(
        self, x: jax.Array, key: jax.Array | None, grid: Sides, return_weights: bool = False
    ) -> tuple[jax.Array, jax.Array | None]:
        """Return attention `(b, p + n', d)` of tokens `x` `(b, p + n, c)`, and its weights `(b, y, p + n', p + m)`."""
        q_strides, kv_strides = self.strides
        q, k, v = self.qkv.split(x)
        q = self.pool_q(q, grid, q_strides)
        k, v = self.pool_k(k, grid, kv_strides), self.pool_v(v, grid, kv_strides)
        queries, keys = (
            tuple(-(-side // stride) for side, stride in zip(grid, strides)) for strides in self.strides
        )
        attend = partial(
            attention,
            implementation=self.config.attention,
            dropout_rate=self.config.attention_dropout_rate,
            return_weights=return_weights,
        )
        if self.config.remat == "attention":  # the backward pass makes scores and weights again from q and k
            attend = jax.checkpoint(attend)
        y, weights = attend(q, k, v, bias=self.positions(q, queries, keys), key=fold(key, "weights"))
        return dropout(self.out(y + q), self.config.dropout_rate, fold(key, "out")), weights
