"""The block of a Multiscale Vision Transformer, which may pool the map and widen it."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from vit_jax.models.layers.attention import Surroundings
from vit_jax.models.layers.convolutional import max_pool
from vit_jax.models.layers.dense import Dense
from vit_jax.models.layers.dropout import drop_path, dropout
from vit_jax.models.layers.mlp import Mlp
from vit_jax.models.layers.module import Module
from vit_jax.models.layers.norm import LayerNorm
from vit_jax.models.mvit.attention import PoolingAttention
from vit_jax.models.mvit.config import MvitConfig, Run
from vit_jax.random import fold


class MultiscaleBlock(Module):
    """Pooling attention and MLP, each a residual branch; what goes by is pooled and widened as the branch is.

    Args:
      config: of the whole model.
      run: which of its blocks these are.
      rngs: source of the keys.
    """

    def __init__(self, config: MvitConfig, run: Run, *, rngs: nnx.Rngs):
        self.config, self.q_stride = config.run(run), run.q_stride
        self.norm1 = LayerNorm(run.inputs, config.norm_epsilon)
        axes = len(run.grid)
        sizes = (config.pool_kernel,) * axes
        strides = (run.q_stride,) * axes, (run.kv_stride,) * axes
        self.attn = PoolingAttention(self.config, run.inputs, sizes, strides, run.tables, rngs=rngs)
        self.norm2 = LayerNorm(run.width, config.norm_epsilon)
        self.mlp = Mlp(self.config, run.outputs, rngs=rngs)
        self.skip1, self.skip2 = (
            Dense((i,), (o,), scheme=self.config.init, rngs=rngs) if i != o else None
            for i, o in ((run.inputs, run.width), (run.width, run.outputs))
        )

    def __call__(
        self,
        x: jax.Array,
        drop_path_rate: jax.Array,
        key: jax.Array | None,
        around: Surroundings,
        return_weights: bool = False,
    ) -> tuple[jax.Array, jax.Array | None]:
        """Return tokens `(b, p + n', d')` of tokens `x` `(b, p + n, d)` of the map `around.grid`, and the weights."""
        grid, config = around.grid, self.config
        assert grid is not None
        path_key = key if config.drop_path_rate else None
        normed = self.norm1(x)
        y, weights = self.attn(normed, fold(key, "attn"), grid, return_weights)
        # The way round starts at the norm where it has a layer of its own, and before it elsewhere.
        x = self._pooled(x if self.skip1 is None else self.skip1(normed), grid)
        x = x + drop_path(y, drop_path_rate, fold(path_key, "path1"))
        normed = self.norm2(x)
        y = dropout(self.mlp(normed, fold(key, "mlp")), config.dropout_rate, fold(key, "mlp_out"))
        x = x if self.skip2 is None else self.skip2(normed)
        return x + drop_path(y, drop_path_rate, fold(path_key, "path2")), weights

    def _pooled(self, x: jax.Array, grid: tuple[int, int]) -> jax.Array:
        """Return what goes round attention with as many places as its queries have."""
        if self.q_stride == 1:
            return x
        b, tokens, d = x.shape
        prefix = tokens - int(np.prod(grid))
        places = max_pool(x[:, prefix:].reshape(b, *grid, d), before=1)
        return jnp.concatenate([x[:, :prefix], places.reshape(b, -1, d)], axis=1)
