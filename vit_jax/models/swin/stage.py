"""A stage: patches are merged, then pairs of a plain and a shifted block follow."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax.models.layers.dense import Dense
from vit_jax.models.layers.encoder import Block, scanned, stack_blocks
from vit_jax.models.layers.encoder_config import EncoderConfig
from vit_jax.models.layers.module import Module
from vit_jax.models.layers.norm import LayerNorm
from vit_jax.models.layers.placement import gather_block, keep_rows
from vit_jax.models.layers.positions.windows import Cut, reorder
from vit_jax.models.swin.attention import WindowAttention, WindowPositions
from vit_jax.models.swin.config import SwinConfig
from vit_jax.models.swin.fitting import Fit
from vit_jax.random import split

PAIR = 2


class Merge(Module):
    """Every 2x2 places become one of twice the width; a missing row or column is zero."""

    def __init__(self, config: EncoderConfig, *, rngs: nnx.Rngs):
        self.after = config.branch_norm == "after"
        d = config.width
        self.norm = LayerNorm(d if self.after else 2 * d, config.norm_epsilon)
        self.reduction = Dense((2 * d,), (d,), use_bias=False, scheme=config.init, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return `(b, h / 2, w / 2, 2 c)` for `x` `(b, h, w, c)`."""
        b, h, w, c = x.shape
        x = jnp.pad(x, ((0, 0), (0, h % 2), (0, w % 2), (0, 0))) if h % 2 or w % 2 else x
        # Down before across: the order of the authors' concatenation.
        x = x.reshape(b, -(-h // 2), 2, -(-w // 2), 2, c).transpose(0, 1, 3, 4, 2, 5)
        x = x.reshape(*x.shape[:3], 4 * c)
        return self.norm(self.reduction(x)) if self.after else self.reduction(self.norm(x))


class Stage(Module):
    """Blocks of one width, stored stacked, with what merges the maps of the stage before.

    Args:
      config: of the model.
      stage: counted from 0.
      rngs: source of the keys.
    """

    def __init__(self, config: SwinConfig, stage: int, *, rngs: nnx.Rngs):
        self.config = blocks = config.blocks(stage)
        self.merge = Merge(blocks, rngs=rngs) if stage else None
        pretrained = config.pretrained_windows[stage] if config.pretrained_windows else 0
        positions = WindowPositions(
            config.fit(stage).table,
            config.position_bias,
            (pretrained, pretrained) if pretrained else None,
            config.cosine,
            config.mask_bias,
        )

        def make(rngs: nnx.Rngs) -> Block:
            block = Block(blocks, positions, attention=WindowAttention, rngs=rngs)
            if blocks.branch_norm == "after":  # blocks start as identities
                for norm in (block.norm1, block.norm2):
                    assert norm is not None
                    norm.scale = nnx.Param(jnp.zeros_like(norm.scale[...]))
            return block

        self.blocks = stack_blocks(blocks.depth, make, rngs=rngs)

    def __call__(
        self,
        x: jax.Array,
        rates: jax.Array,
        key: jax.Array | None,
        fit: Fit,
        *,
        outputs: bool = False,
        weights: bool = False,
    ) -> tuple[jax.Array, dict[str, list[jax.Array]]]:
        """Apply the stage.

        Args:
          x: maps of the stage before, or embedded patches, `(b, h, w, c)`.
          rates: of drop path, `(l,)`.
          key: None for evaluation.
          fit: how windows lie on the maps.
          outputs: also return each block's output, `blocks`.
          weights: also return each block's attention weights `(b w, h, n, n)`, `attention`.

        Returns:
          The maps after the last block, and what was asked for, an entry for each block.
        """
        x = x if self.merge is None else self.merge(x)
        depth, (b, *sides, c) = self.config.depth, x.shape
        sides = tuple(sides)
        plain, shifted = cuts = tuple(Cut(fit.window, shift, fit.pad_first) for shift in ((0, 0), fit.shift))
        layers = (self.blocks, rates, split(key, depth))
        # Nothing but attention asks where a place lies: between blocks they stay in the order of windows.
        ordered = plain.fills(sides)

        def as_map(x: jax.Array, cut: Cut) -> jax.Array:
            return cut.join(x.reshape(-1, math.prod(cut.window), c), sides) if ordered else x

        def block(x: jax.Array, layer: Any, cut: Cut) -> tuple[jax.Array, dict[str, jax.Array | None]]:
            block, rate, layer_key = layer
            block = gather_block(block, depth, x.dtype)
            x, attended = block(keep_rows(x), rate, layer_key, (cut, sides), weights)
            x = keep_rows(x)
            return x, {"blocks": as_map(x, cut) if outputs else None, "attention": attended}

        def pair(x: jax.Array, both: Any) -> tuple[jax.Array, Any]:
            found, before = [], plain
            for i, cut in enumerate(cuts):
                x = reorder(x, before, cut, sides) if ordered else x
                x, captured = block(x, jax.tree.map(lambda a, i=i: a[i], both), cut)
                found.append(captured)
                before = cut
            return reorder(x, shifted, plain, sides) if ordered else x, tuple(found)

        x = plain.split(x).reshape(b, -1, c) if ordered else x
        pairs, odd = divmod(depth, PAIR)
        paired = jax.tree.map(lambda a: a[: depth - odd].reshape(pairs, PAIR, *a.shape[1:]), layers)
        x, found = scanned(self.config, pair, x, paired, pairs, PAIR)
        each = [jax.tree.map(lambda a, n=n: a[n], captured) for n in range(pairs) for captured in found]
        if odd:
            x, last = block(x, jax.tree.map(lambda a: a[-1], layers), plain)
            each.append(last)
        x = as_map(x, plain)
        return x, {
            name: [captured[name] for captured in each]
            for name, wanted in (("blocks", outputs), ("attention", weights))
            if wanted
        }
