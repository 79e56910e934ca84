"""Attention over short sequences as a TPU kernel: scores never leave the chip (`docs/plans.md`).

What XLA makes of attention writes the scores of all heads to memory and reads them again several times; of a small
model that is half of a step. Here one program handles some heads of one image: their queries, keys and values come
in as dense layers write them, `(n, h k)`, so that nothing is laid out anew, and all scores of one head fit on the
chip. Scores are held transposed, `(m, n)`: sums over keys then run along sublanes, where they are cheap. The backward
pass makes them again from the saved logarithms of the sums (Dao et al. 2022, arXiv 2205.14135, without its blocks).
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

MAX_TOKENS = 640  # Beyond, the scores of a head and what is made of them no longer fit beside each other.
MIN_QUERIES = 16  # Of fewer, such as the one query of a pooling head, a program has too little to do.
FORWARD, BACKWARD = "short_attention_forward", "short_attention_backward"
_LANES = 128
# Chips of two cores may divide images and groups of heads between them.
_EACH_ALONE = pltpu.CompilerParams(dimension_semantics=("parallel", "parallel"))
_LARGEST_PROGRAM = 2**20  # scores that one program makes; heads are written out, and compiling takes as long

_BOTH_LAST = (((1,), (1,)), ((), ()))
_PLAIN = (((1,), (0,)), ((), ()))


def short_attention(
    heads: int, q: jax.Array, k: jax.Array, v: jax.Array, *, interpret: bool = False
) -> jax.Array:
    """Return `softmax(q k^T / sqrt(k)) v`, with its own gradient; it cannot be differentiated twice.

    Scores and sums are float32; weights are rounded to the dtype of `v` for their product, not divided by their
    sums before it.

    Args:
      heads: `h`.
      q: `(b, n, h k)`.
      k, v: `(b, m, h k)`; `n` and `m` at most `MAX_TOKENS`.
      interpret: run without a TPU, slowly.

    Returns:
      `(b, n, h k)`.
    """
    return _attend(heads, interpret, q, k, v)  # pyright: ignore[reportReturnType]


def heads_together(heads: int, size: int, scores: int) -> int:
    """Return how many heads one program handles: their columns fill whole lanes, or they are all there are.

    Args:
      heads: `h`.
      size: `k`.
      scores: `n m`.
    """
    whole = [count for count in range(1, heads) if heads % count == 0 and count * size % _LANES == 0]
    fitting = [count for count in (*whole, heads) if count * scores <= _LARGEST_PROGRAM]
    return max(fitting, default=min((*whole, heads)))


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _attend(heads: int, interpret: bool, q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    return _forward(heads, interpret, q, k, v)[0]


def _forward(
    heads: int, interpret: bool, q: jax.Array, k: jax.Array, v: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    program = _Program(heads, q, k)
    out, log_sums = pl.pallas_call(
        partial(_forward_kernel, program.together, program.scale),
        grid=program.grid,
        in_specs=[program.queries, program.keys, program.keys],
        out_specs=[program.queries, program.log_sums],
        out_shape=[jax.ShapeDtypeStruct(q.shape, q.dtype), program.log_sums_shape],
        compiler_params=_EACH_ALONE,
        interpret=interpret,
        name=FORWARD,
    )(q, k, v)
    return out, (q, k, v, log_sums)


def _backward(
    heads: int, interpret: bool, saved: tuple[jax.Array, ...], dout: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    q, k, v, log_sums = saved
    program = _Program(heads, q, k)
    dq, dk, dv = pl.pallas_call(
        partial(_backward_kernel, program.together, program.scale),
        grid=program.grid,
        in_specs=[program.queries, program.keys, program.keys, program.log_sums, program.queries],
        out_specs=[program.queries, program.keys, program.keys],
        out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (q, k, v)],
        compiler_params=_EACH_ALONE,
        interpret=interpret,
        name=BACKWARD,
    )(q, k, v, log_sums, dout)
    return dq, dk, dv


_attend.defvjp(_forward, _backward)


class _Program:
    """What one program sees of `q` `(b, n, h k)` and `k` `(b, m, h k)`."""

    def __init__(self, heads: int, q: jax.Array, k: jax.Array) -> None:
        (b, n, d), m = q.shape, k.shape[1]
        size = d // heads
        self.scale = size**-0.5
        self.together = heads_together(heads, size, n * m)
        groups = heads // self.together
        self.grid = (b, groups)
        self.queries, self.keys = (
            pl.BlockSpec((1, rows, self.together * size), lambda image, group: (image, 0, group))
            for rows in (n, m)
        )
        self.log_sums = pl.BlockSpec((1, 1, self.together, n), lambda image, group: (image, group, 0, 0))
        self.log_sums_shape = jax.ShapeDtypeStruct((b, groups, self.together, n), jnp.float32)


def _dot(a: Any, b: Any, dimensions: Any) -> Any:
    return jax.lax.dot_general(a, b, dimensions, preferred_element_type=jnp.float32)


def _forward_kernel(
    heads: int, scale: float, q_ref: Any, k_ref: Any, v_ref: Any, out_ref: Any, log_sums_ref: Any
) -> None:
    size = q_ref.shape[-1] // heads
    for head in range(heads):
        columns = slice(head * size, (head + 1) * size)
        q, k, v = (ref[0, :, columns] for ref in (q_ref, k_ref, v_ref))
        scores = _dot(k, q, _BOTH_LAST) * scale  # (m, n)
        largest = scores.max(0, keepdims=True)
        weights = jnp.exp(scores - largest)
        sums = weights.sum(0, keepdims=True)
        out = _dot(v.T, weights.astype(v.dtype), _PLAIN) / sums  # (k, n)
        out_ref[0, :, columns] = out.T.astype(out_ref.dtype)
        log_sums_ref[0, 0, head : head + 1, :] = largest + jnp.log(sums)


def _backward_kernel(
    heads: int,
    scale: float,
    q_ref: Any,
    k_ref: Any,
    v_ref: Any,
    log_sums_ref: Any,
    dout_ref: Any,
    dq_ref: Any,
    dk_ref: Any,
    dv_ref: Any,
) -> None:
    size = q_ref.shape[-1] // heads
    for head in range(heads):
        columns = slice(head * size, (head + 1) * size)
        q, k, v, dout = (ref[0, :, columns] for ref in (q_ref, k_ref, v_ref, dout_ref))
        weights = jnp.exp(_dot(k, q, _BOTH_LAST) * scale - log_sums_ref[0, 0, head : head + 1, :])  # (m, n)
        dweights = _dot(v, dout, _BOTH_LAST)
        centre = (weights * dweights).sum(0, keepdims=True)
        dscores = (weights * (dweights - centre) * scale).astype(q.dtype)
        dv_ref[0, :, columns] = _dot(weights.astype(dout.dtype), dout, _PLAIN).astype(dv_ref.dtype)
        dk_ref[0, :, columns] = _dot(dscores, q, _PLAIN).astype(dk_ref.dtype)
        dq_ref[0, :, columns] = _dot(k.T, dscores, _PLAIN).T.astype(dq_ref.dtype)
