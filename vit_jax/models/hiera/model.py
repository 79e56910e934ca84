"""Hiera (Ryali et al. 2023, arXiv 2306.00989): a hierarchical Vision Transformer of plain blocks."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax.errors import ConfigError
from vit_jax.models.hiera.blocks import HieraStage
from vit_jax.models.hiera.config import HieraConfig, stacks
from vit_jax.models.hiera.family import CAPTURES
from vit_jax.models.hiera.order import misread, raster, reroll, unroll
from vit_jax.models.layers.convolutional import convolve
from vit_jax.models.layers.dense import Dense, add_bias, initial_kernel, spread
from vit_jax.models.layers.encoder_config import replace
from vit_jax.models.layers.module import Module
from vit_jax.models.layers.norm import LayerNorm
from vit_jax.models.layers.pixels.checks import check_channels, check_size
from vit_jax.models.layers.pixels.sizes import check_divides
from vit_jax.models.layers.positions.resample import resample_grid
from vit_jax.models.pyramid.backbone import Backbone
from vit_jax.models.pyramid.captures import parse_captures
from vit_jax.random import fold

LEVEL_EPSILON = 1e-5  # of the norms of maps, whatever that of the blocks is: so has transformers


class PatchEmbed(Module):
    """Overlapping patches: a convolution with stride, padded by half of its kernel."""

    def __init__(self, config: HieraConfig, *, rngs: nnx.Rngs):
        self.config = config
        shape = (config.patch_kernel, config.patch_kernel, config.in_channels, config.width)
        fan_in = config.patch_kernel**2 * config.in_channels
        self.kernel = nnx.Param(initial_kernel(config.init, rngs.params(), shape, fan_in, config.width))
        self.bias = nnx.Param(jnp.zeros((config.width,)))

    def __call__(self, images: jax.Array) -> jax.Array:
        """Return a map `(b, h / stride, w / stride, d)` of images `(b, h, w, c)`."""
        stride, pad = self.config.patch_stride, self.config.patch_kernel // 2
        return add_bias(convolve(images, self.kernel[...].astype(images.dtype), stride, pad), self.bias[...])


class Hiera(Backbone):
    """A Hiera: images `(b, h, w, c)` to logits `(b, classes)`.

    Args:
      config: sizes and options.
      rngs: source of the keys that initialise the parameters.
    """

    def __init__(self, config: HieraConfig, *, rngs: nnx.Rngs):
        self.config = config

        def table(grid: tuple[int, int]) -> nnx.Param:
            shape = (grid[0] * grid[1], config.width)
            return nnx.Param(0.02 * jax.random.normal(rngs.params(), shape, jnp.float32))

        windowed = config.position == "window"
        self.patch_embed = PatchEmbed(config, rngs=rngs)
        self.pos_embed = table(config.position_grid if windowed else config.grid)
        self.pos_embed_window = table((config.mask_unit, config.mask_unit)) if windowed else None
        self.stages = nnx.List([HieraStage(stage, config.shortcut, rngs=rngs) for stage in config.stages])
        widths = (config.width, *(stage.blocks.width for stage in config.stages))
        self.level_norms = nnx.List([LayerNorm(widths[level], LEVEL_EPSILON) for level in config.level_norms])
        self.norm = LayerNorm(config.feature_width, config.norm_epsilon) if config.pool_norm else None
        self.head = nnx.data(_head(config))

    def embed(self, images: jax.Array, visible: jax.Array | None = None) -> jax.Array:
        """Return tokens with their positions as a map `(b, h, w, d)`.

        Args:
          images: normalised images `(b, height, width, channels)`.
          visible: `(b, h', w', 1)`, 1 for the mask units that are seen: of the others no pixel reaches a token, though
            patches overlap; None for all.

        Raises:
          ConfigError: the model does not take such images.
        """
        config = self.config
        check_channels(images, config.in_channels)
        check_size(config, images)
        check_divides((images.shape[1], images.shape[2]), config.stride, "stride")
        x = images.astype(config.dtype)
        if visible is not None:
            side = config.patch_stride * config.mask_unit
            x = x * jnp.repeat(jnp.repeat(visible, side, axis=1), side, axis=2).astype(x.dtype)
        x = self.patch_embed(x)
        x = x + spread(self.positions((x.shape[1], x.shape[2])), x)
        return x if config.reordered else misread(x, config.unrolled)

    def positions(self, grid: tuple[int, int]) -> jax.Array:
        """Return the positions of a grid, `(h, w, d)` float32; other than the model's own they are resampled."""
        config = self.config
        windowed = self.pos_embed_window is not None
        own = config.position_grid if windowed else config.grid
        coarse = self.pos_embed[...].reshape(*own, config.width)
        table = resample_grid(coarse, grid, config.resample, config.resample_antialias)
        if self.pos_embed_window is None:
            return table
        side = config.mask_unit
        unit = self.pos_embed_window[...].reshape(side, side, config.width)
        return table + jnp.tile(unit, (grid[0] // side, grid[1] // side, 1))

    def encode(
        self, x: jax.Array, key: jax.Array | None = None, *, outputs: bool = False, weights: bool = False
    ) -> tuple[list[jax.Array], list[dict[str, jax.Array]]]:
        """Return the tokens after each stage, in the order of quarters, and what was asked for of each stack.

        Args:
          x: embedded tokens `(b, n, d)` in the order of quarters: whole mask units, not necessarily all.
          key: None for evaluation.
          outputs, weights: see `apply_blocks`.
        """
        rates = jnp.linspace(0.0, self.config.drop_path_rate, sum(self.config.depths), dtype=jnp.float32)
        ends, captured = [], []
        for number, (stage, module) in enumerate(zip(self.config.stages, self.stages)):
            own = rates[stage.start : stage.start + stage.blocks.depth]
            x, found = module(x, own, fold(key, number), outputs=outputs, weights=weights)
            ends.append(x)
            captured += found
        return ends, captured

    def __call__(
        self, images: jax.Array, key: jax.Array | None = None, capture: str | tuple[str, ...] = ()
    ) -> Any:
        """Return the model's output and, when asked for by name, intermediate values.

        Args:
          images: normalised images `(b, h, w, c)`.
          key: randomness of drop path; None for evaluation.
          capture: a name or several out of `CAPTURES`. Maps, row by row: `embedded`, `stages/2` (after a stage),
            `blocks/5` (after a block, counted over all stages), `encoded` (after the last), all `(b, h, w, d)`;
            `attention/-1` `(b, h, n, n)`, of a block that attends over all tokens; `pooled` and `pre_logits` `(b, d)`.

        Returns:
          Logits `(b, classes)` in float32; without a head, the pooled features `(b, d)`. With `capture`, a tuple of
          that and a dict with the names as given.

        Raises:
          ConfigError: images the model does not take, or an unknown name.
        """
        places = block_places(self.config)
        wanted = _parse(self.config, capture, places)
        kinds = {kind for kind, _ in wanted.values()}
        embedded = self.embed(images)
        grid = (embedded.shape[1], embedded.shape[2])
        ends, stacks = self.encode(
            unroll(embedded, self.config.unrolled),
            key,
            outputs="blocks" in kinds,
            weights="attention" in kinds,
        )
        x = ends[-1].astype(jnp.float32).mean(axis=1)
        values = {"pooled": x, "pre_logits": x if self.norm is None else self.norm(x)}
        out = values["pre_logits"] if self.head is None else self.head(values["pre_logits"])
        if not capture:
            return out

        def value(kind: str, number: int) -> jax.Array:
            if kind in values:
                return values[kind]
            if kind == "embedded":
                return self._level(0, embedded)
            if kind in ("stages", "encoded"):
                number = number if kind == "stages" else len(ends) - 1
                return self._level(number + 1, self._map(ends[number], number, grid))
            place = places[number]
            captured = stacks[place.stack][kind][place.row]
            if kind == "blocks":
                return self._map(captured, place.stage, grid)
            queries, keys = (raster(*self._order(stage, grid)) for stage in (place.stage, place.sees))
            return captured[:, :, queries][..., keys]

        return out, {name: value(*which) for name, which in wanted.items()}

    def _level(self, level: int, x: jax.Array) -> jax.Array:
        """Return a map, normalised if the model has a norm for it."""
        own = self.config.level_norms
        return self.level_norms[own.index(level)](x) if level in own else x

    def _order(self, stage: int, grid: tuple[int, int]) -> tuple[int, tuple[int, int]]:
        """Return how deep the order of quarters is after a stage, and the grid there; of images of any size."""
        pools = self.config.stages[stage].pools
        return self.config.unrolled - pools, (grid[0] // 2**pools, grid[1] // 2**pools)

    def _map(self, x: jax.Array, stage: int, grid: tuple[int, int]) -> jax.Array:
        """Return tokens `(b, n, d)` of a stage as a map."""
        return reroll(x, *self._order(stage, grid))

    def reset_classifier(self, num_classes: int) -> None:
        """Give the model a new head, starting at zero, in place; 0 classes remove it."""
        self.config = replace(self.config, num_classes=num_classes)
        self.head = _head(self.config)


class Place(NamedTuple):
    """Where a block is.

    Attributes:
      stage: its number.
      stack: number of the stack that holds it, and `row` its number in there.
      sees: the stage in whose order attention sees the tokens.
      windowed: whether attention stays within mask units.
    """

    stage: int
    stack: int
    row: int
    sees: int
    windowed: bool


def block_places(config: HieraConfig) -> list[Place]:
    """Return where each block is, over all stages."""
    found = []
    for number, stack in enumerate(stacks(config)):
        stage = config.stages[stack.stage]
        windowed = stage.entry_windowed if stack.entry else stage.windowed
        sees = stack.stage - stack.entry
        found += [Place(stack.stage, number, row, sees, windowed) for row in range(stack.depth)]
    return found


def _parse(
    config: HieraConfig, capture: str | tuple[str, ...], places: list[Place]
) -> dict[str, tuple[str, int]]:
    """Return kind and number of each name, 0 of a kind that has none."""
    counts = {"stages": len(config.depths), "blocks": len(places), "attention": len(places)}
    wanted = parse_captures(capture, CAPTURES, counts)
    for name, (kind, number) in wanted.items():
        if kind == "attention" and places[number or 0].windowed:
            raise ConfigError(
                f"{name!r} cannot be captured: that block attends within mask units; the first that attends over all "
                f"tokens is {next((i for i, place in enumerate(places) if not place.windowed), 'none')}."
            )
    return {name: (kind, number or 0) for name, (kind, number) in wanted.items()}


def _head(config: HieraConfig) -> Dense | None:
    if not config.num_classes:
        return None
    rngs = nnx.Rngs(jax.random.key(0))
    return Dense((config.feature_width,), (config.num_classes,), scheme="zeros", rngs=rngs)
