"""What a Swin Transformer is made of: configuration, sizes and how windows fit maps. Needs no jax.

Sources: Liu et al. 2021 (arXiv 2103.14030) Table 7 and section 3.3; version 2: Liu et al. 2021 (arXiv 2111.09883)
section 4.1; Chen et al. 2021 (arXiv 2111.14725) for the searched models, `s3`.
"""

from dataclasses import dataclass
from typing import Any

from vit_jax.errors import ConfigError, choose
from vit_jax.models.layers.encoder_config import CHOICES as BLOCK_CHOICES
from vit_jax.models.layers.encoder_config import (
    EncoderConfig,
    check_at_least,
    check_rates,
    check_types,
    replace,
)
from vit_jax.models.layers.pixels.sizes import check_divides, pair
from vit_jax.models.preprocessing import IMAGENET, Preprocessing, as_preprocessing
from vit_jax.models.problem import PROBLEMS
from vit_jax.models.swin.fitting import FITS, Fit

CHOICES = {
    "problem": PROBLEMS,
    "position_bias": ("table", "log"),
    "window_fit": FITS,
    "bias_resample": ("bicubic", "geometric"),
    "pool": ("mean", "patches"),
    **{
        name: BLOCK_CHOICES[name]
        for name in ("branch_norm", "activation", "drop_path_schedule", "init", "dtype", "attention", "remat")
    },
}
BIAS_UNITS = 512  # hidden units of the MLP that makes the bias of version 2
# Fields of the blocks that are the same in every stage.
_SHARED = (
    "qkv_bias", "k_bias", "branch_norm", "activation", "norm_epsilon", "dropout_rate", "attention_dropout_rate",
    "drop_path_rate", "drop_path_schedule", "init", "dtype", "attention", "remat", "unroll",
)  # fmt: skip


@dataclass(frozen=True)
class SwinConfig:
    """Everything that defines a Swin Transformer; stages follow each other, each of half the resolution before.

    Attributes:
      image_size: height and width in pixels of the images that windows were fitted to; others are taken too.
      patch_size: height and width of a patch in pixels; divides `image_size`.
      in_channels: channels of the input images.
      num_classes: size of the head; 0 for none.
      problem: what the outputs mean, see `ViTConfig`.
      width: `d` of the first stage; each later one has twice that of the one before.
      depths: number of blocks of each stage; every second one is shifted.
      heads: attention heads of each stage.
      mlp_ratio: hidden units of the MLPs, in widths.
      window_size: side of a window in patches, a number for all stages or one for each.
      window_fit: what windows do on a map that they do not divide: `clamp`, `clamp_once`, `pad` or `pad_together`; see
        `models.swin.fitting`.
      position_bias: of attention by relative position: a learned `table`, or an MLP of offsets on a `log` scale
        (version 2).
      pretrained_windows: side of the windows that the log scale was trained with, for each stage; 0 for the present
        ones.
      cosine: attention by cosine similarity with a learned temperature (version 2).
      branch_norm: norms stand `before` attention, MLP and merging of patches, or `after` each (version 2).
      mask_bias: what is added to scores between places that the shift brought together.
      qkv_bias: whether queries, keys and values have biases.
      k_bias: False leaves out the keys' bias alone (version 2).
      mask_token: a learned token that stands in for hidden patches (SimMIM, Xie et al. 2021, arXiv 2111.09886).
      pool: `mean` over the last map, or `patches`: an output for each place of it.
      bias_resample: how tables go to other windows when weights are loaded: `bicubic` (the authors) or `geometric`
        (timm).
      activation, norm_epsilon: see `EncoderConfig`; so are the fields below.
      preprocessing: how images become inputs; travels with the weights.
    """

    image_size: tuple[int, int] = (224, 224)
    patch_size: tuple[int, int] = (4, 4)
    in_channels: int = 3
    num_classes: int = 1000
    problem: str = "single_label"
    width: int = 96
    depths: tuple[int, ...] = (2, 2, 6, 2)
    heads: tuple[int, ...] = (3, 6, 12, 24)
    mlp_ratio: float = 4.0
    window_size: tuple[int, ...] = (7,)
    window_fit: str = "clamp"
    position_bias: str = "table"
    pretrained_windows: tuple[int, ...] = ()
    cosine: bool = False
    branch_norm: str = "before"
    mask_bias: float = -100.0
    qkv_bias: bool = True
    k_bias: bool = True
    mask_token: bool = False
    pool: str = "mean"
    bias_resample: str = "geometric"
    activation: str = "gelu"
    norm_epsilon: float = 1e-5
    dropout_rate: float = 0.0
    attention_dropout_rate: float = 0.0
    drop_path_rate: float = 0.0
    drop_path_schedule: str = "linear"
    init: str = "trunc_normal"
    dtype: str = "float32"
    attention: str = "auto"
    remat: str = "none"
    unroll: int = 0
    preprocessing: Preprocessing = IMAGENET

    def __post_init__(self) -> None:
        for name in ("image_size", "patch_size"):
            object.__setattr__(self, name, pair(getattr(self, name), name))
        if isinstance(self.window_size, int):
            object.__setattr__(self, "window_size", (self.window_size,))
        check_types(self)
        for name in ("window_size", "depths", "heads", "pretrained_windows"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "preprocessing", as_preprocessing(self.preprocessing))
        for field, allowed in CHOICES.items():
            choose(getattr(self, field), allowed, field)
        check_at_least(self, 1, "in_channels", "width", "depths", "heads", "window_size")
        check_at_least(self, 0, "num_classes", "unroll", "pretrained_windows")
        check_rates(self, "dropout_rate", "attention_dropout_rate", "drop_path_rate")
        if not (self.norm_epsilon > 0 and self.mlp_ratio > 0):
            raise ConfigError(
                f"norm_epsilon is {self.norm_epsilon} and mlp_ratio {self.mlp_ratio}; both must be above 0."
            )
        if self.num_classes == 1 and self.problem == "single_label":
            object.__setattr__(self, "problem", "multi_label")
        stages = len(self.depths)
        if not stages or len(self.heads) != stages:
            raise ConfigError(
                f"heads is {self.heads} and depths {self.depths}; each needs a number for every stage."
            )
        if not any(self.pretrained_windows):
            object.__setattr__(self, "pretrained_windows", ())
        elif len(self.pretrained_windows) != stages or self.position_bias != "log":
            raise ConfigError(
                f"pretrained_windows is {self.pretrained_windows}; it must be a number for each of {stages} stages, of "
                "a model with position_bias 'log'."
            )
        if len(self.window_size) not in (1, stages):
            raise ConfigError(
                f"window_size is {self.window_size}; it must be one number of patches, or {stages}, one a stage."
            )
        if len({*self.window_size}) == 1:
            object.__setattr__(self, "window_size", self.window_size[:1])
        for stage, heads in enumerate(self.heads):
            if self.stage_width(stage) % heads:
                raise ConfigError(
                    f"heads is {self.heads}, but {heads} do not divide width {self.stage_width(stage)} of stage "
                    f"{stage + 1}; choose others."
                )
        check_divides(self.image_size, self.patch_size)
        for stage in range(stages):
            self.fit(stage)  # raises for images that are too small

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        (height, width), (p, q) = self.image_size, self.patch_size
        return height // p, width // q

    @property
    def num_patches(self) -> int:
        """Number of patches."""
        return self.grid[0] * self.grid[1]

    @property
    def depth(self) -> int:
        """Number of blocks over all stages."""
        return sum(self.depths)

    @property
    def feature_width(self) -> int:
        """Width of what goes into the head."""
        return self.stage_width(len(self.depths) - 1)

    @property
    def output_width(self) -> int:
        """Width of the output: classes, or features where there is no head."""
        return self.num_classes or self.feature_width

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of an image: height, width, channels."""
        return *self.image_size, self.in_channels

    def stage_width(self, stage: int) -> int:
        """Return `d` of a stage, counted from 0."""
        return self.width * 2**stage

    def stage_stride(self, stage: int) -> tuple[int, int]:
        """Return the pixels, in height and in width, that one place of a stage's maps covers."""
        return self.patch_size[0] * 2**stage, self.patch_size[1] * 2**stage

    def map_size(self, stage: int, grid: tuple[int, int] | None = None) -> tuple[int, int]:
        """Return rows and columns of a stage's maps, for a grid of patches or its own; halves are rounded up."""
        rows, columns = grid or self.grid
        return -(-rows // 2**stage), -(-columns // 2**stage)

    def fit(self, stage: int, grid: tuple[int, int] | None = None) -> Fit:
        """Return how a stage's windows lie on the maps of a grid of patches, or of the model's own.

        Raises:
          ConfigError: the images are too small.
        """
        side = self.window_size[stage % len(self.window_size)]  # one for all stages, or one for each
        return Fit.of(self.window_fit, (side, side), self.grid, grid or self.grid, stage)

    def blocks(self, stage: int) -> EncoderConfig:
        """Return the configuration of a stage's blocks."""
        width = self.stage_width(stage)
        return EncoderConfig(
            width=width,
            depth=self.depths[stage],
            heads=self.heads[stage],
            mlp_dim=int(width * self.mlp_ratio),
            **{name: getattr(self, name) for name in _SHARED},
        )


# d, depths and heads of the first version's sizes; the second has the same.
SIZES: dict[str, dict[str, Any]] = {
    name: dict(width=width, depths=(2, 2, depth, 2), heads=tuple(heads * 2**stage for stage in range(4)))
    for name, width, depth, heads in (
        ("tiny", 96, 6, 3),
        ("small", 96, 18, 3),
        ("base", 128, 18, 4),
        ("large", 192, 18, 6),
    )
}
VERSION_2: dict[str, Any] = dict(position_bias="log", cosine=True, branch_norm="after", k_bias=False)

__all__ = ["CHOICES", "SIZES", "VERSION_2", "SwinConfig", "replace"]
