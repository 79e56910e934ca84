"""Token merging (ToMe, Bolya et al. 2022, arXiv 2210.09461): between attention and MLP, similar tokens become one.

A token is the mean of those it stands for, and attention sees it as often. What a call captures, and the output of
models with a row for every patch, is given back to all patches: each has what the token that it went into has.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax.models.layers.attention import Surroundings
from vit_jax.models.layers.encoder import Block, checkpointed, drop_path_rates
from vit_jax.models.layers.placement import gather_block, keep_rows
from vit_jax.random import split


class Merged(NamedTuple):
    """Which tokens a sequence was made of.

    Attributes:
      sizes: `(b, n)` float32, how many each token stands for.
      place: `(b, m)` int32, which token stands for each of the `m` at first.
    """

    sizes: jax.Array
    place: jax.Array

    @classmethod
    def nothing(cls, x: jax.Array) -> "Merged":
        """Return that each of the tokens `(b, n, d)` stands for itself."""
        b, n, _ = x.shape
        return cls(jnp.ones((b, n), jnp.float32), jnp.broadcast_to(jnp.arange(n, dtype=jnp.int32), (b, n)))

    def unmerged(self, x: jax.Array) -> jax.Array:
        """Return tokens `(b, n, d)` as `(b, m, d)`, each where all are that it stands for."""
        return jnp.take_along_axis(x, self.place[..., None], axis=1)

    def unmerged_weights(self, weights: jax.Array) -> jax.Array:
        """Return weights of attention `(b, h, n, n)` as `(b, h, m, m)`: what a token gets, those share that it is."""
        place, shares = self.place, (weights / self.sizes[:, None, None, :]).astype(weights.dtype)
        rows = jnp.take_along_axis(shares, place[:, None, :, None], axis=2)
        return jnp.take_along_axis(rows, place[:, None, None, :], axis=3)


class Pairs(NamedTuple):
    """Which tokens at even places are merged into which at odd ones.

    Attributes:
      kept: `(b, e - r)`, even tokens that stay, as numbers among the even ones.
      gone: `(b, r)`, even tokens that do not, the most similar first.
      into: `(b, r)`, the odd tokens that these become part of, as numbers among the odd ones.
    """

    kept: jax.Array
    gone: jax.Array
    into: jax.Array


def matched(metric: jax.Array, r: int, prefix: int = 0) -> Pairs:
    """Return the `r` most similar pairs of an even and an odd token: each even one proposes its most similar odd one.

    Args:
      metric: `(b, n, k)`, compared by its cosine.
      r: pairs; at most half of the tokens without the prefix.
      prefix: tokens in front that neither go nor take in others.
    """
    metric = metric.astype(jnp.float32)
    metric = metric / jnp.maximum(jnp.linalg.norm(metric, axis=-1, keepdims=True), 1e-12)
    even, odd = metric[:, ::2], metric[:, 1::2]
    scores = jnp.einsum("bik,bjk->bij", even, odd, precision=jax.lax.Precision.HIGHEST)
    scores = scores.at[:, : -(-prefix // 2)].set(-jnp.inf).at[:, :, : prefix // 2].set(-jnp.inf)
    order = jnp.argsort(-scores.max(axis=-1), axis=-1, stable=True)
    kept, gone = order[:, r:], order[:, :r]
    if prefix:
        kept = jnp.sort(kept, axis=-1)  # so that the prefix stays in front
    return Pairs(kept, gone, jnp.take_along_axis(scores.argmax(axis=-1), gone, axis=1))


def summed(x: jax.Array, pairs: Pairs, prefix: int = 0) -> jax.Array:
    """Return `x` `(b, n, d)` with each pair as its sum, `(b, n - r, d)`: the even tokens kept, then the odd ones.

    Those of the prefix stay in front in their order.
    """
    even, odd = x[:, ::2], x[:, 1::2]
    kept, gone = (jnp.take_along_axis(even, rows[..., None], axis=1) for rows in (pairs.kept, pairs.gone))
    # A product, not a scatter: its sums have an order on every device, and its gradient is a product too.
    onto = jax.nn.one_hot(pairs.into, odd.shape[1], dtype=x.dtype)
    odd = odd + jnp.einsum("brj,brd->bjd", onto, gone, precision=jax.lax.Precision.HIGHEST)
    return jnp.concatenate([kept, odd], axis=1)[:, _order(kept.shape[1], odd.shape[1], prefix)]


def merged(x: jax.Array, before: Merged, pairs: Pairs, prefix: int = 0) -> tuple[jax.Array, Merged]:
    """Return tokens `(b, n, d)` as `(b, n - r, d)`, means by what each stands for, and what they were made of."""
    sizes = summed(before.sizes[..., None], pairs, prefix)
    means = summed(x.astype(jnp.float32) * before.sizes[..., None], pairs, prefix) / sizes
    place = jnp.take_along_axis(_places(pairs, x.shape[1], prefix), before.place, axis=1)
    return means.astype(x.dtype), Merged(sizes[..., 0], place)


def apply_merging_blocks(
    blocks: Block,
    x: jax.Array,
    key: jax.Array | None,
    around: Surroundings,
    counts: tuple[int, ...],
    *,
    prefix: int,
    proportional: bool,
    outputs: bool = False,
    weights: bool = False,
    frozen: int = 0,
) -> tuple[jax.Array, dict[str, Any]]:
    """Apply stacked blocks in order, each of which merges tokens; there is no scan, as each sees other shapes.

    Args:
      blocks, x, key, around, outputs, weights, frozen: see `layers.encoder.apply_blocks`.
      counts: how many tokens each block merges, see `models.vit.tokens.merge_counts`.
      prefix: tokens in front that are not merged.
      proportional: whether a token is attended to as often as it stands for tokens.

    Returns:
      The tokens after the last block, `merged`: what they were made of, and what was asked for, of all tokens.
    """
    config = blocks.config

    def body(r: int, x: jax.Array, before: Merged | None, layer: Any) -> tuple[Any, ...]:
        block, rate, layer_key = layer
        block, x = gather_block(block, config.depth, x.dtype), keep_rows(x)
        sizes = None if before is None or not proportional else before.sizes
        after, attended = block.attend(x, rate, layer_key, around._replace(sizes=sizes), weights)
        if r:
            metric = jax.lax.stop_gradient(block.keys(x)).mean(axis=2, dtype=jnp.float32)
            pairs = matched(metric, r, prefix)
            after, before = merged(after, Merged.nothing(x) if before is None else before, pairs, prefix)
        return keep_rows(block.feed(after, rate, layer_key)), before, attended

    layers = (blocks, drop_path_rates(config), split(key, config.depth))
    captured: dict[str, list[jax.Array]] = {"blocks": [], "attention": []}
    state = None
    for number, r in enumerate(counts):
        layer = jax.tree.map(lambda a, number=number: a[number], layers)
        layer = jax.lax.stop_gradient(layer) if number < frozen else layer
        before = state
        x, state, attended = checkpointed(config, partial(body, r))(x, state, layer)
        if outputs:
            captured["blocks"].append(x if state is None else state.unmerged(x))
        if weights:
            captured["attention"].append(attended if before is None else before.unmerged_weights(attended))
    stacked = {name: jnp.stack(values) for name, values in captured.items() if values}
    return x, stacked | {"merged": Merged.nothing(x) if state is None else state}


def _order(kept: int, odd: int, prefix: int) -> np.ndarray | slice:
    """Return the places, among even tokens that stay and odd ones after them, of the tokens in their new order."""
    if prefix < 2:
        return slice(None)
    first = [place // 2 + kept * (place % 2) for place in range(prefix)]
    return np.asarray([*first, *sorted({*range(kept + odd)} - {*first})])


def _places(pairs: Pairs, tokens: int, prefix: int) -> jax.Array:
    """Return where each of `tokens` is after the merging, `(b, n)` int32."""
    (b, kept), odd = pairs.kept.shape, tokens // 2
    order = _order(kept, odd, prefix)
    place = jnp.asarray(np.argsort(np.arange(kept + odd)[order]), jnp.int32)
    stayed = jnp.broadcast_to(place[:kept], (b, kept))
    moved = jnp.concatenate([stayed, place[kept + pairs.into]], axis=1)
    even = jnp.take_along_axis(moved, jnp.argsort(jnp.concatenate([pairs.kept, pairs.gone], axis=1)), axis=1)
    places = jnp.zeros((b, tokens), jnp.int32)
    return places.at[:, ::2].set(even).at[:, 1::2].set(jnp.broadcast_to(place[kept:], (b, odd)))
