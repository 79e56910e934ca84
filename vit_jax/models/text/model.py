"""Text encoders, and pairs of an image and a text encoder.

Sources: CLIP (Radford et al. 2021, arXiv 2103.00020), SigLIP (Zhai et al. 2023, arXiv 2303.15343).
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax.errors import ConfigError
from vit_jax.models.layers.attention import Surroundings
from vit_jax.models.layers.dense import Dense
from vit_jax.models.layers.dropout import dropout
from vit_jax.models.layers.encoder import apply_blocks, make_blocks
from vit_jax.models.layers.module import Module
from vit_jax.models.layers.norm import norm_of
from vit_jax.models.patches import Patches
from vit_jax.models.text.config import ImageTextConfig, TextConfig
from vit_jax.models.vit.model import VisionTransformer
from vit_jax.random import fold


class TextTransformer(Module):
    """Tokens `(b, n)` to one vector per text.

    Args:
      config: sizes and options.
      rngs: source of the keys that initialise the parameters.
    """

    def __init__(self, config: TextConfig, *, rngs: nnx.Rngs):
        self.config = config
        d = config.width

        def normal(rows: int, deviation: float) -> nnx.Param:
            return nnx.Param(deviation * jax.random.normal(rngs.params(), (rows, d), jnp.float32))

        self.token_embed = normal(config.vocab_size, 0.02)
        self.pos_embed = normal(config.context_length, 0.01)
        self.blocks = make_blocks(config, rngs=rngs)
        self.norm = norm_of(config, d)
        classes = config.num_classes
        self.head = (
            Dense((d,), (classes,), use_bias=config.head_bias, scheme=config.init, rngs=rngs)
            if classes
            else None
        )

    def features(self, tokens: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """Return encoded tokens `(b, n, d)` of `tokens` `(b, n)`.

        Raises:
          ConfigError: there are more tokens than positions.
        """
        config = self.config
        if tokens.ndim != 2 or tokens.shape[1] > config.context_length:
            raise ConfigError(
                f"tokens have shape {tokens.shape}; the model takes (batch, up to {config.context_length})."
            )
        n = tokens.shape[1]
        x = (self.token_embed[...][tokens] + self.pos_embed[...][:n]).astype(config.dtype)
        x = dropout(x, config.dropout_rate, fold(key, "embedding"))
        mask = jnp.tril(jnp.ones((1, 1, n, n), bool)) if config.causal else None
        x, _ = apply_blocks(self.blocks, x, fold(key, "blocks"), Surroundings(mask=mask))
        return self.norm(x)

    def __call__(self, tokens: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """Return the embedding of each text, `(b, e)` float32.

        Args:
          tokens: `(b, n)` integers. With pool `last`, pad texts to the full length, as in training.
          key: None for evaluation.
        """
        x = self.features(tokens, key)
        if self.config.pool in ("first", "last"):
            x = x[:, 0 if self.config.pool == "first" else -1]
        else:
            wanted = tokens == self.config.eos_token if self.config.pool == "eos" else tokens
            x = jnp.take_along_axis(x, jnp.argmax(wanted, axis=1)[:, None, None], axis=1)[:, 0]
        x = x.astype(jnp.float32)
        return x if self.head is None else self.head(x)


class Similarities(NamedTuple):
    """What a pair of towers says of images and texts.

    Attributes:
      logits: `(i, t)`, scaled similarity of each image with each text.
      image: `(i, e)`, embeddings of length 1.
      text: `(t, e)`, embeddings of length 1.
    """

    logits: jax.Array
    image: jax.Array
    text: jax.Array


class ImageTextModel(Module):
    """An image and a text encoder whose embeddings are compared.

    Args:
      config: both towers.
      rngs: source of the keys that initialise the parameters.
    """

    def __init__(self, config: ImageTextConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.image = VisionTransformer(config.image, rngs=rngs)
        self.text = TextTransformer(config.text, rngs=rngs)
        # CLIP starts at a temperature of 0.07, SigLIP at a scale of 10 and a bias of -10.
        self.logit_scale = nnx.Param(jnp.float32(math.log(10 if config.logit_bias else 1 / 0.07)))
        self.logit_bias = nnx.Param(jnp.float32(-10)) if config.logit_bias else None

    def encode_image(self, images: jax.Array | Patches, key: jax.Array | None = None) -> jax.Array:
        """Return embeddings of length 1, `(b, e)`, of images `(b, h, w, c)` or `Patches`."""
        return _unit(self.image(images, key))

    def encode_text(self, tokens: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """Return embeddings of length 1, `(b, e)`, of tokens `(b, n)`."""
        return _unit(self.text(tokens, key))

    def compare(self, image: jax.Array, text: jax.Array) -> jax.Array:
        """Return logits `(i, t)` of embeddings of length 1 of images `(i, e)` and texts `(t, e)`."""
        bias = 0 if self.logit_bias is None else self.logit_bias[...]
        return jnp.exp(self.logit_scale[...]) * (image @ text.T) + bias

    def __call__(
        self, images: jax.Array | Patches, tokens: jax.Array, key: jax.Array | None = None
    ) -> Similarities:
        """Compare images `(i, h, w, c)` with texts `(t, n)`."""
        image = self.encode_image(images, fold(key, "image"))
        text = self.encode_text(tokens, fold(key, "text"))
        return Similarities(self.compare(image, text), image, text)


def _unit(x: jax.Array) -> jax.Array:
    x = x.astype(jnp.float32)  # a tower without a head gives its compute dtype
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)
