"""The encoder of DALL-E's discrete autoencoder (Ramesh et al. 2021, arXiv 2102.12092), BEiT's tokenizer."""

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax.errors import ConfigError
from vit_jax.models.layers.module import Module
from vit_jax.models.tokenizers.dalle_config import DalleEncoderConfig


class Conv(Module):
    """A convolution that keeps the size of a map `(b, h, w, c)`."""

    def __init__(self, inputs: int, outputs: int, side: int, *, rngs: nnx.Rngs):
        scale = (inputs * side**2) ** -0.5
        self.kernel = nnx.Param(
            scale * jax.random.normal(rngs.params(), (side, side, inputs, outputs), jnp.float32)
        )
        self.bias = nnx.Param(jnp.zeros((outputs,)))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return the map with other channels."""
        layout = ("NHWC", "HWIO", "NHWC")
        kernel = self.kernel[...].astype(x.dtype)
        out = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout)
        return out + self.bias[...].astype(x.dtype)


class Unit(Module):
    """A residual block of four convolutions, each after a ReLU; the branch is divided by the square of their depth."""

    def __init__(self, inputs: int, outputs: int, blocks: int, *, rngs: nnx.Rngs):
        self.gain, inner = blocks**-2, outputs // 4
        self.conv1 = Conv(inputs, inner, 3, rngs=rngs)
        self.conv2 = Conv(inner, inner, 3, rngs=rngs)
        self.conv3 = Conv(inner, inner, 3, rngs=rngs)
        self.conv4 = Conv(inner, outputs, 1, rngs=rngs)
        self.skip = Conv(inputs, outputs, 1, rngs=rngs) if inputs != outputs else None

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return the map `(b, h, w, outputs)`."""
        branch = x
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            branch = conv(jax.nn.relu(branch))
        return (x if self.skip is None else self.skip(x)) + self.gain * branch


class DalleEncoder(Module):
    """Images to logits of codes, one for 8x8 pixels.

    Args:
      config: sizes.
      rngs: source of the keys.
    """

    def __init__(self, config: DalleEncoderConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.input = Conv(config.in_channels, config.hidden, 7, rngs=rngs)
        total = len(config.widths)
        self.units = nnx.List([Unit(*widths, total, rngs=rngs) for widths in config.widths])
        self.output = Conv(config.widths[-1][1], config.vocabulary, 1, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Return logits `(b, h / 8, w / 8, codes)` float32 of images `(b, h, w, c)` from 0.1 to 0.9.

        Raises:
          ConfigError: sides are no multiples of 8.
        """
        if any(side % step for side, step in zip(images.shape[1:3], self.config.stride)):
            raise ConfigError(
                f"images are {images.shape[1:3]}; the sides of those that DALL-E's encoder takes are multiples of 8."
            )
        x = self.input(images.astype(self.config.dtype))
        for number, unit in enumerate(self.units):
            if number and number % self.config.blocks == 0:
                x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
            x = unit(x)
        return self.output(jax.nn.relu(x)).astype(jnp.float32)

    def codes(self, images: jax.Array) -> jax.Array:
        """Return the code of each place, int32 `(b, n)`, row by row."""
        logits = self(images)
        return jnp.argmax(logits, axis=-1).reshape(len(images), -1).astype(jnp.int32)
