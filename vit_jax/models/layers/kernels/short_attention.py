"""Attention over short sequences as a TPU kernel: scores never leave the chip (`docs/plans.md`).

What XLA makes of attention writes the scores of all heads to memory and reads them again several times; of a small
model that is half of a step. Here one program handles some heads of a few images: their queries, keys and values come
in as dense layers write them, `(n, h k)`, so that nothing is laid out anew, and all scores of one head fit on the
chip. Scores are held transposed, `(m, n)`: sums over keys then run along sublanes, where they are cheap. The backward
pass makes them again from the saved logarithms of the sums (Dao et al. 2022, arXiv 2205.14135, without its blocks).

Heads that share lanes are not cut out of them: products run over all lanes, with zeros in those of the other heads,
which takes the chip no longer; and what is transposed is so for all of them at once.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from vit_jax.models.layers.kernels.room import (
    BACKWARD,
    FORWARD,
    LANES,
    heads_together,
    image_bytes,
    images_together,
)

# Chips of two cores may divide windows and groups of heads between them; a bias's gradient is a sum over images.
_IN_ORDER = pltpu.CompilerParams(dimension_semantics=("parallel", "parallel", "arbitrary"))
_EACH_ALONE = pltpu.CompilerParams(dimension_semantics=("parallel", "parallel", "parallel"))

_BOTH_LAST = (((1,), (1,)), ((), ()))
_PLAIN = (((1,), (0,)), ((), ()))


def short_attention(
    heads: int,
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    bias: jax.Array | None = None,
    *,
    parts: int = 1,
    learned: bool = True,
    interpret: bool = False,
) -> jax.Array:
    """Return `softmax(q k^T / sqrt(k) + bias) v`, with its own gradient; it cannot be differentiated twice.

    Scores and sums are float32; weights are rounded to the dtype of `v` for their product, not divided by their
    sums before it.

    Args:
      heads: `h`.
      q: `(b, parts n, h k)`.
      k, v: `(b, parts m, h k)`; of sizes for which `room.heads_together` is not 0.
      bias: `(w, parts, h, n, m)` float32, of `w` windows of an image one after the other in `b`; of sizes 1 for parts
        or heads that are alike; or None.
      parts: how many sequences, which do not see each other, one after the other are a row of `b`.
      learned: whether `bias` has a gradient; without one it is zero, whatever it should be. Of all heads alike it
        has none.
      interpret: run without a TPU, slowly.

    Returns:
      `(b, parts n, h k)`.
    """
    turned = None if bias is None else bias.swapaxes(3, 4)
    return _attend(_Form(heads, parts, learned, interpret), q, k, v, turned)  # pyright: ignore[reportReturnType]


class _Form(NamedTuple):
    """Number of heads and of parts, whether the bias has a gradient, and whether a TPU is only played."""

    heads: int
    parts: int
    learned: bool
    interpret: bool


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(form: _Form, q: jax.Array, k: jax.Array, v: jax.Array, bias: jax.Array | None) -> jax.Array:
    return _forward(form, q, k, v, bias)[0]


_Saved = tuple[jax.Array, jax.Array, jax.Array, jax.Array | None, jax.Array]


def _forward(
    form: _Form, q: jax.Array, k: jax.Array, v: jax.Array, bias: jax.Array | None
) -> tuple[jax.Array, _Saved]:
    program = _Program(form, q, k, bias, FORWARD)
    out, log_sums = pl.pallas_call(
        program.kernel(_forward_kernel),
        grid=program.grid,
        in_specs=[program.queries, program.keys, program.keys, *program.biases],
        out_specs=[program.queries, program.log_sums],
        out_shape=[program.queries_shape, program.log_sums_shape],
        compiler_params=_EACH_ALONE,
        interpret=form.interpret,
        name=FORWARD,
    )(*map(program.by_window, (q, k, v)), *_listed(bias))
    return out.reshape(q.shape), (q, k, v, bias, log_sums)


def _backward(
    form: _Form, saved: _Saved, dout: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array | None]:
    q, k, v, bias, log_sums = saved
    program = _Program(form, q, k, bias, BACKWARD)
    summed = bias is not None and form.learned
    sums = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in _listed(bias) if summed]
    dq, dk, dv, *dbias = pl.pallas_call(
        program.kernel(partial(_backward_kernel, summed)),
        grid=program.grid,
        in_specs=[
            program.queries,
            program.keys,
            program.keys,
            *program.biases,
            program.log_sums,
            program.queries,
        ],
        out_specs=[program.queries, program.keys, program.keys, *(program.biases if summed else ())],
        out_shape=[program.queries_shape, program.keys_shape, program.keys_shape, *sums],
        compiler_params=_IN_ORDER if summed else _EACH_ALONE,
        interpret=form.interpret,
        name=BACKWARD,
    )(*map(program.by_window, (q, k, v)), *_listed(bias), log_sums, program.by_window(dout))
    change = dbias[0] if dbias else None if bias is None else jnp.zeros_like(bias)
    return dq.reshape(q.shape), dk.reshape(k.shape), dv.reshape(v.shape), change


_attend.defvjp(_forward, _backward)


def _listed(bias: jax.Array | None) -> list[jax.Array]:
    """Return a list of the bias, empty where there is none."""
    return [] if bias is None else [bias]


class _Program:
    """What one program sees of `q` `(b, p n, h k)`, `k` `(b, p m, h k)` and a bias `(w, p, h, m, n)` or None.

    Programs are counted by window, group of heads and images, the last fastest, so that a bias stays where it is.
    """

    def __init__(
        self, form: _Form, q: jax.Array, k: jax.Array, bias: jax.Array | None, direction: str
    ) -> None:
        (b, rows, d), parts = q.shape, form.parts
        n, m = rows // parts, k.shape[1] // parts
        self.parts, self.size = parts, d // form.heads
        self.windows = windows = 1 if bias is None else bias.shape[0]
        own = (0, 0) if bias is None else (bias.shape[1], bias.shape[2])
        together = heads_together(form.heads, self.size, n, m, q.dtype.itemsize, parts, own)
        groups, own = form.heads // together, (own[0], min(together, own[1]))
        each = image_bytes(parts * max(n, m), together * self.size, q.dtype.itemsize, direction)
        images = images_together(b // windows, groups * windows, each, n, m, math.prod(own), direction)
        self.grid = (windows, groups, b // windows // images)
        self.queries, self.keys = (
            pl.BlockSpec(
                (images, None, parts * rows, together * self.size),
                lambda window, group, image: (image, window, 0, group),
            )
            for rows in (n, m)
        )
        self.queries_shape, self.keys_shape = (
            jax.ShapeDtypeStruct((b // windows, windows, parts * rows, d), q.dtype) for rows in (n, m)
        )
        by_head = bias is not None and bias.shape[2] > 1
        self.biases = [
            pl.BlockSpec(
                (None, *own, m, n), lambda window, group, image: (window, 0, group if by_head else 0, 0, 0)
            )
            for _ in _listed(bias)
        ]
        self.log_sums = pl.BlockSpec(
            (images, None, None, parts, together, n),
            lambda window, group, image: (image, window, group, 0, 0, 0),
        )
        self.log_sums_shape = jax.ShapeDtypeStruct(
            (b // windows, windows, groups, parts, together, n), jnp.float32
        )

    def by_window(self, x: jax.Array) -> jax.Array:
        """Return `x` `(b, rows, d)` as `(b / w, w, rows, d)`."""
        return x.reshape(-1, self.windows, *x.shape[1:])

    def kernel(self, body: Callable[..., None]) -> Callable[..., None]:
        """Return a kernel, its reference to a bias None where there is none."""

        def run(q_ref: Any, k_ref: Any, v_ref: Any, *refs: Any) -> None:
            body(self.parts, self.size, q_ref, k_ref, v_ref, *(refs if self.biases else (None, *refs)))

        return run


def _dot(a: Any, b: Any, dimensions: Any) -> Any:
    return jax.lax.dot_general(a, b, dimensions, preferred_element_type=jnp.float32)


def _lanes(columns: int, size: int) -> Iterator[tuple[slice, int]]:
    """Return the columns that products run over, those of some heads, and the number of the first of these."""
    wide = max(LANES, size) if LANES % size == 0 else size
    for start in range(0, columns, wide):
        yield slice(start, min(start + wide, columns)), start // size


def _only(x: Any, place: int, size: int) -> Any:
    """Return `x` with zeros in the columns of other heads than the one at a place."""
    if x.shape[1] == size:
        return x
    lane = jax.lax.broadcasted_iota(jnp.int32, x.shape, 1)
    return jnp.where((lane >= place * size) & (lane < (place + 1) * size), x, jnp.zeros_like(x))


def _places(parts: int, rows: int) -> list[slice]:
    """Return the rows of each part."""
    return [slice(part * rows // parts, (part + 1) * rows // parts) for part in range(parts)]


def _scores(k: Any, q: Any, bias_ref: Any, part: int, head: int, size: int) -> Any:
    """Return the scores `(m, n)` of a head."""
    scores = _dot(k, q, _BOTH_LAST) * size**-0.5
    if bias_ref is None:
        return scores
    return scores + bias_ref[min(part, bias_ref.shape[0] - 1), min(head, bias_ref.shape[1] - 1)]


def _forward_kernel(
    parts: int, size: int, q_ref: Any, k_ref: Any, v_ref: Any, bias_ref: Any, out_ref: Any, log_sums_ref: Any
) -> None:
    queries, keys = (_places(parts, ref.shape[1]) for ref in (q_ref, k_ref))

    def attend(image: Any, part: int, columns: slice, first: int) -> None:
        q = q_ref[image, queries[part], columns]
        k, v = (ref[image, keys[part], columns] for ref in (k_ref, v_ref))
        turned, outs = v.T, []
        for place in range(q.shape[1] // size):
            head, own = first + place, slice(place * size, (place + 1) * size)
            scores = _scores(_only(k, place, size), q, bias_ref, part, head, size)
            largest = scores.max(0, keepdims=True)
            weights = jnp.exp(scores - largest)
            sums = weights.sum(0, keepdims=True)
            outs.append(_dot(turned[own], weights.astype(v.dtype), _PLAIN) / sums)  # (k, n)
            log_sums_ref[image, part, head : head + 1, :] = largest + jnp.log(sums)
        out_ref[image, queries[part], columns] = jnp.concatenate(outs).T.astype(out_ref.dtype)

    @pl.loop(0, q_ref.shape[0])
    def _(image: Any) -> None:
        for part in range(parts):
            for columns, first in _lanes(q_ref.shape[-1], size):
                attend(image, part, columns, first)


def _backward_kernel(
    summed: bool,
    parts: int,
    size: int,
    q_ref: Any,
    k_ref: Any,
    v_ref: Any,
    bias_ref: Any,
    log_sums_ref: Any,
    dout_ref: Any,
    dq_ref: Any,
    dk_ref: Any,
    dv_ref: Any,
    *dbias_ref: Any,
) -> None:
    queries, keys = (_places(parts, ref.shape[1]) for ref in (q_ref, k_ref))
    if summed:

        @pl.when(pl.program_id(2) == 0)
        def _() -> None:
            dbias_ref[0][...] = jnp.zeros_like(dbias_ref[0])

    def differentiate(image: Any, part: int, columns: slice, first: int) -> None:
        q, dout = (ref[image, queries[part], columns] for ref in (q_ref, dout_ref))
        k, v = (ref[image, keys[part], columns] for ref in (k_ref, v_ref))

        def of_head(place: int) -> tuple[Any, Any]:
            """Return the weights and the gradient of the products of keys and queries, both `(m, n)`."""
            head = first + place
            scores = _scores(_only(k, place, size), q, bias_ref, part, head, size)
            weights = jnp.exp(scores - log_sums_ref[image, part, head : head + 1, :])
            dweights = _dot(_only(v, place, size), dout, _BOTH_LAST)
            dscores = weights * (dweights - (weights * dweights).sum(0, keepdims=True))
            if summed:
                dbias_ref[0][min(part, dbias_ref[0].shape[0] - 1), head] += dscores
            return weights.astype(dout.dtype), (dscores * size**-0.5).astype(q.dtype)

        def write(ref: Any, rows: slice, change: Any) -> None:
            ref[image, rows, columns] = change.astype(ref.dtype)

        if q.shape[1] == size:  # of one head alone, transposing more would take longer
            weights, dscores = of_head(0)
            write(dv_ref, keys[part], _dot(weights, dout, _PLAIN))
            write(dk_ref, keys[part], _dot(dscores, q, _PLAIN))
            write(dq_ref, queries[part], _dot(k.T, dscores, _PLAIN).T)
            return
        turned_q, turned_k, turned_dout = q.T, k.T, dout.T
        dq, dk, dv = [], [], []
        for place in range(q.shape[1] // size):
            own = slice(place * size, (place + 1) * size)
            weights, dscores = of_head(place)
            dv.append(_dot(turned_dout[own], weights, _BOTH_LAST))  # (k, m)
            dk.append(_dot(turned_q[own], dscores, _BOTH_LAST))
            dq.append(_dot(turned_k[own], dscores, _PLAIN))  # (k, n)
        write(dv_ref, keys[part], jnp.concatenate(dv).T)
        write(dk_ref, keys[part], jnp.concatenate(dk).T)
        write(dq_ref, queries[part], jnp.concatenate(dq).T)

    @pl.loop(0, q_ref.shape[0])
    def _(image: Any) -> None:
        for part in range(parts):
            for columns, first in _lanes(q_ref.shape[-1], size):
                differentiate(image, part, columns, first)
