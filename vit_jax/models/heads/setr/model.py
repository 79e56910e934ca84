"""Semantic segmentation with SETR's decoders (Zheng et al. 2020, arXiv 2012.15840) on the maps of any backbone.

They are those of mmsegmentation, without aligned corners. Maps are `(b, h, w, c)`.
"""

from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax.models.heads.parts import Conv, drop_channels, resized
from vit_jax.models.heads.setr.config import SetrConfig
from vit_jax.models.layers.dense import Dense
from vit_jax.models.layers.module import Module
from vit_jax.models.layers.norm import LayerNorm
from vit_jax.models.maps import level_maps
from vit_jax.models.registry import builder
from vit_jax.random import fold

EPSILON = 1e-6  # of layer norms
ENLARGED = 4  # times, by a further head and by each branch


def enlarged(x: jax.Array, times: int) -> jax.Array:
    """Return a map `(b, h, w, c)` so many times as high and wide, bilinear."""
    return resized(x, (times * x.shape[1], times * x.shape[2]))


class UpDecoder(Module):
    """One map to logits: a layer norm, then convolutions, each of which is followed by enlarging."""

    def __init__(self, config: SetrConfig, inputs: int, convs: int, scale: int, *, rngs: nnx.Rngs):
        self.scale, self.dropout_rate = scale, config.dropout_rate
        channels = [inputs] + [config.channels] * convs
        conv = partial(Conv, config.kernel, norm=config.norm, rngs=rngs)
        self.norm = LayerNorm(inputs, EPSILON)
        self.convs = nnx.List([conv(i, o) for i, o in pairwise(channels)])
        self.head = Dense((config.channels,), (config.num_classes,), scheme="trunc_normal", rngs=rngs)

    def __call__(self, x: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """Return logits `(b, rows, columns, classes)` in float32 of a map `(b, h, w, d)`."""
        x = self.norm(x)
        for conv in self.convs:
            x = enlarged(conv(x, key is not None), self.scale)
        return self.head(drop_channels(x, self.dropout_rate, key).astype(jnp.float32))


class Aggregation(Module):
    """Maps of one size, each normalised and made narrower, added up from the last to the first."""

    def __init__(self, config: SetrConfig, *, rngs: nnx.Rngs):
        d, conv = config.channels, partial(Conv, norm=config.norm, rngs=rngs)
        widths = [level.channels for level in config.levels]
        self.norms = nnx.List([LayerNorm(width, EPSILON) for width in widths])
        self.projections = nnx.List([conv(1, width, d) for width in widths])
        self.outputs = nnx.List([conv(3, d, d) for _ in widths])

    def __call__(self, maps: list[jax.Array], training: bool = False) -> list[jax.Array]:
        """Return the sums `(b, h, w, d)`, that of the last map alone first."""
        narrow = [
            conv(norm(x), training) for norm, conv, x in zip(self.norms, self.projections, maps, strict=True)
        ]
        total, found = jnp.zeros((), narrow[0].dtype), []
        for x, output in zip(narrow[::-1], self.outputs, strict=True):
            total = total + x
            found.append(output(total, training))
        return found


class BranchDecoder(Module):
    """Sums of maps to logits: of each two convolutions and four times the size, then all side by side."""

    def __init__(self, config: SetrConfig, *, rngs: nnx.Rngs):
        d, count, self.dropout_rate = config.branch_channels, len(config.levels), config.dropout_rate
        conv = partial(Conv, 3, norm=config.norm, rngs=rngs)
        self.branches = nnx.List([nnx.List([conv(config.channels, d), conv(d, d)]) for _ in range(count)])
        self.head = Dense((count * d,), (config.num_classes,), scheme="trunc_normal", rngs=rngs)

    def __call__(self, maps: list[jax.Array], key: jax.Array | None = None) -> jax.Array:
        """Return logits `(b, 4 h, 4 w, classes)` in float32 of maps `(b, h, w, c)`."""
        training, found = key is not None, []
        for (first, second), x in zip(self.branches, maps, strict=True):
            found.append(enlarged(second(first(x, training), training), ENLARGED))
        x = drop_channels(jnp.concatenate(found, -1), self.dropout_rate, key)
        return self.head(x.astype(jnp.float32))


class Setr(Module):
    """Images `(b, h, w, c)` to classes of pixels.

    Args:
      config: encoder and decoder.
      rngs: source of the keys that initialise the parameters.
    """

    def __init__(self, config: SetrConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.encoder = builder(config.encoder)(rngs.params())
        widths = [level.channels for level in config.levels]
        adds = config.decoder == "mla"
        self.aggregation = Aggregation(config, rngs=rngs) if adds else None
        self.decoder = (
            BranchDecoder(config, rngs=rngs)
            if adds
            else UpDecoder(config, widths[-1], config.convs, config.scale, rngs=rngs)
        )
        self.auxiliary = nnx.List(
            [
                Dense((config.channels,), (config.num_classes,), scheme="trunc_normal", rngs=rngs)
                if adds
                else UpDecoder(config, widths[number], 1, ENLARGED, rngs=rngs)
                for number in config.auxiliary
            ]
        )

    def features(self, images: jax.Array, key: jax.Array | None = None) -> list[jax.Array]:
        """Return what heads stand on, of normalised images `(b, h, w, c)`; `key` is None for evaluation."""
        maps = level_maps(self.encoder, self.config.levels, images, key)
        return maps if self.aggregation is None else self.aggregation(maps, key is not None)

    def __call__(self, images: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """Return logits of classes `(b, rows, columns, classes)` in float32.

        Args:
          images: normalised images `(b, h, w, c)`.
          key: randomness of dropout and drop path; None for evaluation.
        """
        return self._decoded(self.features(images, key), key)

    def with_auxiliary(
        self, images: jax.Array, key: jax.Array | None = None
    ) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        """Return the logits, and those `(b, rows, columns, classes)` of the auxiliary heads."""
        maps, further = self.features(images, key), []
        for place, (number, head) in enumerate(zip(self.config.auxiliary, self.auxiliary, strict=True)):
            if isinstance(head, UpDecoder):
                further.append(head(maps[number], fold(key, f"auxiliary{place}")))
            else:
                further.append(head(maps[number].astype(jnp.float32)))
        return self._decoded(maps, key), tuple(further)

    def _decoded(self, maps: list[jax.Array], key: jax.Array | None) -> jax.Array:
        key = fold(key, "decoder")
        if isinstance(self.decoder, UpDecoder):
            return self.decoder(maps[-1], key)
        return self.decoder(maps, key)
