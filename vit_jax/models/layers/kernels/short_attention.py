"""Attention over short sequences as a TPU kernel: scores never leave the chip (`docs/plans.md`).

What XLA makes of attention writes the scores of all heads to memory and reads them again several times; of a small
model that is half of a step. Here one program handles some heads of a few images: their queries, keys and values come
in as dense layers write them, `(n, h k)`, so that nothing is laid out anew, and all scores of one head fit on the
chip. Scores are held transposed, `(m, n)`: sums over keys then run along sublanes, where they are cheap. The backward
pass makes them again from the saved logarithms of the sums (Dao et al. 2022, arXiv 2205.14135, without its blocks).
"""

import math
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
_LARGEST_PROGRAM = 2**20  # scores that one program makes of an image: heads are written out, images a loop
_MEMORY = 15 * 2**20  # bytes of a program on the chip, of 16 MiB that the compiler gives it
_SCORE = 22  # bytes that a program needs for a score of one head and what is made of it
_ARRAYS = {FORWARD: 4, BACKWARD: 7}  # that a program reads or writes, beside sums
START = 700  # cycles of one program, whatever it does: as many as two heads of 196 tokens take
BYTES = 546  # that memory gives in a cycle, on v5e

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
      k, v: `(b, m, h k)`; of sizes for which `heads_together` is not 0.
      interpret: run without a TPU, slowly.

    Returns:
      `(b, n, h k)`.
    """
    return _attend(heads, interpret, q, k, v)  # pyright: ignore[reportReturnType]


def heads_together(heads: int, size: int, queries: int, keys: int, itemsize: int) -> int:
    """Return how many heads one program handles: their columns fill whole lanes, or they are all there are.

    Args:
      heads: `h`.
      size: `k`.
      queries, keys: `n` and `m`.
      itemsize: bytes of an element.

    Returns:
      A divisor of `heads`; 0 where a program has no room for what so many heads read and write.
    """
    rows = max(queries, keys)
    whole = [count for count in range(1, heads) if heads % count == 0 and count * size % _LANES == 0]
    room = [
        count
        for count in (*whole, heads)
        if rows <= MAX_TOKENS
        and image_bytes(rows, count * size, itemsize, BACKWARD) <= _room_for_images(queries, keys)
    ]
    fitting = [count for count in room if count * queries * keys <= _LARGEST_PROGRAM]
    return max(fitting, default=min(room, default=0))


def _room_for_images(queries: int, keys: int) -> int:
    """Return how many bytes one program may read and write beside its scores; the next one's lie there too."""
    return (_MEMORY - _SCORE * queries * keys) // 2


def image_bytes(rows: int, columns: int, itemsize: int, direction: str) -> int:
    """Return what one program reads and writes of an image, in whole tiles.

    Args:
      rows, columns: of one array: the larger of `n` and `m`; of the heads that a program handles.
      itemsize: bytes of an element.
      direction: `FORWARD` or `BACKWARD`.
    """
    tile = 32 // itemsize
    tiles = math.ceil(rows / tile) * math.ceil(columns / _LANES)
    return _ARRAYS[direction] * tiles * tile * _LANES * itemsize


def images_together(images: int, groups: int, each: int, queries: int, keys: int) -> int:
    """Return how many images one program handles, in equal numbers, so that starts and transfers take least.

    Every program costs its start, and the first one waits for what it reads; the others' is read meanwhile.

    Args:
      images: `b`.
      groups: of heads, each a program.
      each: `image_bytes` of one image.
      queries, keys: `n` and `m`.
    """
    room = _room_for_images(queries, keys)
    fitting = [count for count in range(1, images + 1) if images % count == 0 and count * each <= room]
    cost = {count: images // count * groups * START + count * each / BYTES for count in (1, *fitting)}
    return min(cost, key=cost.__getitem__)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _attend(heads: int, interpret: bool, q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    return _forward(heads, interpret, q, k, v)[0]


def _forward(
    heads: int, interpret: bool, q: jax.Array, k: jax.Array, v: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    program = _Program(heads, q, k, FORWARD)
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
    program = _Program(heads, q, k, BACKWARD)
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

    def __init__(self, heads: int, q: jax.Array, k: jax.Array, direction: str) -> None:
        (b, n, d), m = q.shape, k.shape[1]
        size = d // heads
        self.scale = size**-0.5
        self.together = heads_together(heads, size, n, m, q.dtype.itemsize)
        groups = heads // self.together
        each = image_bytes(max(n, m), self.together * size, q.dtype.itemsize, direction)
        images = images_together(b, groups, each, n, m)
        self.grid = (b // images, groups)
        self.queries, self.keys = (
            pl.BlockSpec((images, rows, self.together * size), lambda image, group: (image, 0, group))
            for rows in (n, m)
        )
        self.log_sums = pl.BlockSpec((images, 1, self.together, n), lambda image, group: (image, group, 0, 0))
        self.log_sums_shape = jax.ShapeDtypeStruct((b, groups, self.together, n), jnp.float32)


def _dot(a: Any, b: Any, dimensions: Any) -> Any:
    return jax.lax.dot_general(a, b, dimensions, preferred_element_type=jnp.float32)


def _forward_kernel(
    heads: int, scale: float, q_ref: Any, k_ref: Any, v_ref: Any, out_ref: Any, log_sums_ref: Any
) -> None:
    size = q_ref.shape[-1] // heads

    @pl.loop(0, q_ref.shape[0])
    def _(image: Any) -> None:
        for head in range(heads):
            columns = slice(head * size, (head + 1) * size)
            q, k, v = (ref[image, :, columns] for ref in (q_ref, k_ref, v_ref))
            scores = _dot(k, q, _BOTH_LAST) * scale  # (m, n)
            largest = scores.max(0, keepdims=True)
            weights = jnp.exp(scores - largest)
            sums = weights.sum(0, keepdims=True)
            out = _dot(v.T, weights.astype(v.dtype), _PLAIN) / sums  # (k, n)
            out_ref[image, :, columns] = out.T.astype(out_ref.dtype)
            log_sums_ref[image, 0, head : head + 1, :] = largest + jnp.log(sums)


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

    @pl.loop(0, q_ref.shape[0])
    def _(image: Any) -> None:
        for head in range(heads):
            columns = slice(head * size, (head + 1) * size)
            q, k, v, dout = (ref[image, :, columns] for ref in (q_ref, k_ref, v_ref, dout_ref))
            log_sums = log_sums_ref[image, 0, head : head + 1, :]
            weights = jnp.exp(_dot(k, q, _BOTH_LAST) * scale - log_sums)  # (m, n)
            dweights = _dot(v, dout, _BOTH_LAST)
            centre = (weights * dweights).sum(0, keepdims=True)
            dscores = (weights * (dweights - centre) * scale).astype(q.dtype)
            dv_ref[image, :, columns] = _dot(weights.astype(dout.dtype), dout, _PLAIN).astype(dv_ref.dtype)
            dk_ref[image, :, columns] = _dot(dscores, q, _PLAIN).astype(dk_ref.dtype)
            dq_ref[image, :, columns] = _dot(k.T, dscores, _PLAIN).T.astype(dq_ref.dtype)
