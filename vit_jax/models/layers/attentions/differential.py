"""Differential attention: the difference of two attentions, so that what both see as noise cancels."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax.models.layers.attention import ALONE, SelfAttention, Surroundings, attention
from vit_jax.models.layers.dropout import dropout
from vit_jax.models.layers.norm import RmsNorm
from vit_jax.random import fold


class DifferentialAttention(SelfAttention):
    """Self-attention whose heads attend twice, with one half of their channels each, and subtract.

    The second counts `exp(q1 k1) - exp(q2 k2) + s` times, of learned vectors; `s = 0.8 - 0.6 exp(-0.3 i)` in block `i`.

    Source: Ye et al. 2024, arXiv 2410.05258, as in timm.
    """

    def __init__(self, config: Any, relative: Any = None, *, rngs: nnx.Rngs):
        super().__init__(config, relative, rngs=rngs)
        k = config.head_dim
        self.lambdas = nnx.Param(0.1 * jax.random.normal(rngs.params(), (4, k // 2), jnp.float32))
        self.sub_norm = RmsNorm(k, 1e-5)

    def __call__(
        self,
        x: jax.Array,
        key: jax.Array | None,
        around: Surroundings = ALONE,
        return_weights: bool = False,
    ) -> tuple[jax.Array, jax.Array | None]:
        """Return the attention of `x` `(b, n, d)` to itself, and its weights' difference `(b, h, n, n)` or None."""
        assert around.block is not None
        start = 0.8 - 0.6 * jnp.exp(-0.3 * around.block)
        first, second = jnp.exp((self.lambdas[...][::2] * self.lambdas[...][1::2]).sum(axis=1))
        share = first - second + start
        q, k, v = self.qkv.split(x)
        attend = partial(
            attention,
            mask=around.mask,
            implementation="explicit",  # others want values as wide as keys
            dropout_rate=self.config.attention_dropout_rate,
            return_weights=return_weights,
        )
        if self.config.remat == "attention":
            attend = jax.checkpoint(attend)
        half = q.shape[-1] // 2
        y, weights = attend(q[..., :half], k[..., :half], v, key=fold(key, "weights"))
        noise, others = attend(q[..., half:], k[..., half:], v, key=fold(key, "others"))
        y = self.sub_norm(y - share.astype(y.dtype) * noise) * (1 - start).astype(y.dtype)
        if weights is not None and others is not None:
            weights = weights - share.astype(weights.dtype) * others
        return dropout(self.out(y), self.config.dropout_rate, fold(key, "out")), weights
