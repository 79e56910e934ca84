"""The Vision Transformer (Dosovitskiy et al. 2020, arXiv 2010.11929) and its plain descendants."""

import re
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax.errors import ConfigError, nearest
from vit_jax.models.embedding import (
    PatchEmbed,
    StemLayer,
    drop_patches,
    grid_of,
    position_table,
    with_prefix,
)
from vit_jax.models.encoder import apply_blocks, make_blocks
from vit_jax.models.layers import Dense, LayerNorm, dropout, value_of
from vit_jax.models.pooling import AttentionPool, pool_tokens
from vit_jax.models.vit_config import ViTConfig, replace
from vit_jax.random import fold

# What a call can return beside its output; `blocks` and `attention` also take a layer: `attention/-1`.
CAPTURES = ("embedded", "blocks", "attention", "encoded", "pooled", "pre_logits")


class VisionTransformer(nnx.Module):
    """A Vision Transformer: images `(b, h, w, c)` to logits `(b, classes)`.

    Args:
      config: sizes and options.
      rngs: source of the keys that initialise the parameters.
    """

    def __init__(self, config: ViTConfig, *, rngs: nnx.Rngs):
        self.config = config
        d = config.width
        channels = (config.in_channels, *config.stem)
        self.stem = nnx.List([StemLayer(config, i, o, rngs=rngs) for i, o in pairwise(channels)])
        self.patch_embed = PatchEmbed(config, rngs=rngs)
        self.class_token = nnx.Param(_tokens(config, 1, rngs)) if config.class_token else None
        self.register_tokens = (
            nnx.Param(1e-6 * jax.random.normal(rngs.params(), (config.register_tokens, d), jnp.float32))
            if config.register_tokens
            else None
        )
        learned = config.position == "learned"
        self.pos_embed = (
            nnx.Param(0.02 * jax.random.normal(rngs.params(), (config.position_slots, d), jnp.float32))
            if learned
            else None
        )
        self.norm_pre = LayerNorm(d, config.norm_epsilon) if config.pre_norm else None
        self.blocks = make_blocks(config, rngs=rngs)
        self.norm = LayerNorm(d, config.norm_epsilon)
        # nnx.data: these can change between a module and None, see `reset_classifier`.
        self.pool = nnx.data(AttentionPool(config, rngs=rngs) if config.pool == "map" else None)
        size = config.representation_size
        self.pre_logits = Dense((d,), (size,), scheme=config.init, rngs=rngs) if size else None
        self.head = nnx.data(_head(config))

    def embed(self, images: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """Return the encoder's input `(b, tokens, d)` for normalised images `(b, h, w, c)`."""
        config = self.config
        grid = grid_of(config, images)
        x = images.astype(config.dtype)
        for layer in self.stem:
            x = layer(x)
        x = with_prefix(
            self.patch_embed(x),
            position_table(config, value_of(self.pos_embed), grid),
            value_of(self.class_token),
            value_of(self.register_tokens),
        )
        if key is not None and config.patch_drop_rate:
            first, patches = x[:, : config.prefix_tokens], x[:, config.prefix_tokens :]
            kept = drop_patches(patches, config.patch_drop_rate, fold(key, "patches"))
            x = jnp.concatenate([first, kept], axis=1)
        x = dropout(x, config.dropout_rate, fold(key, "embedding"))
        return x if self.norm_pre is None else self.norm_pre(x)

    def encode(
        self, x: jax.Array, key: jax.Array | None = None, *, outputs: bool = False, weights: bool = False
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Return encoded tokens `(b, tokens, d)` and what `apply_blocks` was asked to capture."""
        x, captured = apply_blocks(self.blocks, x, fold(key, "blocks"), outputs=outputs, weights=weights)
        return (self.norm(x) if self.config.pool_norm == "before" else x), captured

    def features(self, images: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """Return encoded tokens `(b, prefix + n, d)` of normalised images `(b, h, w, c)`."""
        return self.encode(self.embed(images, fold(key, "embed")), key)[0]

    def __call__(self, images: jax.Array, key: jax.Array | None = None, capture: tuple[str, ...] = ()) -> Any:
        """Return the model's output and, when asked for by name, intermediate values.

        Args:
          images: normalised images `(b, h, w, c)`.
          key: randomness of dropout, drop path and patch drop; None for evaluation.
          capture: names out of `CAPTURES`: `embedded` (b n d), `blocks` (l b n d), `attention` (l b h n n),
            `encoded` (b n d), `pooled` (b d), `pre_logits` (b r). `blocks/5` or `attention/-1` is one layer.

        Returns:
          Logits `(b, classes)` in float32; without a head, the pooled features `(b, d)` or, for pool
          `none`, tokens `(b, n, d)`. With `capture`, a tuple of that and a dict with the names as given.

        Raises:
          ConfigError: images of the wrong size, or an unknown name.
        """
        wanted = _parse_captures(capture, self.config.depth)
        kinds = {kind for kind, _ in wanted.values()}
        values = {"embedded": self.embed(images, fold(key, "embed"))}
        values["encoded"], captured = self.encode(
            values["embedded"], key, outputs="blocks" in kinds, weights="attention" in kinds
        )
        x = pool_tokens(values["encoded"], self.config, self.pool, fold(key, "pool"))
        values["pooled"] = x = self.norm(x) if self.config.pool_norm == "after" else x
        if self.pre_logits is not None:
            x = jnp.tanh(self.pre_logits(x))
        values["pre_logits"] = x
        # The head is small and its logits feed exponentials: float32 always.
        out = x if self.head is None else self.head(x.astype(jnp.float32))
        if not capture:
            return out
        values |= captured
        return out, {n: values[kind] if i is None else values[kind][i] for n, (kind, i) in wanted.items()}

    def reset_classifier(self, num_classes: int, pool: str | None = None, *, seed: int = 0) -> None:
        """Give the model a new head, starting at zero, and optionally another pooling, in place.

        Args:
          num_classes: size of the head; 0 removes it.
          pool: `cls`, `mean`, `map` or `none`; None keeps the present one.
          seed: seed of the parameters that a new attention pooling needs.

        Raises:
          ConfigError: a value is not allowed.
        """
        before = self.config
        self.config = replace(before, num_classes=num_classes, pool=before.pool if pool is None else pool)
        if self.config.pool != before.pool:
            rngs = nnx.Rngs(jax.random.key(seed))
            self.pool = AttentionPool(self.config, rngs=rngs) if self.config.pool == "map" else None
        self.head = _head(self.config)


def _tokens(config: ViTConfig, count: int, rngs: nnx.Rngs) -> jax.Array:
    if config.init == "jax":  # vision_transformer and big_vision start the class token at zero
        return jnp.zeros((count, config.width))
    return 0.02 * jax.random.normal(rngs.params(), (count, config.width), jnp.float32)


def _head(config: ViTConfig) -> Dense | None:
    if not config.num_classes:
        return None
    width = config.representation_size or config.width
    head = Dense((width,), (config.num_classes,), scheme="zeros", rngs=nnx.Rngs(jax.random.key(0)))
    head.bias = nnx.Param(jnp.full((config.num_classes,), config.head_bias_init, jnp.float32))
    return head


def _parse_captures(capture: tuple[str, ...], depth: int) -> dict[str, tuple[str, int | None]]:
    wanted = {}
    for name in capture:
        match = re.fullmatch(r"(\w+)(?:/(-?\d+))?", name)
        kind, layer = match.groups() if match else (name, None)
        if kind not in CAPTURES:
            raise ConfigError(
                f"{name!r} cannot be captured; names are {', '.join(CAPTURES)}.{nearest(kind, CAPTURES)}"
            )
        if layer is not None and kind not in ("blocks", "attention"):
            raise ConfigError(f"{name!r} has a layer, but only blocks and attention have layers.")
        if layer is not None and not -depth <= int(layer) < depth:
            raise ConfigError(f"{name!r} is not a layer of this model; it has {depth}, counted from 0.")
        wanted[name] = (kind, None if layer is None else int(layer))
    return wanted
