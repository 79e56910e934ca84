"""The Convolutional vision Transformer (Wu et al. 2021, arXiv 2103.15808). `m` counts keys."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax.models.cvt.attention import ConvAttention
from vit_jax.models.cvt.config import CvtConfig
from vit_jax.models.cvt.family import CAPTURES
from vit_jax.models.layers.attention import Surroundings
from vit_jax.models.layers.convolutional import convolve
from vit_jax.models.layers.dense import Dense, spread
from vit_jax.models.layers.dropout import dropout
from vit_jax.models.layers.encoder import apply_blocks, make_blocks
from vit_jax.models.layers.module import Module
from vit_jax.models.layers.norm import LayerNorm
from vit_jax.models.layers.pixels.checks import check_channels
from vit_jax.models.layers.placement import keep_rows
from vit_jax.models.pyramid.backbone import Backbone
from vit_jax.models.pyramid.captures import OF_BLOCKS, parse_captures
from vit_jax.random import fold


class ConvEmbed(Module):
    """An overlapping convolution and a norm, which make a map smaller and wider; started as torch starts it."""

    def __init__(self, config: CvtConfig, index: int, *, rngs: nnx.Rngs):
        self.stride, self.pad = config.strides[index], config.pads[index]
        channels = config.widths[index - 1] if index else config.in_channels
        size, width = config.kernels[index], config.widths[index]
        initial = jax.nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
        self.kernel = nnx.Param(initial(rngs.params(), (size, size, channels, width), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((width,)))
        self.norm = LayerNorm(width, config.norm_epsilon)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return the next map `(b, h', w', d)` of `x` `(b, h, w, c)`."""
        x = convolve(x, self.kernel[...].astype(x.dtype), self.stride, self.pad)
        return self.norm(x + spread(self.bias[...], x))


class Stage(Module):
    """A convolution, then equal blocks, stored stacked; the last stage has a class token."""

    def __init__(self, config: CvtConfig, index: int, *, rngs: nnx.Rngs):
        blocks, self.dropout_rate = config.stage(index), config.dropout_rate
        self.embed = ConvEmbed(config, index, rngs=rngs)
        last, shape = index == len(config.depths) - 1, (1, blocks.width)
        token = 0.02 * jax.random.normal(rngs.params(), shape, jnp.float32) if last else None
        self.class_token = None if token is None else nnx.Param(token)
        self.blocks = make_blocks(blocks, config, attention=ConvAttention, rngs=rngs)

    def __call__(
        self, x: jax.Array, key: jax.Array | None = None, *, outputs: bool = False, weights: bool = False
    ) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
        """Return the stage's map `(b, h', w', d)` of `x` `(b, h, w, c)`, the tokens before it, and what is asked for.

        Args:
          x: the map of the stage before, or images.
          key: None for evaluation.
          outputs: also return the maps of all blocks, `blocks` `(l, b, h', w', d)`.
          weights: also return their attention weights, `attention` `(l, b, heads, n, m)`.
        """
        x = keep_rows(self.embed(x))
        b, h, w, d = x.shape
        x = x.reshape(b, h * w, d)
        if self.class_token is not None:
            token = jnp.broadcast_to(self.class_token[...], (b, 1, d)).astype(x.dtype)
            x = jnp.concatenate([token, x], axis=1)
        x = dropout(x, self.dropout_rate, fold(key, "embedding"))
        around = Surroundings((h, w))
        x, captured = apply_blocks(
            self.blocks, x, fold(key, "blocks"), around, outputs=outputs, weights=weights
        )
        first = x.shape[1] - h * w
        if outputs:
            captured["blocks"] = captured["blocks"][:, :, first:].reshape(-1, b, h, w, d)
        return x[:, first:].reshape(b, h, w, d), x[:, :first], captured


class CvT(Backbone):
    """A Convolutional vision Transformer: images `(b, h, w, c)` to logits `(b, classes)`.

    Args:
      config: sizes and options.
      rngs: source of the keys that initialise the parameters.
    """

    def __init__(self, config: CvtConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.stages = nnx.List([Stage(config, index, rngs=rngs) for index in range(len(config.depths))])
        d, classes = config.widths[-1], config.num_classes
        self.norm = LayerNorm(d, config.norm_epsilon) if config.final_norm else None
        self.head = Dense((d,), (classes,), scheme="zeros", rngs=rngs) if classes else None

    def __call__(
        self, images: jax.Array, key: jax.Array | None = None, capture: str | tuple[str, ...] = ()
    ) -> Any:
        """Return the model's output and, when asked for by name, intermediate values.

        Args:
          images: normalised images `(b, h, w, c)` of any size.
          key: randomness of dropout and drop path; None for evaluation, in which batch norms take running statistics.
          capture: a name or several: `stages/1` and `blocks/5`, maps `(b, h, w, d)`; `attention/-1`
            `(b, heads, 1 + n, 1 + m)`, weights of a block, without the 1 in earlier stages; `pre_logits` `(b, d)`.

        Returns:
          Logits `(b, classes)` in float32; without a head, the class token `(b, d)`. With `capture`, a tuple of that
          and a dict with the names as given.

        Raises:
          ConfigError: images the model does not take, or an unknown name.
        """
        depths = self.config.depths
        counts = {"stages": len(depths), "blocks": sum(depths), "attention": sum(depths)}
        wanted = parse_captures(capture, CAPTURES, counts)
        check_channels(images, self.config.in_channels)
        self.config.grids(images.shape[1:3])
        x, token = images.astype(self.config.dtype), None
        values: dict[tuple[str, int | None], jax.Array] = {}
        first = 0
        for index, stage in enumerate(self.stages):
            own = range(first, first + depths[index])
            outputs, weights = (any((kind, block) in wanted.values() for block in own) for kind in OF_BLOCKS)
            x, token, found = stage(x, fold(key, f"stage{index}"), outputs=outputs, weights=weights)
            values["stages", index] = x
            values |= {(kind, block): stack[block - first] for kind, stack in found.items() for block in own}
            first += depths[index]
        assert token is not None  # of the last stage
        out = values["pre_logits", None] = token[:, 0] if self.norm is None else self.norm(token[:, 0])
        # The head is small and its logits feed exponentials: float32 always.
        out = out if self.head is None else self.head(out.astype(jnp.float32))
        return (out, {name: values[one] for name, one in wanted.items()}) if wanted else out
