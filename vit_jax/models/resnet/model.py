"""The residual network (He et al. 2015, arXiv 1512.03385) with batch norms, as torchvision and timm have it."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax.models.layers.batch_norm import BatchNorm
from vit_jax.models.layers.convolutional import convolve, max_pool
from vit_jax.models.layers.dense import Dense
from vit_jax.models.layers.module import Module
from vit_jax.models.layers.pixels.checks import check_channels
from vit_jax.models.layers.placement import keep_rows
from vit_jax.models.pyramid.backbone import Backbone
from vit_jax.models.pyramid.captures import parse_captures
from vit_jax.models.resnet.config import Convolution, ResNetConfig
from vit_jax.models.resnet.family import CAPTURES


class NormedConvolution(Module):
    """A convolution without a bias, and its batch norm, whose scale may start at zero."""

    def __init__(self, layer: Convolution, config: ResNetConfig, *, zero: bool = False, rngs: nnx.Rngs):
        self.layer = layer
        shape = (layer.size, layer.size, layer.inputs // layer.groups, layer.outputs)
        initial = jax.nn.initializers.variance_scaling(2.0, "fan_out", "normal")
        self.kernel = nnx.Param(initial(rngs.params(), shape, jnp.float32))
        self.norm = BatchNorm(layer.outputs, config.norm_epsilon, frozen=config.frozen_statistics)
        if zero:
            self.norm.scale = nnx.Param(jnp.zeros((layer.outputs,)))

    def __call__(self, x: jax.Array, training: bool = False) -> jax.Array:
        """Return `(b, h / stride, w / stride, o)`, rounded up, of `x` `(b, h, w, i)`."""
        kernel, pad = self.kernel[...].astype(x.dtype), self.layer.size // 2
        return self.norm(convolve(x, kernel, self.layer.stride, pad, self.layer.groups), training)


class Block(Module):
    """Convolutions beside a shortcut, which is projected where shapes differ. It starts as its shortcut."""

    def __init__(
        self, layers: list[Convolution], shortcut: Convolution | None, config: ResNetConfig, *, rngs: nnx.Rngs
    ):
        last = layers[-1]
        self.layers = nnx.List(
            [NormedConvolution(layer, config, zero=layer is last, rngs=rngs) for layer in layers]
        )
        self.shortcut = None if shortcut is None else NormedConvolution(shortcut, config, rngs=rngs)

    def __call__(self, x: jax.Array, training: bool = False) -> jax.Array:
        """Return `(b, h / stride, w / stride, o)`, rounded up, of `x` `(b, h, w, i)`."""
        beside = x if self.shortcut is None else self.shortcut(x, training)
        *first, last = self.layers
        for layer in first:
            x = jax.nn.relu(layer(x, training))
        return jax.nn.relu(last(x, training) + beside)


class ResNet(Backbone):
    """A residual network: images `(b, h, w, c)` to logits `(b, classes)`.

    Args:
      config: sizes and options.
      rngs: source of the keys that initialise the parameters.
    """

    def __init__(self, config: ResNetConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.stem = NormedConvolution(config.stem, config, rngs=rngs)
        stages: list[list[Block]] = [[] for _ in config.depths]
        for stage, layers, shortcut in config.blocks():
            stages[stage].append(Block(layers, shortcut, config, rngs=rngs))
        self.stages = nnx.List([nnx.List(blocks) for blocks in stages])
        d, classes = config.feature_width, config.num_classes
        self.head = Dense((d,), (classes,), scheme="zeros", rngs=rngs) if classes else None

    def __call__(
        self, images: jax.Array, key: jax.Array | None = None, capture: str | tuple[str, ...] = ()
    ) -> Any:
        """Return the model's output and, when asked for by name, intermediate values.

        Args:
          images: normalised images `(b, h, w, c)` of any size.
          key: of training, in which batch norms take the batch's statistics; None for evaluation.
          capture: a name or several: `stages/1` and `blocks/5`, maps `(b, h, w, d)`; `pre_logits` `(b, d)`.

        Returns:
          Logits `(b, classes)` in float32; without a head, the mean `(b, d)` of the last map. With `capture`, a tuple
          of that and a dict with the names as given.

        Raises:
          ConfigError: images the model does not take, or an unknown name.
        """
        depths, training = self.config.depths, key is not None
        counts = {"stages": len(depths), "blocks": sum(depths)}
        wanted = parse_captures(capture, CAPTURES, counts)
        check_channels(images, self.config.in_channels)
        values: dict[tuple[str, int | None], jax.Array] = {}
        x = max_pool(jax.nn.relu(self.stem(images.astype(self.config.dtype), training)), 1)
        number = 0
        for stage, blocks in enumerate(self.stages):
            for block in blocks:
                x = values["blocks", number] = keep_rows(block(x, training))
                number += 1
            values["stages", stage] = x
        out = values["pre_logits", None] = x.mean(axis=(1, 2), dtype=jnp.float32)
        out = out if self.head is None else self.head(out)
        return (out, {name: values[one] for name, one in wanted.items()}) if wanted else out
