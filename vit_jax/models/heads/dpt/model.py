"""The dense prediction transformer (Ranftl et al. 2021, arXiv 2103.13413), and what Depth Anything made of it.

Maps are `(b, h, w, c)`. Names and numbers are those of transformers.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax.models.heads.dpt.config import MAPS, DptConfig
from vit_jax.models.heads.parts import Conv, Larger, drop_channels, resized, stretched
from vit_jax.models.layers.activations import ACTIVATIONS
from vit_jax.models.layers.convolutional import convolve
from vit_jax.models.layers.dense import Dense, spread
from vit_jax.models.layers.module import Module
from vit_jax.models.maps import level_maps
from vit_jax.models.registry import builder
from vit_jax.random import fold


class BiasedConv(Module):
    """A convolution with a bias or without, and nothing else."""

    def __init__(
        self, size: int, inputs: int, outputs: int, stride: int = 1, *, bias: bool = True, rngs: nnx.Rngs
    ):
        self.stride, shape = stride, (size, size, inputs, outputs)
        self.kernel = nnx.Param(jax.nn.initializers.lecun_normal()(rngs.params(), shape, jnp.float32))
        self.bias = nnx.Param(jnp.zeros((outputs,))) if bias else None

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return `(b, h / stride, w / stride, o)`, rounded up, of `x` `(b, h, w, i)`."""
        kernel = self.kernel[...].astype(x.dtype)
        x = convolve(x, kernel, self.stride, kernel.shape[0] // 2)
        return x if self.bias is None else x + spread(self.bias[...], x)


class Reassemble(Module):
    """One map of the backbone to one of the pyramid: what the class token says, other channels, another size."""

    def __init__(self, config: DptConfig, index: int, *, rngs: nnx.Rngs):
        d, width, factor = config.levels[index].channels, config.widths[index], config.factors[index]
        self.add = config.readout == "add"
        project = config.readout == "project"
        self.readout = Dense((2 * d,), (d,), scheme="trunc_normal", rngs=rngs) if project else None
        self.projection = BiasedConv(1, d, width, rngs=rngs)
        larger = Larger(width, int(factor), rngs=rngs) if factor > 1 else None
        self.resize = BiasedConv(3, width, width, 2, rngs=rngs) if factor < 1 else larger
        self.output = BiasedConv(3, width, config.channels, bias=False, rngs=rngs)

    def place(self, x: jax.Array, token: jax.Array | None) -> jax.Array:
        """Return a map `(b, h', w', c)` of the pyramid of a map `(b, h, w, d)` and the class token `(b, d)`."""
        if token is not None:
            beside = jnp.broadcast_to(token[:, None, None], x.shape)
            if self.readout is not None:
                x = ACTIVATIONS["gelu"](self.readout(jnp.concatenate([x, beside], -1)))
            elif self.add:
                x = x + beside
        x = self.projection(x)
        return x if self.resize is None else self.resize(x)

    def __call__(self, x: jax.Array, token: jax.Array | None) -> jax.Array:
        """Return the same with the channels of the fusion, `(b, h', w', channels)`."""
        return self.output(self.place(x, token))


class Residual(Module):
    """Two convolutions, each after a ReLU, beside their input."""

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        self.first = BiasedConv(3, channels, channels, rngs=rngs)
        self.second = BiasedConv(3, channels, channels, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return a map `(b, h, w, c)` like `x`."""
        return x + self.second(jax.nn.relu(self.first(jax.nn.relu(x))))


class Fusion(Module):
    """What was fused so far, and the next finer map of the pyramid."""

    def __init__(self, channels: int, first: bool, *, rngs: nnx.Rngs):
        self.skip = None if first else Residual(channels, rngs=rngs)
        self.residual = Residual(channels, rngs=rngs)
        self.projection = BiasedConv(1, channels, channels, rngs=rngs)

    def __call__(self, x: jax.Array, finer: jax.Array | None, size: tuple[int, ...] | None) -> jax.Array:
        """Return `(b, rows, columns, c)`: of a size, or twice as large as `x` `(b, h, w, c)`."""
        if finer is not None and self.skip is not None:
            x = x + self.skip(resized(finer, x.shape[1:3]))
        x = self.residual(x)
        x = stretched(x, (2 * x.shape[1], 2 * x.shape[2]) if size is None else size)
        return self.projection(x)


class ClassHead(Module):
    """A convolution with its norm, dropout of channels, classes."""

    def __init__(self, config: DptConfig, *, rngs: nnx.Rngs):
        self.dropout_rate, d = config.dropout_rate, config.channels
        self.conv = Conv(3, d, d, config.norm, rngs=rngs)
        self.head = Dense((d,), (config.num_classes,), scheme="trunc_normal", rngs=rngs)

    def __call__(self, x: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """Return logits `(b, h, w, classes)` in float32 of a map `(b, h, w, c)`."""
        x = drop_channels(self.conv(x, key is not None), self.dropout_rate, key)
        return self.head(x.astype(jnp.float32))


class DepthHead(Module):
    """Three convolutions, of which the second and third see pixels."""

    def __init__(self, config: DptConfig, *, rngs: nnx.Rngs):
        d, self.sigmoid, self.max_depth = config.channels, config.output == "sigmoid", config.max_depth
        self.first = BiasedConv(3, d, d // 2, rngs=rngs)
        self.second = BiasedConv(3, d // 2, config.head_width, rngs=rngs)
        self.third = Dense((config.head_width,), (1,), scheme="trunc_normal", rngs=rngs)

    def __call__(self, x: jax.Array, size: tuple[int, ...] | None) -> jax.Array:
        """Return depths `(b, rows, columns)` in float32 of a map `(b, h, w, c)`: of a size, or twice as many."""
        x = self.first(x)
        x = stretched(x, (2 * x.shape[1], 2 * x.shape[2]) if size is None else size)
        x = self.third(jax.nn.relu(self.second(x)).astype(jnp.float32))[..., 0]
        return self.max_depth * (jax.nn.sigmoid(x) if self.sigmoid else jax.nn.relu(x))


class Dpt(Module):
    """Images `(b, h, w, c)` to classes or the depth of pixels.

    Args:
      config: encoder and decoder.
      rngs: source of the keys that initialise the parameters.
    """

    def __init__(self, config: DptConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.encoder = builder(config.encoder)(rngs.params())
        self.reassemble = nnx.List([Reassemble(config, index, rngs=rngs) for index in range(MAPS)])
        self.fusion = nnx.List([Fusion(config.channels, not index, rngs=rngs) for index in range(MAPS)])
        kind: Any = ClassHead if config.output == "classes" else DepthHead
        self.head = kind(config, rngs=rngs)
        self.auxiliary = ClassHead(config, rngs=rngs) if config.auxiliary else None

    def features(self, images: jax.Array, key: jax.Array | None = None) -> list[jax.Array]:
        """Return all fused maps `(b, rows, columns, channels)` of normalised images `(b, h, w, c)`, the finest last."""
        taken = self.taken(images, key)
        pyramid = [layer(*one) for layer, one in zip(self.reassemble, taken, strict=True)]
        fused: list[jax.Array] = []
        for index, layer in enumerate(self.fusion):
            here = MAPS - 1 - index  # in the pyramid, whose finest map is the first
            size = pyramid[here - 1].shape[1:3] if self.config.fuse_to == "next" and here else None
            fused.append(layer(fused[-1], pyramid[here], size) if fused else layer(pyramid[here], None, size))
        return fused

    def __call__(self, images: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """Return logits of classes `(b, rows, columns, classes)` or depths `(b, rows, columns)`, in float32.

        Args:
          images: normalised images `(b, h, w, c)`.
          key: randomness of dropout and drop path; None for evaluation.
        """
        return self._decoded(self.features(images, key)[-1], images, key)

    def with_auxiliary(
        self, images: jax.Array, key: jax.Array | None = None
    ) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        """Return the output, and the logits `(b, rows, columns, classes)` of the auxiliary head, if there is one."""
        fused = self.features(images, key)[-1]
        further = () if self.auxiliary is None else (self.auxiliary(fused, fold(key, "auxiliary")),)
        return self._decoded(fused, images, key), further

    def _decoded(self, fused: jax.Array, images: jax.Array, key: jax.Array | None) -> jax.Array:
        if isinstance(self.head, ClassHead):
            logits = self.head(fused, fold(key, "head"))
            return stretched(logits, (2 * logits.shape[1], 2 * logits.shape[2]))
        size = images.shape[1:3] if self.config.fuse_to == "next" else None
        return self.head(fused, size)

    def taken(
        self, images: jax.Array, key: jax.Array | None = None
    ) -> list[tuple[jax.Array, jax.Array | None]]:
        """Return the maps `(b, h, w, d)` that are taken, each with the class token `(b, d)` where it is read."""
        config, levels = self.config, self.config.levels
        if config.readout == "ignore" and not config.tap_norm:
            return [(x, None) for x in level_maps(self.encoder, levels, images, key)]
        names = tuple(dict.fromkeys(level.name for level in levels))
        encoder: Any = self.encoder  # a plain ViT, which alone has such tokens
        _, captured = encoder(images, key, capture=names)
        found = []
        for level in levels:
            tokens = captured[level.name]
            tokens = encoder.norm(tokens) if config.tap_norm else tokens
            b, _, d = tokens.shape
            x = tokens[:, level.prefix :].reshape(b, *encoder.grid_of(images), d)
            found.append((x, None if config.readout == "ignore" else tokens[:, 0]))
        return found
