"""Multi-head attention (Vaswani et al. 2017, arXiv 1706.03762). Letters: `h` heads, `k` head dimension."""

import importlib
from functools import partial
from types import ModuleType
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax.errors import ConfigError
from vit_jax.models.layers.dense import Dense, dense, value_of
from vit_jax.models.layers.dropout import dropout
from vit_jax.models.layers.encoder_config import EncoderConfig
from vit_jax.models.layers.kernels.softmax import softmax_matmul
from vit_jax.models.layers.module import Module
from vit_jax.models.layers.norm import norm_of
from vit_jax.models.layers.placement import is_known, on_each_device, platform
from vit_jax.models.layers.positions.relative import RelativePositions
from vit_jax.models.layers.positions.rotary import Rotation, rotate
from vit_jax.random import fold


class Surroundings(NamedTuple):
    """What attention knows beside its input; the same in every block.

    Attributes:
      grid: rows and columns of patches, for blocks with relative positions of their own.
      rotation: rotary positions.
      bias: `(h, n, m)` added to the scores.
      mask: `(b, 1, n, m)`, or with sizes of 1 to be broadcast, True where a query may see a key.
      sizes: `(b, m)`, how many tokens each key stands for; it is attended to as often (proportional attention, Bolya
        et al. 2022, arXiv 2210.09461). Only without `bias` and biases of the blocks.
      places: `(2, n)` coordinates of patches, for blocks with rotary frequencies of their own.
      block: the number of the block, float32, where attention depends on it.
    """

    grid: tuple[int, int] | None = None
    rotation: Rotation | None = None
    bias: jax.Array | None = None
    mask: jax.Array | None = None
    sizes: jax.Array | None = None
    places: jax.Array | None = None
    block: jax.Array | None = None


ALONE = Surroundings()


def attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    *,
    bias: jax.Array | None = None,
    mask: jax.Array | None = None,
    implementation: str = "auto",
    dropout_rate: float = 0.0,
    key: jax.Array | None = None,
    return_weights: bool = False,
    windows: int = 1,
) -> tuple[jax.Array, jax.Array | None]:
    """Return `softmax(q k^T / sqrt(k) + bias) v` and, if asked for, the weights.

    `auto` takes cuDNN on GPUs when dtype and head dimension allow it, and there XLA's own form otherwise; on TPUs the
    kernel of `models.layers.kernels.short_attention` for bfloat16, without mask, for up to `MAX_TOKENS` tokens and at
    least `MIN_QUERIES`, several short sequences counted together, unless heads that do not fill lanes have to stay
    together and are too many for one program; elsewhere the explicit form, which is the fastest on CPUs and takes less
    memory on TPUs, where XLA's keeps float32 scores for the backward pass. Weights and dropout of weights need the
    explicit form, which is then used whatever was asked for; so does, beside the kernel, a mask, or a bias of every
    image or not of every query and key. Beside a bias or a mask, XLA's form stands in for cuDNN's, whose gradient jax
    offers for even numbers of tokens alone. Odd ones, as a class token beside a whole grid makes them, are padded by
    one.

    Args:
      q: `(b, n, h, k)`.
      k, v: `(b, m, h, k)`, `m` being the number of keys.
      bias: `(h, n, m)` added to the scores, or None; `(w, h, n, m)` for `w` windows of an image one after the other
        in `b`, of which each has its own; sizes of 1 after `w` are broadcast.
      mask: `(b, 1, n, m)`, sizes of 1 being broadcast, True where a query may see a key; or None.
      implementation: `auto`, `explicit`, `xla`, `cudnn` or `kernel`.
      dropout_rate: dropout of the weights.
      key: None for evaluation.
      return_weights: whether to return the weights `(b, h, n, m)`, before dropout.
      windows: how many sequences, one after the other in `b`, are those of one image; changes nothing but speed.

    Returns:
      The output `(b, n, h, k)`, and the weights or None.

    Raises:
      ConfigError: the kernel was asked for where there is none.
    """
    plain = bias is None and mask is None
    shared = mask is None and (bias is None or _is_shared(bias, q, k))
    if implementation == "auto":
        implementation = _best_implementation(q, k, bias is not None, shared, windows)
    if implementation == "explicit" or return_weights or (dropout_rate and key is not None):
        return _explicit(q, k, v, bias, mask, dropout_rate, key, return_weights)
    if implementation == "kernel":
        _check_kernel(q, k, windows, bias is not None)
        if not shared:
            return _explicit(q, k, v, bias, mask, dropout_rate, key, return_weights)
        # Not by heads: a last axis of 64 would be laid out in rows half empty.
        flat = (x.reshape(*x.shape[:2], -1) for x in (q, k, v))
        if bias is not None:
            bias = bias[None] if bias.ndim == 3 else bias
            bias = jnp.broadcast_to(bias, (bias.shape[0], q.shape[2], *bias.shape[2:]))
        attend = partial(_together().attend, windows=windows)
        return on_each_device(attend, q.shape[2], *flat, bias=bias).reshape(q.shape), None
    if implementation == "cudnn" and plain:
        return _cudnn(q, k, v), None
    attend = partial(jax.nn.dot_product_attention, implementation="xla")
    if bias is not None:
        bias = bias[None] if bias.ndim == 3 else jnp.tile(bias, (q.shape[0] // bias.shape[0], 1, 1, 1))
    return attend(q, k, v, None if bias is None else bias.astype(q.dtype), mask), None


def _cudnn(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    (b, n), m = q.shape[:2], k.shape[1]
    attend = partial(jax.nn.dot_product_attention, implementation="cudnn")
    if n % 2 == m % 2 == 0:
        return attend(q, k, v)
    q, k, v = (jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, 0), (0, 0))) for x in (q, k, v))
    # Of queries none is masked: one that sees no key would be 0 / 0.
    return attend(q, k, v, key_value_seq_lengths=jnp.full(b, m, jnp.int32))[:, :n]


def _together() -> ModuleType:
    # Not above: what writes kernels takes a fifth of a second to import, and is needed for TPUs alone.
    return importlib.import_module("vit_jax.models.layers.kernels.together")


def _is_shared(bias: jax.Array, q: jax.Array, k: jax.Array) -> bool:
    """Return whether a bias is of every query and key, and the same for several images, or for all."""
    windows = 1 if bias.ndim == 3 else bias.shape[0]
    return bias.shape[-2:] == (q.shape[1], k.shape[1]) and (windows == 1 or windows < q.shape[0])


def _best_implementation(q: jax.Array, k: jax.Array, biased: bool, shared: bool, windows: int) -> str:
    backend = platform()
    if backend == "tpu" and shared and q.dtype == jnp.bfloat16 and is_known():
        pays = _together().pays(q.shape[1], k.shape[1], windows) and _fits_kernel(q, k, windows, biased)
        return "kernel" if pays else "explicit"
    if backend == "gpu":
        fits = q.dtype in (jnp.bfloat16, jnp.float16) and q.shape[-1] % 8 == 0 and q.shape[-1] <= 128
        return "cudnn" if fits else "xla"
    return "explicit"


def _fits_kernel(q: jax.Array, k: jax.Array, windows: int, biased: bool) -> bool:
    (_, queries, heads, size), keys = q.shape, k.shape[1]
    return _together().fits(heads, size, queries, keys, q.dtype.itemsize, windows, biased)


def _check_kernel(q: jax.Array, k: jax.Array, windows: int, biased: bool) -> None:
    tokens, heads, size = max(q.shape[1], k.shape[1]), *q.shape[2:]
    if platform() != "tpu" or not _fits_kernel(q, k, windows, biased):
        raise ConfigError(
            f"attention is 'kernel' on a {platform()} with {tokens} tokens and {heads} heads of {size} in {q.dtype}; "
            f"the kernel is for TPUs, at most {_together().MAX_TOKENS} tokens, or fewer where heads do not fill the "
            "lanes. "
            "Set model.attention to 'auto'."
        )


def _explicit(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    bias: jax.Array | None,
    mask: jax.Array | None,
    dropout_rate: float,
    key: jax.Array | None,
    return_weights: bool,
) -> tuple[jax.Array, jax.Array | None]:
    # Heads go before tokens: batched products on contiguous matrices are the fast ones on CPUs.
    q, k, v = (jnp.swapaxes(x, 1, 2) for x in (q, k, v))
    scores = jnp.einsum("bhnk,bhmk->bhnm", q * q.shape[-1] ** -0.5, k).astype(jnp.float32)
    if bias is not None:
        each = scores.reshape(-1, *bias.shape[:-3], *scores.shape[1:]) + bias.astype(jnp.float32)
        scores = each.reshape(scores.shape)
    if mask is not None:
        scores = jnp.where(mask, scores, jnp.finfo(jnp.float32).min)
    if not return_weights and (not dropout_rate or key is None):
        return jnp.swapaxes(softmax_matmul(scores, v), 1, 2), None
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
    out = jnp.einsum("bhnm,bhmk->bhnk", dropout(weights, dropout_rate, key), v)
    return jnp.swapaxes(out, 1, 2), weights if return_weights else None


class QueryKeyValue(Dense):
    """The projections to queries, keys and values, stored as one kernel; keys may do without their bias.

    Args:
      config: sizes and options.
      inputs: width of what comes in; None for that of the configuration.
      rngs: source of the keys.
    """

    def __init__(self, config: EncoderConfig, inputs: int | None = None, *, rngs: nnx.Rngs):
        d, h, k = config.width, config.heads, config.head_dim
        super().__init__(
            (inputs or d,), (3, h, k), use_bias=config.qkv_bias, scheme=config.init, fan_out=d, rngs=rngs
        )
        if config.qkv_bias and not config.k_bias:
            self.bias = nnx.Param(jnp.zeros((2, h, k)))

    def full_bias(self) -> jax.Array | None:
        """Return the bias `(3, h, k)`, zero where there is none of the keys'; or None."""
        bias = value_of(self.bias)
        if bias is None or bias.shape[0] == 3:
            return bias
        return jnp.stack([bias[0], jnp.zeros_like(bias[0]), bias[1]])

    def split(self, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Return queries, keys and values `(b, n, h, k)` of `x` `(b, n, d)`.

        Three products, though one kernel is stored: on TPUs the gradient of one product would first have to be put
        together and laid out anew, which takes as long as the products.
        """
        kernel, bias = self.kernel[...], self.full_bias()
        q, k, v = (dense(x, kernel[:, i], None if bias is None else bias[i]) for i in range(3))
        return q, k, v


class SelfAttention(Module):
    """Multi-head self-attention with the query, key and value projections stored as one kernel.

    Args:
      config: sizes and options.
      relative: what a relative position bias of this layer's own was made for, or None.
      rngs: source of the keys.
    """

    def __init__(self, config: EncoderConfig, relative: RelativePositions | None = None, *, rngs: nnx.Rngs):
        self.config = config
        self.relative = relative
        d, h, k = config.width, config.heads, config.head_dim
        self.qkv = QueryKeyValue(config, rngs=rngs)
        self.q_norm = norm_of(config, k) if config.qk_norm else None
        self.k_norm = norm_of(config, k) if config.qk_norm else None
        self.position_bias = nnx.Param(jnp.zeros((relative.rows, h))) if relative else None
        self.norm = norm_of(config, d) if config.attention_norm else None
        self.out = Dense((h, k), (d,), use_bias=config.branch_bias, scheme=config.init, rngs=rngs)

    def __call__(
        self,
        x: jax.Array,
        key: jax.Array | None,
        around: Surroundings = ALONE,
        return_weights: bool = False,
    ) -> tuple[jax.Array, jax.Array | None]:
        """Return the attention of `x` `(b, n, d)` to itself, and its weights `(b, h, n, n)` or None."""
        q, k, v = self.qkv.split(x)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        if around.rotation is not None:
            q, k = rotate(q, around.rotation), rotate(k, around.rotation)
        bias = around.bias
        if self.position_bias is not None and self.relative is not None:
            bias = self.relative.bias(self.position_bias[...], around.grid)
        if around.sizes is not None:
            bias = log_sizes(around.sizes)
        attend = partial(
            attention,
            implementation=self.config.attention,
            dropout_rate=self.config.attention_dropout_rate,
            return_weights=return_weights,
        )
        if self.config.remat == "attention":  # the backward pass makes scores and weights again from q and k
            attend = jax.checkpoint(attend)
        y, weights = attend(q, k, v, bias=bias, mask=around.mask, key=fold(key, "weights"))
        if self.norm is not None:
            y = self.norm(y.reshape(x.shape)).reshape(y.shape)
        return dropout(self.out(y), self.config.dropout_rate, fold(key, "out")), weights

    def keys(self, x: jax.Array) -> jax.Array:
        """Return the keys of `x` `(b, n, d)`, `(b, n, h, k)`, before any rotation."""
        _, k, _ = self.qkv.split(x)  # the compiler finds that a call makes the same, and leaves out the rest
        return k if self.k_norm is None else self.k_norm(k)


def log_sizes(sizes: jax.Array) -> jax.Array:
    """Return the bias of attention `(b, 1, 1, m)` by which keys count as often as they stand for, `(b, m)`."""
    return jnp.log(sizes)[:, None, None, :]
