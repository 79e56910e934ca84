"""The Multiscale Vision Transformer, version 2 (Li et al. 2021, arXiv 2112.01526).

`m` counts keys, and `p` the class token if there is one.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax.models.layers.attention import Surroundings
from vit_jax.models.layers.convolutional import convolve
from vit_jax.models.layers.dense import Dense, spread
from vit_jax.models.layers.dropout import dropout
from vit_jax.models.layers.encoder import apply_blocks, stack_blocks
from vit_jax.models.layers.module import Module
from vit_jax.models.layers.norm import LayerNorm
from vit_jax.models.layers.pixels.checks import check_channels
from vit_jax.models.layers.placement import keep_rows
from vit_jax.models.mvit.block import MultiscaleBlock
from vit_jax.models.mvit.config import MvitConfig, Run, pooled
from vit_jax.models.mvit.family import CAPTURES
from vit_jax.models.pyramid.backbone import Backbone
from vit_jax.models.pyramid.captures import OF_BLOCKS, parse_captures
from vit_jax.random import fold


class PatchEmbed(Module):
    """An overlapping convolution: images to a map; started as torch starts it."""

    def __init__(self, config: MvitConfig, *, rngs: nnx.Rngs):
        self.config, size = config, config.patch_kernel
        initial = jax.nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
        shape = (size, size, config.in_channels, config.width)
        self.kernel = nnx.Param(initial(rngs.params(), shape, jnp.float32))
        self.bias = nnx.Param(jnp.zeros((config.width,)))

    def __call__(self, images: jax.Array) -> jax.Array:
        """Return the map `(b, rows, columns, d)` of images `(b, h, w, c)`."""
        kernel = self.kernel[...].astype(images.dtype)
        x = convolve(images, kernel, self.config.patch_stride, self.config.patch_pad)
        return x + spread(self.bias[...], x)


class Stage(Module):
    """Runs of equal blocks, each stored stacked."""

    def __init__(self, config: MvitConfig, runs: tuple[Run, ...], *, rngs: nnx.Rngs):
        self.strides = tuple(run.q_stride for run in runs)
        self.runs = nnx.List([Blocks(config, run, rngs=rngs) for run in runs])


class Blocks(Module):
    """Equal blocks, stored stacked."""

    def __init__(self, config: MvitConfig, run: Run, *, rngs: nnx.Rngs):
        self.blocks = stack_blocks(run.depth, partial(MultiscaleBlock, config, run), rngs=rngs)


class MViT(Backbone):
    """A Multiscale Vision Transformer: images `(b, h, w, c)` to logits `(b, classes)`.

    Args:
      config: sizes and options.
      rngs: source of the keys that initialise the parameters.
    """

    def __init__(self, config: MvitConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.patch_embed = PatchEmbed(config, rngs=rngs)
        token = 0.02 * jax.random.normal(rngs.params(), (1, config.width), jnp.float32)
        self.class_token = nnx.Param(token) if config.class_token else None
        self.stages = nnx.List([Stage(config, runs, rngs=rngs) for runs in config.stages()])
        d, classes = config.last_width, config.num_classes
        self.norm = LayerNorm(d, config.norm_epsilon)
        self.head = Dense((d,), (classes,), scheme="zeros", rngs=rngs) if classes else None

    def __call__(
        self, images: jax.Array, key: jax.Array | None = None, capture: str | tuple[str, ...] = ()
    ) -> Any:
        """Return the model's output and, when asked for by name, intermediate values.

        Args:
          images: normalised images `(b, h, w, c)` of any size; to another than the model's own, tables of relative
            positions are interpolated.
          key: randomness of dropout and drop path; None for evaluation.
          capture: a name or several: `stages/1` and `blocks/5`, maps `(b, h, w, d)`; `attention/-1`
            `(b, heads, p + n, p + m)`, weights of a block; `encoded` `(b, p + n, d)`; `pre_logits` `(b, d)`.

        Returns:
          Logits `(b, classes)` in float32; without a head, the pooled features `(b, d)`. With `capture`, a tuple of
          that and a dict with the names as given.

        Raises:
          ConfigError: images the model does not take, or an unknown name.
        """
        config, blocks = self.config, sum(self.config.depths)
        counts = {"stages": len(config.depths), "blocks": blocks, "attention": blocks}
        wanted = parse_captures(capture, CAPTURES, counts)
        check_channels(images, config.in_channels)
        config.patches(images.shape[1:3])
        x = keep_rows(self.patch_embed(images.astype(config.dtype)))
        b, *grid, d = x.shape
        x = x.reshape(b, -1, d)
        if self.class_token is not None:
            token = jnp.broadcast_to(self.class_token[...], (b, 1, d)).astype(x.dtype)
            x = jnp.concatenate([token, x], axis=1)
        x = dropout(x, config.dropout_rate, fold(key, "embedding"))
        values: dict[tuple[str, int | None], jax.Array] = {}
        rates = jnp.linspace(0.0, config.drop_path_rate, sum(config.depths), dtype=jnp.float32)
        first, size = 0, tuple(grid)
        for index, stage in enumerate(self.stages):
            for number, (run, stride) in enumerate(zip(stage.runs, stage.strides)):
                depth = run.blocks.config.depth
                own = range(first, first + depth)
                outputs, weights = (
                    any((kind, block) in wanted.values() for block in own) for kind in OF_BLOCKS
                )
                x, found = apply_blocks(
                    run.blocks,
                    x,
                    fold(key, f"stage{index}/{number}"),
                    Surroundings((size[0], size[1])),
                    outputs=outputs,
                    weights=weights,
                    rates=rates[first : first + depth],
                )
                size = pooled(size, stride)
                for block in own:
                    values |= {(kind, block): stack[block - first] for kind, stack in found.items()}
                    if outputs:
                        tokens = values["blocks", block][:, config.prefix_tokens :]
                        values["blocks", block] = tokens.reshape(b, *size, tokens.shape[-1])
                first += depth
            values["stages", index] = x[:, config.prefix_tokens :].reshape(b, *size, x.shape[-1])
        x = values["encoded", None] = self.norm(x)
        x = x[:, 0] if config.pool == "cls" else x[:, config.prefix_tokens :].mean(axis=1)
        values["pre_logits", None] = x
        # The head is small and its logits feed exponentials: float32 always.
        out = x if self.head is None else self.head(x.astype(jnp.float32))
        return (out, {name: values[one] for name, one in wanted.items()}) if wanted else out
