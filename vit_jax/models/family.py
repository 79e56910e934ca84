"""What a family of models says about itself; everything above `models` asks, and knows no family by name. Needs no jax.

A family is a folder whose `family.py` has one `Family`, and `models.families` is the table of them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vit_jax.errors import ConfigError

Config = Any  # the frozen dataclass of some family
LAYER_RULES = ("beit", "timm")  # by which libraries count layers, see `models.vit.layer_numbers`


@dataclass(frozen=True)
class Level:
    """A map of features that a model computes of an image.

    Attributes:
      name: under which the model's call captures it: tokens `(b, prefix + n, c)`, or a map `(b, h, w, c)`.
      stride: pixels, in height and in width, that one of its places covers.
      channels: `c`.
      grid: its rows and columns for images of the model's own size.
      prefix: tokens before those of the map.
      of: the level that this one is resampled from; None for what the model itself computes.
    """

    name: str
    stride: tuple[int, int]
    channels: int
    grid: tuple[int, int]
    prefix: int = 0
    of: "Level | None" = field(default=None, repr=False)


@dataclass(frozen=True)
class Explanation:
    """Which attention weights show what a model looks at.

    Attributes:
      capture: under which the model's call captures them: `(b, heads, prefix + n, prefix + n)`.
      level: what their columns are.
      query: the row that is shown; None for the mean over all rows.
    """

    capture: str
    level: Level
    query: int | None


@dataclass(frozen=True)
class Budget:
    """How a model takes images that keep their aspect ratio, see `models.patches`.

    Attributes:
      patches: of an image, at most.
      size: height and width of a patch, in pixels.
    """

    patches: int
    size: tuple[int, int]


@dataclass(frozen=True)
class Names:
    """The models of a family that have a name.

    Attributes:
      resolve: from a name to the canonical one and the configuration; None for a name of no model of the family.
      architectures: the canonical names to be listed.
      aliases: the papers' names.
      tags: of architectures, those of published weights.
      others: published weights that go by other names: repositories of the hub, Google's files.
    """

    resolve: Callable[[str], tuple[str, Config] | None]
    architectures: Callable[[], Sequence[str]] = tuple
    aliases: Callable[[], Sequence[str]] = tuple
    tags: Callable[[], Mapping[str, Sequence[str]]] = dict
    others: Callable[[], Sequence[str]] = tuple


@dataclass(frozen=True)
class Autoencoder:
    """How a masked autoencoder is made of an encoder.

    Its configuration has `encoder`; `units`, how many parts of an image are hidden or not; `patch_size` and `grid` of
    the pixels that are predicted. Its module takes `(images, noise (b, units), mask_ratio, key)` and returns patches
    `(b, n, p*q*c)`, row by row, and which of them were hidden, `(b, n)`.

    Attributes:
      encoder: from the configuration of any encoder of the family to that of one in a masked autoencoder.
      whole: `whole(encoder, width=, depth=, heads=, mlp_dim=)`, sizes of the decoder: the configuration of all.
    """

    encoder: Callable[[Config], Config]
    whole: Callable[..., Config]


@dataclass(frozen=True)
class Kernel:
    """What a kernel is made of, for low-rank factors, storage in few bits and optimizers that see matrices.

    Attributes:
      layers: names of the layers that it holds; several lie side by side on the axis after the inputs.
      inputs: how many of its axes, after that of stacked blocks, are summed over.
    """

    layers: tuple[str, ...]
    inputs: int = 1


# Of the layers that every family is built of, by path within a block; attention pooling stands behind the blocks.
KERNELS: Mapping[str, Kernel] = {
    "attn/qkv": Kernel(("attn/query", "attn/key", "attn/value")),
    "attn/out": Kernel(("attn/out",), inputs=2),
    "mlp/fc1": Kernel(("mlp/fc1",)),
    "mlp/fc2": Kernel(("mlp/fc2",)),
    "mlp/gate_up": Kernel(("mlp/gate", "mlp/up")),
    "mlp/down": Kernel(("mlp/down",)),
    "pool/q": Kernel(("pool/query",)),
    "pool/kv": Kernel(("pool/key", "pool/value")),
    "pool/out": Kernel(("pool/out",), inputs=2),
}


def _none(config: Config) -> tuple[Any, ...]:
    return ()


def _no_layer(config: Config, path: str, rule: str) -> int | range:
    raise ConfigError(
        f"{type(config).__name__.removesuffix('Config')} gives no layer number for parameter {path!r}, so "
        "learning rates and freezing cannot go by layer; set optimizer.layer_decay=1 and no frozen_blocks."
    )


@dataclass(frozen=True)
class Family:
    """A family of models.

    Attributes:
      name: tag of its configurations in JSON.
      config: the class of its configurations, a frozen dataclass that needs no jax. Of an image encoder it has
        `image_size`, `in_channels`, `num_classes`, `problem`, `preprocessing`, `dtype` and `input_shape`.
      module: `package.module:Class` of `Class(config, rngs=)`; imported when a model is made.
      macs: `macs(config, visible)`: multiply-adds of one example through the model. `visible` is the share of the
        patches that go through the blocks; None for what training leaves of them.
      parameters: number of parameters.
      parts: where the encoders of `image` and `text` are in configuration and parameters; empty for the model itself.
      names: of its models, if they have any.
      levels: the maps of features, the finest first.
      maps: all others that the model's call captures, such as those of single blocks, in the order of computation.
      detail: a map of single pixels that the model computes before its patches; None where there is none.
      depth: number of blocks over all stages.
      layer_of: `layer_of(config, path, rule)`: the layer of a parameter, 0 before the blocks, 1 to `depth` in them,
        `depth + 1` after them; of a stacked one a range, a layer for each block. What stands between two stages counts
        with the block before it. `rule` is one of `LAYER_RULES`: libraries count differently.
      widest: units of the widest hidden layer.
      per_image: whether the output is one row for an image.
      any_size: of which pixels, in height and in width, the sides of images are multiples that a program for several
        sizes takes; None for a model that takes its own size alone.
      budget: of a model that takes images that keep their aspect ratio, in how many patches; None for all others.
      headless: the configuration of the same encoder whose output is one row of features for an image.
      head: parameters at the top of the tree that `headless` does not have.
      captures: what the model's call can capture.
      two_heads: of a model whose output is the mean of two heads', what the call captures of the head that labels teach
        and of the one that a teacher teaches; None for all others.
      traced: of these, what is looked at in order where numbers are not finite; or a function of the configuration
        that returns it.
      explain: which attention shows what the model looks at; None for no attention.
      drawn: the field with what each step of training draws one of, see `models.draws`; empty for none.
      rules: (pattern, tactic) of parameters for which the general ones of `training.devices.sharding` do not do.
      kernels: by path within a block, kernels that are none of `KERNELS`.
      masked: `masked(config, outputs)`: the configuration of a model whose call takes `mask`, `(b, n)` bool, row by
        row, of patches that a learned token stands in for, and returns so many outputs for each place of its last map;
        None where there is no such token.
      patchwise: `patchwise(config)`: the configuration of an encoder without tokens but the patches, of whose module
        `embed` returns these, `(b, n, d)`, and `encode` takes any of them; it raises ConfigError for a model that is
        not so. None where no model is.
      autoencoder: `package.module:object` of its `Autoencoder`; empty where it has none.
      adaptation: `package.module:object` of what may change when weights are loaded, see `models.adaptation`; empty
        where nothing may.
      running: fields that say how a model is trained or run, and not what it computes.
      idle: fields that say nothing beside the others.
    """

    name: str
    config: type
    module: str
    macs: Callable[..., int]
    parameters: Callable[[Config], int]
    parts: Mapping[str, str] = field(default_factory=dict)
    names: Names | None = None
    levels: Callable[[Config], tuple[Level, ...]] = _none
    maps: Callable[[Config], Sequence[Level]] = _none
    detail: Callable[[Config], Level | None] = lambda config: None
    depth: Callable[[Config], int] = lambda config: 0
    layer_of: Callable[[Config, str, str], int | range] = _no_layer
    widest: Callable[[Config], int] = lambda config: 0
    per_image: Callable[[Config], bool] = lambda config: True
    any_size: Callable[[Config], tuple[int, int] | None] = lambda config: None
    budget: Callable[[Config], Budget | None] = lambda config: None
    headless: Callable[[Config], Config] = lambda config: config
    head: tuple[str, ...] = ("head",)
    captures: tuple[str, ...] = ()
    two_heads: Callable[[Config], tuple[str, str] | None] = lambda config: None
    traced: tuple[str, ...] | Callable[[Any], tuple[str, ...]] = ()
    explain: Callable[[Config], Explanation | None] = lambda config: None
    drawn: str = ""
    rules: tuple[tuple[str, str], ...] = ()
    kernels: Mapping[str, Kernel] = field(default_factory=dict)
    masked: Callable[[Config, int], Config] | None = None
    patchwise: Callable[[Config], Config] | None = None
    autoencoder: str = ""
    adaptation: str = ""
    running: frozenset[str] = frozenset({"dtype"})
    idle: Callable[[Config], frozenset[str]] = lambda config: frozenset()

    def names_traced(self, config: Config) -> tuple[str, ...]:
        """Return the names of `traced` for a configuration."""
        return self.traced(config) if callable(self.traced) else self.traced
