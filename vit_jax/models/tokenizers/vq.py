"""A tokenizer that is trained here: a vector-quantised autoencoder of plain ViTs, codes compared by cosine.

Sources: van den Oord et al. 2017 (arXiv 1711.00937), Yu et al. 2021 (arXiv 2110.04627).
"""

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax.models.layers.dense import Dense, spread
from vit_jax.models.layers.encoder import apply_blocks, make_blocks
from vit_jax.models.layers.module import Module
from vit_jax.models.layers.norm import LayerNorm, unit
from vit_jax.models.layers.pixels.patches import unpatchify
from vit_jax.models.layers.positions.absolute import sincos2d
from vit_jax.models.tokenizers.vq_config import VqTokenizerConfig
from vit_jax.models.vit.config import ViTConfig
from vit_jax.models.vit.model import VisionTransformer
from vit_jax.random import fold


class VqDecoder(Module):
    """Codes of all patches to their pixels."""

    def __init__(self, config: ViTConfig, code_width: int, *, rngs: nnx.Rngs):
        self.config, d = config, config.width
        self.embed = Dense((code_width,), (d,), scheme=config.init, rngs=rngs)
        self.blocks = make_blocks(config, rngs=rngs)
        self.norm = LayerNorm(d, config.norm_epsilon)
        values = config.token_stride[0] * config.token_stride[1] * config.in_channels
        self.head = Dense((d,), (values,), scheme=config.init, rngs=rngs)

    def __call__(self, codes: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """Return images `(b, h, w, c)` float32 of vectors `(b, n, code width)`."""
        x = self.embed(codes.astype(self.config.dtype))
        x = x + spread(sincos2d(self.config.grid, self.config.width, "mae"), x)
        x, _ = apply_blocks(self.blocks, x, key)
        patches = self.head(self.norm(x)).astype(jnp.float32)
        return unpatchify(patches, self.config.token_stride, self.config.grid)


class Codebook(Module):
    """The codes `(k, d)`, rows of length 1, and how often each is used: no parameters, they follow what is encoded."""

    def __init__(self, count: int, width: int, *, rngs: nnx.Rngs):
        self.vectors = nnx.BatchStat(unit(jax.random.normal(rngs.params(), (count, width), jnp.float32)))
        self.uses = nnx.BatchStat(jnp.zeros((count,)))


class VqTokenizer(Module):
    """Images to a code for each patch, and back.

    Args:
      config: sizes.
      rngs: source of the keys.
    """

    def __init__(self, config: VqTokenizerConfig, *, rngs: nnx.Rngs):
        self.config = config
        encoder = config.encoder
        self.encoder = VisionTransformer(encoder, rngs=rngs)
        self.to_codes = Dense((encoder.width,), (config.code_width,), scheme=encoder.init, rngs=rngs)
        self.codebook = Codebook(config.vocabulary, config.code_width, rngs=rngs)
        self.decoder = VqDecoder(config.decoder, config.code_width, rngs=rngs)

    def vectors(self, images: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """Return what is quantised, rows of length 1, float32 `(b, n, code width)`, of normalised images."""
        x, _ = self.encoder.encode(self.encoder.embed(images, fold(key, "embed")), fold(key, "encoder"))
        return unit(self.to_codes(x).astype(jnp.float32))

    def nearest(self, vectors: jax.Array) -> jax.Array:
        """Return the number of the code nearest to each vector, int32 `(b, n)`."""
        return jnp.argmax(vectors @ self.codebook.vectors[...].T, axis=-1).astype(jnp.int32)

    def codes(self, images: jax.Array) -> jax.Array:
        """Return the code of each patch of normalised images `(b, h, w, c)`, int32 `(b, n)`, row by row."""
        return self.nearest(self.vectors(images))

    def __call__(
        self, images: jax.Array, key: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Return reconstructed images, what was quantised `(b, n, code width)`, and its codes `(b, n)`.

        The gradient of the images goes to what was quantised as if it had not been (straight through).
        """
        vectors = self.vectors(images, key)
        codes = self.nearest(vectors)
        quantised = vectors + jax.lax.stop_gradient(self.codebook.vectors[...][codes] - vectors)
        return self.decoder(quantised, fold(key, "decoder")), vectors, codes
