"""From tokens to one vector per image."""

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax.models.layers.attention import attention, log_sizes
from vit_jax.models.layers.dense import Dense, initial_kernel
from vit_jax.models.layers.mlp import Mlp
from vit_jax.models.layers.module import Module
from vit_jax.models.layers.norm import norm_of
from vit_jax.models.vit.config import ViTConfig
from vit_jax.models.vit.merging import Merged


class AttentionPool(Module):
    """Multi-head attention pooling (MAP): a learned probe attends to all tokens, then an MLP.

    Source: Zhai et al. 2021, arXiv 2106.04560; Lee et al. 2018, arXiv 1810.00825.
    """

    def __init__(self, config: ViTConfig, *, rngs: nnx.Rngs):
        self.config = config
        d, h = config.width, config.pool_heads or config.heads
        k = d // h
        self.probe = nnx.Param(initial_kernel(config.init, rngs.params(), (1, d), 1, d))
        self.q = Dense((d,), (h, k), scheme=config.init, rngs=rngs)
        self.kv = Dense((d,), (2, h, k), scheme=config.init, fan_out=d, rngs=rngs)
        self.out = Dense((h, k), (d,), scheme=config.init, rngs=rngs)
        self.norm = norm_of(config, d)
        self.mlp = Mlp(config, hidden=config.pool_mlp_dim or None, rngs=rngs)

    def __call__(
        self,
        x: jax.Array,
        key: jax.Array | None = None,
        valid: jax.Array | None = None,
        sizes: jax.Array | None = None,
    ) -> jax.Array:
        """Return `(b, d)` of tokens `(b, n, d)`; `valid` and `sizes` `(b, n)` say which count, and how often."""
        b, _, d = x.shape
        probe = jnp.broadcast_to(self.probe[...], (b, 1, d)).astype(x.dtype)  # see `layers.dense.spread`
        kv = self.kv(x)
        y, _ = attention(
            self.q(probe),
            kv[..., 0, :, :],
            kv[..., 1, :, :],
            bias=None if sizes is None else log_sizes(sizes),
            mask=None if valid is None else valid[:, None, None, :],
            implementation=self.config.attention,
        )
        y = self.out(y)
        return (y + self.mlp(self.norm(y), key))[:, 0]


def pool_tokens(
    x: jax.Array,
    config: ViTConfig,
    attention_pool: AttentionPool | None,
    key: jax.Array | None,
    valid: jax.Array | None = None,
    merged: Merged | None = None,
) -> jax.Array:
    """Return one vector per image, `(b, d)`, or `(b, 2 d)` for `cls_mean`; tokens for `patches` and `none`.

    Args:
      x: tokens `(b, prefix + n, d)`.
      config: says which pooling; a mean leaves out class, distillation and register tokens.
      attention_pool: the module of pool `map`.
      key: None for evaluation.
      valid: which tokens count, `(b, prefix + n)` bool; None for all.
      merged: what the tokens were made of; None where each is one. Attention pooling and means are those over all
        that they stand for.
    """
    if config.two_heads and config.pool == "cls":
        return x[:, :2].mean(axis=1)
    if config.pool == "cls":
        return x[:, 0]
    if config.pool == "map" and attention_pool is not None:
        sizes = None if merged is None or not config.merge_proportional else merged.sizes
        if not config.pool_prefix:
            x = x[:, config.prefix_tokens :]
            valid, sizes = (a if a is None else a[:, config.prefix_tokens :] for a in (valid, sizes))
        return attention_pool(x, key, valid, sizes)
    if merged is not None and config.pool in ("none", "patches"):
        x = merged.unmerged(x)
    if config.pool == "none":
        return x
    patches = x[:, config.prefix_tokens :]
    if config.pool == "patches":
        return patches
    mean = patches.mean(axis=1, where=None if valid is None else valid[:, config.prefix_tokens :, None])
    if merged is not None:
        sizes = merged.sizes[:, config.prefix_tokens :, None]
        mean = ((patches.astype(jnp.float32) * sizes).sum(axis=1) / sizes.sum(axis=1)).astype(x.dtype)
    return jnp.concatenate([x[:, 0], mean], axis=1) if config.pool == "cls_mean" else mean
