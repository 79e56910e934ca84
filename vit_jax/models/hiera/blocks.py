"""The blocks of a Hiera: attention within mask units or over all tokens, which may pool its queries, and an MLP."""

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax.models.hiera.config import Stage
from vit_jax.models.hiera.order import fours, largest_of_four
from vit_jax.models.layers.attention import ALONE, QueryKeyValue, Surroundings, attention
from vit_jax.models.layers.dense import Dense
from vit_jax.models.layers.dropout import drop_path
from vit_jax.models.layers.encoder import apply_blocks
from vit_jax.models.layers.encoder_config import EncoderConfig, replace
from vit_jax.models.layers.mlp import Mlp
from vit_jax.models.layers.module import Module
from vit_jax.models.layers.norm import LayerNorm, LayerScale
from vit_jax.random import fold


class UnitAttention(Module):
    """Multi-head attention in which neighbouring tokens, those of a mask unit, see each other.

    Args:
      config: sizes and options of what comes out.
      inputs: width of what comes in.
      unit: tokens of a mask unit as they come in; 0 for attention over all tokens.
      pooling: whether of each four queries the largest values are taken.
      rngs: source of the keys.
    """

    def __init__(self, config: EncoderConfig, inputs: int, unit: int, pooling: bool, *, rngs: nnx.Rngs):
        self.config, self.unit, self.pooling = config, unit, pooling
        self.qkv = QueryKeyValue(config, inputs, rngs=rngs)
        self.out = Dense((config.heads, config.head_dim), (config.width,), scheme=config.init, rngs=rngs)

    def __call__(self, x: jax.Array, return_weights: bool = False) -> tuple[jax.Array, jax.Array | None]:
        """Return `(b, n, d)`, or `(b, n / 4, d)` where queries are pooled, for `x` `(b, n, i)`.

        The second value is the weights `(b units, h, n', n / units)`, or None.
        """
        b, n, _ = x.shape
        heads, unit = (self.config.heads, self.config.head_dim), self.unit or n
        q, k, v = self.qkv.split(x)
        # Before heads have an axis of their own, which is short and last but one: TPUs lay such arrays out anew.
        q = largest_of_four(q.reshape(b, n, -1)) if self.pooling else q
        q, k, v = (y.reshape(b * (n // unit), -1, *heads) for y in (q, k, v))

        def attend(q: jax.Array, k: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array | None]:
            return attention(
                q,
                k,
                v,
                implementation=self.config.attention,
                return_weights=return_weights,
                windows=n // unit,
            )

        if self.config.remat == "attention":  # as in `SelfAttention`
            attend = jax.checkpoint(attend)
        y, weights = attend(q, k, v)
        return self.out(y.reshape(b, -1, *heads)), weights


class HieraBlock(Module):
    """Attention and MLP, each a normalised residual branch.

    Args:
      stage: that it belongs to.
      entry: whether it is the first one, which changes the width and may pool.
      shortcut: what goes round its attention then, see `HieraConfig`.
      rngs: source of the keys.
    """

    def __init__(self, stage: Stage, entry: bool, shortcut: str, *, rngs: nnx.Rngs):
        self.config = config = replace(stage.blocks, depth=1 if entry else stage.rest)
        self.entry, self.pooling = entry, entry and stage.pooling
        width, inputs = config.width, stage.inputs if entry else config.width
        unit = stage.unit * (4 if self.pooling else 1)
        windowed = stage.entry_windowed if entry else stage.windowed
        self.norm1 = LayerNorm(inputs, config.norm_epsilon)
        projects = entry and shortcut == "project"
        self.proj = Dense((inputs,), (width,), scheme=config.init, rngs=rngs) if projects else None
        self.attn = UnitAttention(config, inputs, unit if windowed else 0, self.pooling, rngs=rngs)
        self.norm2 = LayerNorm(width, config.norm_epsilon)
        self.mlp = Mlp(config, rngs=rngs)
        initial = config.layer_scale
        self.scale1 = None if initial is None else LayerScale(width, initial)
        self.scale2 = None if initial is None else LayerScale(width, initial)

    def __call__(
        self,
        x: jax.Array,
        drop_path_rate: jax.Array,
        key: jax.Array | None,
        around: Surroundings = ALONE,
        return_weights: bool = False,
    ) -> tuple[jax.Array, jax.Array | None]:
        """Return the block's output for `x` `(b, n, i)`, and its attention weights or None."""
        path_key = key if self.config.drop_path_rate else None
        normal = self.norm1(x)
        y, weights = self.attn(normal, return_weights)
        y = y if self.scale1 is None else self.scale1(y)
        x = self._shortcut(x, normal) + drop_path(y, drop_path_rate, fold(path_key, "path1"))
        y = self.mlp(self.norm2(x), None)
        y = y if self.scale2 is None else self.scale2(y)
        return x + drop_path(y, drop_path_rate, fold(path_key, "path2")), weights

    def _shortcut(self, x: jax.Array, normal: jax.Array) -> jax.Array:
        if not self.entry:
            return x
        if self.proj is not None:
            x = self.proj(normal)
            return largest_of_four(x) if self.pooling else x
        both = (largest_of_four(x), fours(x).mean(axis=2)) if self.pooling else (x, x)
        return jnp.concatenate(both, axis=-1)


class Entry(Module):
    """The block that changes the width: a stack of one, so that everything about stacks of blocks holds for it too."""

    def __init__(self, blocks: HieraBlock):
        self.blocks = blocks


class HieraStage(Module):
    """Blocks at one resolution: the one that changes the width, if there is one, and a stack of equal ones.

    Args:
      stage: its sizes.
      shortcut: see `HieraConfig`.
      rngs: source of the keys.
    """

    def __init__(self, stage: Stage, shortcut: str, *, rngs: nnx.Rngs):
        def stack(entry: bool, depth: int) -> HieraBlock:
            keys = jax.random.split(rngs.params(), depth)
            return jax.vmap(lambda key: HieraBlock(stage, entry, shortcut, rngs=nnx.Rngs(key)))(keys)

        self.entry = Entry(stack(True, 1)) if stage.enters else None
        self.blocks = stack(False, stage.rest) if stage.rest else None

    def __call__(
        self,
        x: jax.Array,
        rates: jax.Array,
        key: jax.Array | None,
        *,
        outputs: bool = False,
        weights: bool = False,
    ) -> tuple[jax.Array, list[dict[str, jax.Array]]]:
        """Return tokens `(b, n', d)` of `x` `(b, n, i)`, and what `apply_blocks` was asked to capture of each stack.

        Args:
          x: tokens in the order of quarters.
          rates: drop-path rate of each block.
          key: None for evaluation.
          outputs, weights: see `apply_blocks`.
        """
        stacks = [
            *([] if self.entry is None else [self.entry.blocks]),
            *([] if self.blocks is None else [self.blocks]),
        ]
        captured, first = [], 0
        for number, blocks in enumerate(stacks):
            last = first + blocks.config.depth
            x, found = apply_blocks(
                blocks, x, fold(key, number), rates=rates[first:last], outputs=outputs, weights=weights
            )
            captured.append(found)
            first = last
        return x, captured
