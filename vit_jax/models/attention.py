"""Multi-head attention (Vaswani et al. 2017, arXiv 1706.03762). Letters: `h` heads, `k` head dimension."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax.models.layers import Dense, LayerNorm, dropout
from vit_jax.models.vit_config import ViTConfig
from vit_jax.random import fold


def attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    *,
    implementation: str = "auto",
    dropout_rate: float = 0.0,
    key: jax.Array | None = None,
    return_weights: bool = False,
) -> tuple[jax.Array, jax.Array | None]:
    """Return `softmax(q k^T / sqrt(k)) v` and, if asked for, the weights.

    `auto` takes cuDNN on GPUs when dtype and head dimension allow it, XLA's fused form on other
    accelerators, and the explicit form on CPUs, where it is the fastest. Weights and dropout of weights
    need the explicit form, which is then used whatever was asked for.

    Args:
      q: `(b, n, h, k)`.
      k, v: `(b, m, h, k)`, `m` being the number of keys.
      implementation: `auto`, `explicit`, `xla` or `cudnn`.
      dropout_rate: dropout of the weights.
      key: None for evaluation.
      return_weights: whether to return the weights `(b, h, n, m)`, before dropout.

    Returns:
      The output `(b, n, h, k)`, and the weights or None.
    """
    if implementation == "auto":
        implementation = _best_implementation(q)
    if implementation == "explicit" or return_weights or (dropout_rate and key is not None):
        return _explicit(q, k, v, dropout_rate, key, return_weights)
    return jax.nn.dot_product_attention(q, k, v, implementation=implementation), None  # pyright: ignore


def _best_implementation(q: jax.Array) -> str:
    backend = jax.default_backend()
    if backend == "gpu":
        fits = q.dtype in (jnp.bfloat16, jnp.float16) and q.shape[-1] % 8 == 0 and q.shape[-1] <= 128
        return "cudnn" if fits else "xla"
    return "explicit" if backend == "cpu" else "xla"


def _explicit(
    q: jax.Array, k: jax.Array, v: jax.Array, dropout_rate: float, key: jax.Array | None, return_weights: bool
) -> tuple[jax.Array, jax.Array | None]:
    # Heads go before tokens: batched products on contiguous matrices are the fast ones on CPUs.
    q, k, v = (jnp.swapaxes(x, 1, 2) for x in (q, k, v))
    scores = jnp.einsum("bhnk,bhmk->bhnm", q * q.shape[-1] ** -0.5, k)
    weights = jax.nn.softmax(scores.astype(jnp.float32), axis=-1).astype(v.dtype)
    out = jnp.einsum("bhnm,bhmk->bhnk", dropout(weights, dropout_rate, key), v)
    return jnp.swapaxes(out, 1, 2), weights if return_weights else None


class SelfAttention(nnx.Module):
    """Multi-head self-attention with the query, key and value projections stored as one kernel."""

    def __init__(self, config: ViTConfig, *, rngs: nnx.Rngs):
        self.config = config
        d, h, k = config.width, config.heads, config.head_dim
        self.qkv = Dense((d,), (3, h, k), use_bias=config.qkv_bias, scheme=config.init, fan_out=d, rngs=rngs)
        self.q_norm = LayerNorm(k, config.norm_epsilon) if config.qk_norm else None
        self.k_norm = LayerNorm(k, config.norm_epsilon) if config.qk_norm else None
        self.out = Dense((h, k), (d,), scheme=config.init, rngs=rngs)

    def __call__(
        self, x: jax.Array, key: jax.Array | None, return_weights: bool = False
    ) -> tuple[jax.Array, jax.Array | None]:
        """Return the attention of `x` `(b, n, d)` to itself, and its weights `(b, h, n, n)` or None."""
        qkv = self.qkv(x)
        q, k, v = (qkv[..., i, :, :] for i in range(3))
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        attend = partial(
            attention,
            implementation=self.config.attention,
            dropout_rate=self.config.attention_dropout_rate,
            return_weights=return_weights,
        )
        if self.config.remat == "attention":  # the backward pass makes scores and weights again from q and k
            attend = jax.checkpoint(attend)
        y, weights = attend(q, k, v, key=fold(key, "weights"))
        return dropout(self.out(y), self.config.dropout_rate, fold(key, "out")), weights
