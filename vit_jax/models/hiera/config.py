"""What a Hiera is made of: configuration and sizes. Needs no jax.

Source: Ryali et al. 2023 (arXiv 2306.00989) Table 2 for T to H.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

from vit_jax.errors import ConfigError, choose
from vit_jax.models.layers.encoder_config import (
    EncoderConfig,
    check_at_least,
    check_rates,
    check_types,
)
from vit_jax.models.layers.pixels.sizes import check_divides, pair
from vit_jax.models.preprocessing import IMAGENET, Preprocessing, as_preprocessing
from vit_jax.models.problem import PROBLEMS

CHOICES = {
    "problem": PROBLEMS,
    "position": ("learned", "window"),
    "shortcut": ("project", "pool"),
    "resample": ("bilinear", "bicubic"),
}


class Stage(NamedTuple):
    """Blocks at one resolution.

    Attributes:
      blocks: their sizes and options; `depth` is their number.
      inputs: width of what comes in.
      pools: how many times the four tokens of a square have become one before this stage and at its beginning.
      pooling: whether its first block does that.
      unit: tokens of a mask unit in this stage.
      entry_windowed: whether attention of its first block stays within mask units; as in the stage before, since it
        happens before pooling.
      windowed: whether that of the other blocks does.
      start: blocks before this stage.
    """

    blocks: EncoderConfig
    inputs: int
    pools: int
    pooling: bool
    unit: int
    entry_windowed: bool
    windowed: bool
    start: int

    @property
    def enters(self) -> bool:
        """Whether the first block changes the width."""
        return self.inputs != self.blocks.width

    @property
    def rest(self) -> int:
        """Number of blocks that do not."""
        return self.blocks.depth - self.enters


@dataclass(frozen=True)
class HieraConfig:
    """Everything that defines a Hiera (Ryali et al. 2023, arXiv 2306.00989); width and heads double with each stage.

    Attributes:
      image_size: height and width in pixels; multiples of `stride`.
      in_channels: channels of the input images.
      num_classes: size of the head; 0 for none.
      problem: what the outputs mean, see `ViTConfig`.
      patch_kernel: side of the convolution that makes tokens, in pixels; odd, and padded by half of it.
      patch_stride: pixels from one token to the next.
      width, heads: of the first stage, `d` and number of attention heads.
      depths: blocks of each stage.
      mlp_ratio: hidden units of the MLPs per unit of width.
      pooled_stages: how many of the stages after the first pool four tokens to one.
      mask_unit: side of a mask unit in tokens, a power of two; as large as what all stages together could pool to one.
      windowed_stages: in how many of the first stages attention stays within mask units.
      shortcut: what goes round attention where the width changes: what a dense layer makes of the normalised tokens,
        `project`; or the largest and the mean of four tokens side by side, `pool` (timm).
      position: `learned`, one for each token; or `window`, one for each token of a mask unit beside a coarse grid for
        the whole image (Bolya et al. 2023, arXiv 2311.05613; SAM 2, Ravi et al. 2024, arXiv 2408.00714).
      position_grid: rows and columns of that coarse grid.
      resample, resample_antialias: how learned positions go to another grid, and coarse ones to that of the tokens; see
        `models.layers.positions.resample`.
      dynamic_image_size: accept other image sizes at call time by resampling positions.
      reordered: whether tokens are brought into the order in which mask units are neighbours. False takes them row by
        row as if they had been, so that units are scattered over the image: transformers' `HieraBackbone` does so.
      pool_norm: whether there is a norm after the mean over all tokens.
      level_norms: which maps are normalised where they are captured: 0 for the embedded tokens, then the stages from 1.
      layer_scale: initial value of the per-channel residual scale, or None for no scale.
      activation, norm_epsilon, init, dtype, attention, remat, unroll: see `EncoderConfig`.
      drop_path_rate: stochastic depth of the last block, linear from 0 over all stages (Huang et al. 2016).
      preprocessing: how images become inputs; travels with the weights.
    """

    image_size: tuple[int, int] = (224, 224)
    in_channels: int = 3
    num_classes: int = 1000
    problem: str = "single_label"
    patch_kernel: int = 7
    patch_stride: int = 4
    width: int = 96
    heads: int = 1
    depths: tuple[int, ...] = (2, 3, 16, 3)
    mlp_ratio: float = 4.0
    pooled_stages: int = 3
    mask_unit: int = 8
    windowed_stages: int = 2
    shortcut: str = "project"
    position: str = "learned"
    position_grid: tuple[int, int] = (14, 14)
    resample: str = "bicubic"
    resample_antialias: bool = False
    dynamic_image_size: bool = False
    reordered: bool = True
    pool_norm: bool = True
    level_norms: tuple[int, ...] = ()
    layer_scale: float | None = None
    activation: str = "gelu"
    norm_epsilon: float = 1e-6
    drop_path_rate: float = 0.0
    init: str = "trunc_normal"
    dtype: str = "float32"
    attention: str = "auto"
    remat: str = "none"
    unroll: int = 0
    preprocessing: Preprocessing = IMAGENET

    def __post_init__(self) -> None:
        for field in ("image_size", "position_grid"):
            object.__setattr__(self, field, pair(getattr(self, field), field))
        object.__setattr__(self, "preprocessing", as_preprocessing(self.preprocessing))
        check_types(self)
        for field in ("depths", "level_norms"):
            object.__setattr__(self, field, tuple(getattr(self, field)))
        for field, allowed in CHOICES.items():
            choose(getattr(self, field), allowed, field)
        if self.num_classes == 1 and self.problem == "single_label":
            object.__setattr__(self, "problem", "multi_label")
        check_at_least(
            self, 1, "in_channels", "patch_kernel", "patch_stride", "width", "heads", "depths", "mask_unit"
        )
        check_at_least(self, 0, "num_classes", "pooled_stages", "windowed_stages", "level_norms")
        check_rates(self, "drop_path_rate")
        self._check_stages()
        check_divides(self.image_size, self.stride, "stride")
        self._blocks(self.width, self.depths[0], self.heads)  # which checks what blocks have

    def _check_stages(self) -> None:
        count = len(self.depths)
        if not 0 < count < 10:
            raise ConfigError(f"depths is {self.depths}; it must say the blocks of 1 to 9 stages.")
        for field, most in (("pooled_stages", count - 1), ("windowed_stages", count)):
            if getattr(self, field) > most:
                raise ConfigError(
                    f"{field} is {getattr(self, field)}, but there are {count} stages; give 0 to {most}."
                )
        if max(self.level_norms, default=0) > count:
            raise ConfigError(f"level_norms is {self.level_norms}; it must name maps from 0 to {count}.")
        if self.mask_unit not in (allowed := [2**power for power in range(count)]):
            raise ConfigError(
                f"mask_unit is {self.mask_unit}; with {count} stages it must be one of {', '.join(map(str, allowed))}."
            )
        pools = min(self.windowed_stages, self.pooled_stages)
        if self.mask_unit < 2**pools:
            raise ConfigError(
                f"mask_unit is {self.mask_unit}, but with windowed_stages {self.windowed_stages} squares of {2**pools} "
                "tokens are pooled to one within it; choose a larger unit or fewer such stages."
            )
        if self.patch_kernel % 2 == 0 or self.patch_kernel < self.patch_stride:
            raise ConfigError(
                f"patch_kernel is {self.patch_kernel}; it must be odd and at least patch_stride {self.patch_stride}."
            )
        if not self.mlp_ratio > 0:
            raise ConfigError(f"mlp_ratio is {self.mlp_ratio}; it must be above 0.")

    @property
    def unrolled(self) -> int:
        """How many times tokens are gathered by fours so that any stage may pool them: once less than stages."""
        return len(self.depths) - 1

    @property
    def stride(self) -> tuple[int, int]:
        """Pixels, in height and in width, of which the sides of images are multiples."""
        side = self.patch_stride * 2**self.unrolled
        return side, side

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of embedded tokens."""
        return self.image_size[0] // self.patch_stride, self.image_size[1] // self.patch_stride

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages, first to last."""
        found: list[Stage] = []
        for number, depth in enumerate(self.depths):
            before = found[-1] if found else None
            pooling = 0 < number <= self.pooled_stages
            pools = min(number, self.pooled_stages)
            found.append(
                Stage(
                    self._blocks(self.width * 2**number, depth, self.heads * 2**number),
                    self.width if before is None else before.blocks.width,
                    pools,
                    pooling,
                    (max(1, self.mask_unit >> pools)) ** 2,
                    max(number - 1, 0) < self.windowed_stages,
                    number < self.windowed_stages,
                    sum(self.depths[:number]),
                )
            )
        return tuple(found)

    def _blocks(self, width: int, depth: int, heads: int) -> EncoderConfig:
        shared = (
            "layer_scale", "activation", "norm_epsilon", "drop_path_rate", "init", "dtype", "attention", "remat",
            "unroll",
        )  # fmt: skip
        options: dict[str, Any] = {name: getattr(self, name) for name in shared}
        return EncoderConfig(width, depth, heads, int(width * self.mlp_ratio), **options)

    @property
    def output_width(self) -> int:
        """Width of the output: classes, or features where there is no head."""
        return self.num_classes or self.feature_width

    @property
    def feature_width(self) -> int:
        """Width of what goes into the head."""
        return self.stages[-1].blocks.width

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of an image: height, width, channels."""
        return *self.image_size, self.in_channels


class Stack(NamedTuple):
    """Blocks that are stored together.

    Attributes:
      path: of their parameters.
      stage: number of their stage.
      entry: whether this is the block that changes the width.
      first: number of the first of them in the stage.
      depth: how many they are.
    """

    path: str
    stage: int
    entry: bool
    first: int
    depth: int


def stacks(config: HieraConfig) -> list[Stack]:
    """Return the stacks of blocks of a model, in order."""
    found = []
    for number, stage in enumerate(config.stages):
        if stage.enters:
            found.append(Stack(f"stages/{number}/entry/blocks", number, True, 0, 1))
        if stage.rest:
            found.append(Stack(f"stages/{number}/blocks", number, False, int(stage.enters), stage.rest))
    return found


SIZES: dict[str, dict[str, Any]] = {
    "tiny": dict(width=96, heads=1, depths=(1, 2, 7, 2)),
    "small": dict(width=96, heads=1, depths=(1, 2, 11, 2)),
    "base": dict(width=96, heads=1, depths=(2, 3, 16, 3)),
    "base_plus": dict(width=112, heads=2, depths=(2, 3, 16, 3)),
    "large": dict(width=144, heads=2, depths=(2, 6, 36, 4)),
    "huge": dict(width=256, heads=4, depths=(2, 6, 36, 4)),
}
