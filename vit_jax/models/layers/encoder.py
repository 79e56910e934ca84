"""A stack of equal transformer blocks, stored stacked on a leading `l` axis and applied by one scan."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax.models.layers.attention import ALONE, SelfAttention, Surroundings
from vit_jax.models.layers.attentions.differential import DifferentialAttention
from vit_jax.models.layers.batch_norm import put_statistics, take_statistics
from vit_jax.models.layers.dropout import drop_path, dropout
from vit_jax.models.layers.encoder_config import EncoderConfig
from vit_jax.models.layers.mlp import MLPS
from vit_jax.models.layers.module import Module
from vit_jax.models.layers.norm import LayerScale, norm_of
from vit_jax.models.layers.placement import gather_block, keep_rows
from vit_jax.random import fold, split

# What the backward pass may keep of a block; everything else is computed again. `attention` keeps all but the
# scores and weights, which `SelfAttention` sees to: a policy by name would still keep what the names were given to.
REMAT_POLICIES: dict[str, Any] = {
    "none": None,
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_saveable,
    "dots_no_batch": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "attention": None,
}

# Up to this depth a fully unrolled scan compiles in acceptable time and runs with less memory.
UNROLLED_DEPTH = 48


class Block(Module):
    """Transformer block: attention and MLP, each a normalised residual branch; arguments as `SelfAttention`.

    `attention` is the class of another kind of attention than the configuration's, which `relative` and `around` are
    then for.
    """

    def __init__(
        self,
        config: EncoderConfig,
        relative: Any = None,
        *,
        attention: Callable[..., Any] | None = None,
        rngs: nnx.Rngs,
    ):
        self.config = config
        parallel = config.parallel != "none"
        if attention is None:
            attention = DifferentialAttention if config.differential else SelfAttention
        self.norm1 = norm_of(config, config.width)
        self.attn = attention(config, relative, rngs=rngs)
        self.norm2 = None if parallel else norm_of(config, config.width)
        self.mlp = MLPS[config.mlp](config, rngs=rngs)
        initial = config.layer_scale
        self.scale1 = None if initial is None else LayerScale(config.width, initial)
        self.scale2 = (
            None if initial is None or parallel or not config.mlp_scale else LayerScale(config.width, initial)
        )

    def __call__(
        self,
        x: jax.Array,
        drop_path_rate: jax.Array,
        key: jax.Array | None,
        around: Any = ALONE,
        return_weights: bool = False,
    ) -> tuple[jax.Array, jax.Array | None]:
        """Return the block's output for `x` `(b, n, d)`, and its attention weights `(b, h, n, n)` or None."""
        x, weights = self.attend(x, drop_path_rate, key, around, return_weights)
        return self.feed(x, drop_path_rate, key), weights

    def attend(
        self,
        x: jax.Array,
        drop_path_rate: jax.Array,
        key: jax.Array | None,
        around: Any = ALONE,
        return_weights: bool = False,
    ) -> tuple[jax.Array, jax.Array | None]:
        """Return `x` after the first branch, attention, and the weights; arguments as a call's.

        Where the MLP stands beside attention, the branch is of both.
        """
        config = self.config
        path_key = key if config.drop_path_rate else None
        after = config.branch_norm == "after"
        normal = x if after else self.norm1(x)
        y, weights = self.attn(normal, fold(key, "attn"), around, return_weights)
        y = self.norm1(y) if after else y
        if self.norm2 is None:
            y = y + dropout(self.mlp(normal, fold(key, "mlp")), config.dropout_rate, fold(key, "mlp_out"))
        y = y if self.scale1 is None else self.scale1(y)
        return x + drop_path(y, drop_path_rate, fold(path_key, "path1")), weights

    def feed(self, x: jax.Array, drop_path_rate: jax.Array, key: jax.Array | None) -> jax.Array:
        """Return `x` after the second branch, the MLP, if there is one; arguments as a call's."""
        if self.norm2 is None:
            return x
        config = self.config
        path_key = key if config.drop_path_rate else None
        after = config.branch_norm == "after"
        y = self.mlp(x if after else self.norm2(x), fold(key, "mlp"))
        y = dropout(y, config.dropout_rate, fold(key, "mlp_out"))
        y = self.norm2(y) if after else y
        y = y if self.scale2 is None else self.scale2(y)
        return x + drop_path(y, drop_path_rate, fold(path_key, "path2"))

    def keys(self, x: jax.Array) -> jax.Array:
        """Return the keys of `x` `(b, n, d)` in the attention of this block, `(b, n, h, k)`."""
        return self.attn.keys(x if self.config.branch_norm == "after" else self.norm1(x))


def make_blocks(
    config: EncoderConfig,
    relative: Any = None,
    *,
    attention: Callable[..., Any] | None = None,
    rngs: nnx.Rngs,
) -> Block:
    """Return `config.depth` blocks as one `Block` whose parameters have a leading `l` axis; arguments as `Block`."""
    make = partial(Block, config, relative, attention=attention)
    return stack_blocks(config.depth, make, rngs=rngs)


def stack_blocks(depth: int, make: Callable[..., Any], *, rngs: nnx.Rngs) -> Any:
    """Return equal blocks, each made by `make(rngs=)`, as one whose parameters have a leading `l` axis."""
    keys = jax.random.split(rngs.params(), depth)
    return jax.vmap(lambda key: make(rngs=nnx.Rngs(key)))(keys)


def drop_path_rates(config: Any) -> jax.Array:
    """Return the drop-path rate of each block, `(l,)` float32, of an `EncoderConfig` or of all stages of a model."""
    if config.drop_path_schedule == "constant":
        return jnp.full((config.depth,), config.drop_path_rate, jnp.float32)
    return jnp.linspace(0.0, config.drop_path_rate, config.depth, dtype=jnp.float32)


def apply_blocks(
    blocks: Any,
    x: jax.Array,
    key: jax.Array | None,
    around: Surroundings = ALONE,
    *,
    outputs: bool = False,
    weights: bool = False,
    frozen: int = 0,
    rates: jax.Array | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Apply stacked blocks in order.

    Args:
      blocks: the result of `make_blocks`, or other modules that are called like `Block` and stacked like it.
      x: tokens `(b, n, d)`.
      key: None for evaluation.
      around: what attention knows beside its input.
      outputs: also return every block's output, `blocks` `(l, b, n, d)`.
      weights: also return every block's attention weights, `attention` `(l, b, h, n, n)`.
      frozen: how many of the first blocks have no gradient.
      rates: drop-path rate of each block, `(l,)`; None for those of a model that has no other blocks.

    Returns:
      The tokens after the last block, and what was asked for.
    """
    config, training = blocks.config, key is not None

    def body(x: jax.Array, layer: Any) -> tuple[jax.Array, dict[str, Any]]:
        block, rate, layer_key, number = layer
        block = gather_block(block, config.depth, x.dtype)
        own = around if number is None else around._replace(block=number)
        x, attended = block(keep_rows(x), rate, layer_key, own, weights)
        x = keep_rows(x)
        statistics = take_statistics(block) if training else None
        return x, {"blocks": x if outputs else None, "attention": attended, "statistics": statistics}

    rates = drop_path_rates(config) if rates is None else rates
    # Nothing else depends on a block's number, and other families have no such attention.
    differential = getattr(config, "differential", False)
    numbers = jnp.arange(config.depth, dtype=jnp.float32) if differential else None
    layers = (blocks, rates, split(key, config.depth), numbers)
    if config.depth == 1:  # without a scan, so that a block alone may give another shape
        alone = checkpointed(config, body)
        x, captured = alone(
            x, jax.tree.map(lambda a: a[0], jax.lax.stop_gradient(layers) if frozen else layers)
        )
        captured = jax.tree.map(lambda a: a[None], captured)
    elif not frozen:
        x, captured = scanned(config, body, x, layers, config.depth)
    else:
        below, above = (jax.tree.map(lambda a, part=part: a[part], layers) for part in _halves(frozen))
        x, first = scanned(config, body, x, jax.lax.stop_gradient(below), frozen)
        x, second = scanned(config, body, x, above, config.depth - frozen)
        captured = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), first, second)
    if training:
        put_statistics(blocks, captured.pop("statistics"))
    return x, {name: value for name, value in captured.items() if value is not None}


def scanned(
    config: EncoderConfig, body: Callable[..., Any], x: jax.Array, layers: Any, count: int, blocks: int = 1
) -> tuple[jax.Array, Any]:
    """Return what `jax.lax.scan` returns of `body`, unrolled and checkpointed as a configuration says.

    Args:
      config: of the blocks; `depth` is the number of them that is unrolled by itself.
      body: of `x` and one entry of `layers`.
      x: what goes in.
      layers: a pytree of arrays with `count` entries on the leading axis.
      count: may be 0.
      blocks: that an entry stands for.
    """
    unroll = config.unroll or (config.depth if config.depth <= UNROLLED_DEPTH else 1)
    unroll = max(1, min(unroll // blocks, count))
    return jax.lax.scan(checkpointed(config, body, rolled=unroll < count), x, layers, unroll=unroll)


def checkpointed(
    config: EncoderConfig, body: Callable[..., Any], *, rolled: bool = False
) -> Callable[..., Any]:
    """Return the body of a loop over blocks with gradient checkpointing as a configuration says.

    Args:
      config: of the blocks.
      body: what is done with each.
      rolled: whether the loop stays one: inside it nothing can be merged across iterations; elsewhere XLA would undo
        the checkpointing.
    """
    policy = REMAT_POLICIES[config.remat]
    return body if policy is None else jax.checkpoint(body, policy=policy, prevent_cse=not rolled)


def _halves(first: int) -> tuple[slice, slice]:
    return slice(None, first), slice(first, None)
