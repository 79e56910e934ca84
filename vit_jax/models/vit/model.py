"""The Vision Transformer (Dosovitskiy et al. 2020, arXiv 2010.11929) and its plain descendants."""

import math
import re
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax.errors import ConfigError, nearest
from vit_jax.models.layers.attention import ALONE, Surroundings
from vit_jax.models.layers.attentions.mixed import MixedAttention
from vit_jax.models.layers.batch_norm import BatchNorm
from vit_jax.models.layers.dense import Dense, value_of
from vit_jax.models.layers.dropout import dropout
from vit_jax.models.layers.encoder import apply_blocks, make_blocks
from vit_jax.models.layers.freezing import frozen_depth
from vit_jax.models.layers.norm import norm_of
from vit_jax.models.layers.pixels.checks import check_normalised
from vit_jax.models.layers.pixels.patches import pad_images
from vit_jax.models.layers.positions.relative import RelativePositions
from vit_jax.models.patches import Patches
from vit_jax.models.pyramid.backbone import Backbone
from vit_jax.models.vit.config import ViTConfig, check_sequences, replace
from vit_jax.models.vit.embedding import (
    STEMS,
    PatchEmbed,
    check_images,
    drop_patches,
    kept_patches,
    position_table,
    sequence_positions,
    with_prefix,
)
from vit_jax.models.vit.family import CAPTURES
from vit_jax.models.vit.flexi import at_drawn_size, resized_positions
from vit_jax.models.vit.merging import apply_merging_blocks
from vit_jax.models.vit.pooling import AttentionPool, pool_tokens
from vit_jax.models.vit.resnet import ResNet
from vit_jax.models.vit.rotary import places, rotation, sequence_rotation
from vit_jax.models.vit.tokens import merge_counts
from vit_jax.random import fold

DROPPED = "patches"  # the name of the key that says which patches are left out

# What only some models have, by what it computes.
PARTS = {
    "stem": "convolutions before the patches",
    "class_logits": "distillation head",
    "distillation_logits": "distillation head",
}


class VisionTransformer(Backbone):
    """A Vision Transformer: images `(b, h, w, c)` to logits `(b, classes)`.

    Args:
      config: sizes and options.
      rngs: source of the keys that initialise the parameters.
    """

    def __init__(self, config: ViTConfig, *, rngs: nnx.Rngs):
        self.config = config
        d = config.width
        channels = (config.in_channels, *config.stem)[-1]
        layer = STEMS[config.stem_kind]
        self.stem = nnx.List([layer(config, *sizes, rngs=rngs) for sizes in config.stem_layers])
        self.backbone = ResNet(config.backbone, channels, rngs=rngs) if config.backbone else None
        self.patch_embed = PatchEmbed(config, rngs=rngs)
        self.class_token = _token(config, config.class_token, rngs)
        self.distillation_token = _token(config, config.distillation_token, rngs)
        self.mask_token = _token(config, config.mask_token, rngs)
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
        relative = RelativePositions(config.grid, config.bias_resample)
        shared = config.position_bias == "shared"
        self.position_bias = nnx.Param(jnp.zeros((relative.rows, config.heads))) if shared else None
        self.norm_pre = norm_of(config, d) if config.pre_norm else None
        attention = MixedAttention if config.rope == "mixed" else None
        relative = relative if config.position_bias == "blocks" else None
        self.blocks = make_blocks(config, relative, attention=attention, rngs=rngs)
        self.norm = norm_of(config, d) if config.pool_norm != "none" else None
        # nnx.data: what can change between a module and None, see `reset_classifier`.
        self.pool = nnx.data(AttentionPool(config, rngs=rngs) if config.pool == "map" else None)
        size = config.representation_size
        self.pre_logits = Dense((d,), (size,), scheme=config.init, rngs=rngs) if size else None
        self.head_norm = nnx.data(_head_norm(config))
        self.head = nnx.data(_head(config))
        self.head_distillation = nnx.data(_head(config, distillation=True))

    def embed(
        self,
        images: jax.Array | Patches,
        key: jax.Array | None = None,
        mask: jax.Array | None = None,
        stem: list[jax.Array] | None = None,
    ) -> jax.Array:
        """Return the encoder's input `(b, tokens, d)`.

        Args:
          images: normalised images `(b, h, w, c)`, or `Patches` of images of any shapes.
          key: None for evaluation.
          mask: `(b, n)` bool, True where the mask token stands in for a patch; None for no patch.
          stem: what `stem_of` returned, where it is known already.

        Raises:
          ConfigError: the model does not take such images, or has no mask token.
        """
        config = at_drawn_size(self.config)
        if isinstance(images, Patches):
            check_normalised(images.values)
            self._check_sequences(images)
            x = self.patch_embed.project(images.values.astype(config.dtype))
            positions, slots = sequence_positions(config, value_of(self.pos_embed), images)
        else:
            *_, x = self.stem_of(images, key is not None) if stem is None else stem
            x = self.patch_embed(x if self.backbone is None else self.backbone(x), config.patch_size)
            learned = value_of(self.pos_embed)
            if learned is not None and config is not self.config:
                learned = resized_positions(self.config, learned, config.grid)
            positions, slots = position_table(config, learned, self.grid_of(images)), None
        if mask is not None:
            if self.mask_token is None:
                raise ConfigError("a mask was given to a model without mask_token; create it with one.")
            if mask.shape != x.shape[:2]:
                raise ConfigError(f"mask has shape {mask.shape}; the patches have {x.shape[:2]}.")
            hidden = jnp.broadcast_to(self.mask_token[...], x.shape).astype(x.dtype)
            x = jnp.where(mask[..., None], hidden, x)
        own = [token[...] for token in (self.class_token, self.distillation_token) if token is not None]
        registers = value_of(self.register_tokens)
        if config.register_position:
            own, registers = [*own, registers], None
        tokens = jnp.concatenate(own) if own else None
        if tokens is not None and slots is not None:
            tokens = tokens + slots
        x = with_prefix(x, positions, tokens, registers)
        if key is not None and config.patch_drop_rate:
            first, patches = x[:, : config.prefix_tokens], x[:, config.prefix_tokens :]
            kept = drop_patches(patches, config.patch_drop_rate, fold(key, DROPPED))
            x = jnp.concatenate([first, kept], axis=1)
        x = dropout(x, config.dropout_rate, fold(key, "embedding"))
        return x if self.norm_pre is None else self.norm_pre(x)

    def stem_of(self, images: jax.Array, training: bool = False) -> list[jax.Array]:
        """Return images `(b, h, w, c)` padded to patches, and what each convolution before these makes of them.

        With `training`, batch norms take the statistics of these images, and add them to their own.

        Raises:
          ConfigError: the model does not take such images.
        """
        config = at_drawn_size(self.config)
        check_images(config, images)
        maps = [pad_images(images.astype(config.dtype), config.token_stride)]
        for layer in self.stem:
            maps.append(layer(maps[-1], training))
        return maps

    def grid_of(self, images: jax.Array) -> tuple[int, int]:
        """Return rows and columns of patches of images `(b, h, w, c)`."""
        (_, height, width, _), (p, q) = images.shape, at_drawn_size(self.config).token_stride
        return -(-height // p), -(-width // q)

    def surroundings(self, images: jax.Array | Patches, key: jax.Array | None = None) -> Surroundings:
        """Return what attention knows of images beside their tokens: relative and rotary positions, padding.

        Args:
          images, key: as a call has them; of patches that training drops there are no positions.
        """
        config = self.config
        if isinstance(images, Patches):
            mask = self._seen(images)[:, None, None, :]
            turn = sequence_rotation(config, images)
            return Surroundings(rotation=turn, mask=mask, places=places(config, images))
        grid = self.grid_of(images)
        table = value_of(self.position_bias)
        relative = RelativePositions(config.grid, config.bias_resample)
        bias = None if table is None else relative.bias(table, grid)
        turn, spots = rotation(config, grid), places(config, grid)
        if key is not None and config.rope != "none" and config.patch_drop_rate:
            chosen = kept_patches(
                (len(images), math.prod(grid)), config.patch_drop_rate, fold(fold(key, "embed"), DROPPED)
            )
            turn = None if turn is None else turn._replace(sin=turn.sin[chosen], cos=turn.cos[chosen])
            spots = None if spots is None else spots[:, chosen]
        return Surroundings(grid, turn, bias, places=spots)

    def encode(
        self,
        x: jax.Array,
        key: jax.Array | None = None,
        around: Surroundings = ALONE,
        *,
        outputs: bool = False,
        weights: bool = False,
    ) -> tuple[jax.Array, dict[str, Any]]:
        """Return encoded tokens `(b, tokens, d)` and what `apply_blocks` was asked to capture.

        Of a model that merges tokens they are fewer than went in, and `merged` says what they were made of.
        """
        config, apply = self.config, apply_blocks
        if config.merge_tokens:
            counts, prefix = merge_counts(config, x.shape[1]), config.prefix_tokens
            how = dict(counts=counts, prefix=prefix, proportional=config.merge_proportional)
            apply = partial(apply_merging_blocks, **how)
        x, captured = apply(
            self.blocks,
            x,
            fold(key, "blocks"),
            around,
            outputs=outputs,
            weights=weights,
            frozen=frozen_depth(),
        )
        return (self.norm(x) if self.norm is not None and self.config.pool_norm == "before" else x), captured

    def __call__(
        self,
        images: jax.Array | Patches,
        key: jax.Array | None = None,
        capture: str | tuple[str, ...] = (),
        mask: jax.Array | None = None,
    ) -> Any:
        """Return the model's output and, when asked for by name, intermediate values.

        Args:
          images: normalised images `(b, h, w, c)`, or `Patches` of images of any shapes.
          key: randomness of dropout, drop path and patch drop; None for evaluation.
          capture: a name or several out of `CAPTURES`: `stem` (b h w c), `embedded` (b n d), `blocks` (l b n d),
            `attention` (l b h n n), `encoded` (b n d), `pooled` (b d), `pre_logits` (b r), and of distilled models both
            heads' logits. `blocks/5`, `attention/-1` or `stem/0` is one layer; `stem` alone is its last. Where tokens
            are merged, each patch has what the token has that it went into.
          mask: `(b, n)` bool, True where the mask token stands in for a patch.

        Returns:
          Logits `(b, classes)` in float32; without a head, the pooled features `(b, d)`. For pool `patches` and
          `none` there is such a row for every token. With `capture`, a tuple of that and a dict with the names as
          given.

        Raises:
          ConfigError: images the model does not take, or an unknown name.
        """
        capture = (capture,) if isinstance(capture, str) else capture
        depth = self.config.depth
        wanted = _parse_captures(capture, {"blocks": depth, "attention": depth, "stem": len(self.stem)})
        kinds = {kind for kind, _ in wanted.values()}
        # Once: of two that are equal the compiler would not find that their gradients are one.
        stem = None if isinstance(images, Patches) else self.stem_of(images, key is not None)
        values: dict[str, Any] = {"embedded": self.embed(images, fold(key, "embed"), mask, stem)}
        if stem is not None and self.stem:
            values["stem"] = stem[1:]
        values["encoded"], captured = self.encode(
            values["embedded"],
            key,
            self.surroundings(images, key),
            outputs="blocks" in kinds,
            weights="attention" in kinds,
        )
        valid = self._seen(images) if isinstance(images, Patches) else None
        merged = captured.pop("merged", None)
        x = pool_tokens(values["encoded"], self.config, self.pool, fold(key, "pool"), valid, merged)
        if merged is not None:
            values["encoded"] = merged.unmerged(values["encoded"])
        if self.norm is not None and self.config.pool_norm == "after":
            x = self.norm(x)
        values["pooled"] = x
        if self.pre_logits is not None:
            x = jnp.tanh(self.pre_logits(x))
        values["pre_logits"] = x
        # The head is small and its logits feed exponentials: float32 always.
        x = x if self.head is None else x.astype(jnp.float32)
        x = x if self.head_norm is None else self.head_norm(x, key is not None)
        out = x if self.head is None else self.head(x)
        if self.head is not None and self.head_distillation is not None:
            tokens = values["encoded"].astype(jnp.float32)
            values["class_logits"] = self.head(tokens[:, 0])
            values["distillation_logits"] = self.head_distillation(tokens[:, 1])
            out = (values["class_logits"] + values["distillation_logits"]) / 2
        if not capture:
            return out
        values |= captured
        for name, (kind, _) in wanted.items():
            if kind not in values:
                raise ConfigError(f"{name!r} cannot be captured: this model has no {PARTS[kind]}.")
        return out, {n: values[kind] if i is None else values[kind][i] for n, (kind, i) in wanted.items()}

    def _seen(self, images: Patches) -> jax.Array:
        """Return which tokens are not padding, `(b, prefix + n)` bool."""
        return jnp.pad(images.valid, ((0, 0), (self.config.prefix_tokens, 0)), constant_values=True)

    def _check_sequences(self, images: Patches) -> None:
        config = self.config
        check_sequences(config)
        size = math.prod(config.patch_size) * config.in_channels
        (b, _, *given), sizes = images.values.shape, images.sizes.shape
        if given != [size] or sizes != (b, 2):
            raise ConfigError(
                f"patches have shape {images.values.shape} and sizes {sizes}; the model takes (batch, patches, "
                f"{size}) "
                "and (batch, 2)."
            )

    def reset_classifier(self, num_classes: int, pool: str | None = None, *, seed: int = 0) -> None:
        """Give the model a new head, starting at zero, and optionally another pooling, in place.

        Args:
          num_classes: size of the head; 0 removes it.
          pool: see `ViTConfig`; None keeps the present one.
          seed: seed of the parameters that a new attention pooling needs.

        Raises:
          ConfigError: a value is not allowed.
        """
        before = self.config
        self.config = replace(before, num_classes=num_classes, pool=before.pool if pool is None else pool)
        if self.config.pool != before.pool:
            rngs = nnx.Rngs(jax.random.key(seed))
            self.pool = AttentionPool(self.config, rngs=rngs) if self.config.pool == "map" else None
        self.head_norm = _head_norm(self.config)
        self.head = _head(self.config)
        self.head_distillation = _head(self.config, distillation=True)


def _token(config: ViTConfig, present: bool, rngs: nnx.Rngs) -> nnx.Param | None:
    if not present:
        return None
    if config.init == "jax":  # vision_transformer and big_vision start the class token at zero
        return nnx.Param(jnp.zeros((1, config.width)))
    return nnx.Param(0.02 * jax.random.normal(rngs.params(), (1, config.width), jnp.float32))


def _head_norm(config: ViTConfig) -> BatchNorm | None:
    wanted = config.head_batch_norm and config.num_classes
    return BatchNorm(config.feature_width, 1e-6, affine=False) if wanted else None


def _head(config: ViTConfig, distillation: bool = False) -> Dense | None:
    classes = config.num_classes
    if not classes or (distillation and not (config.two_heads and config.pool == "cls")):
        return None
    rngs = nnx.Rngs(jax.random.key(0))
    head = Dense((config.feature_width,), (classes,), use_bias=config.head_bias, scheme="zeros", rngs=rngs)
    if config.head_bias:
        head.bias = nnx.Param(jnp.full((classes,), config.head_bias_init, jnp.float32))
    return head


def _parse_captures(capture: tuple[str, ...], depths: Mapping[str, int]) -> dict[str, tuple[str, int | None]]:
    """Return kind and layer of each name; `depths` are those of kinds that have layers."""
    wanted = {}
    for name in capture:
        match = re.fullmatch(r"(\w+)(?:/(-?\d+))?", name)
        kind, layer = match.groups() if match else (name, None)
        if kind not in CAPTURES:
            raise ConfigError(
                f"{name!r} cannot be captured; names are {', '.join(CAPTURES)}.{nearest(kind, CAPTURES)}"
            )
        if layer is not None and kind not in depths:
            raise ConfigError(f"{name!r} has a layer, but only {', '.join(depths)} have layers.")
        if layer is not None and not -depths[kind] <= int(layer) < depths[kind]:
            raise ConfigError(
                f"{name!r} is not a layer of this model; it has {depths[kind]}, counted from 0."
            )
        last = (
            -1 if kind == "stem" else None
        )  # whose maps are of different sizes, and the last is what is meant
        wanted[name] = (kind, last if layer is None else int(layer))
    return wanted
