"""What a plain Vision Transformer is made of: configuration, sizes and names. Needs no jax.

Sources: Dosovitskiy et al. 2020 (arXiv 2010.11929) Table 1 for B, L, H; Touvron et al. 2020 (arXiv
2012.12877) Table 1 for Ti, S; Zhai et al. 2021 (arXiv 2106.04560) Table 2 for g, G; Touvron et al. 2022
(arXiv 2204.07118) for M; Alabdulmohsin et al. 2023 (arXiv 2305.13035) for So400m; Chen et al. 2022
(arXiv 2209.06794) for e; mu is big_vision's size for tests.
"""

import math
from dataclasses import dataclass

from vit_jax.errors import ConfigError, choose
from vit_jax.models.layers.encoder_config import (
    RESAMPLE,
    EncoderConfig,
    check_at_least,
    check_rates,
    replace,
)
from vit_jax.models.layers.pixels.sizes import check_divides, pair
from vit_jax.models.preprocessing import INCEPTION, Preprocessing, as_preprocessing
from vit_jax.models.problem import PROBLEMS
from vit_jax.models.vit.resnet_config import ResNetConfig, backbone
from vit_jax.models.vit.tokens import check_merging, check_patch_sizes, several

__all__ = ["CHOICES", "SIZES", "ViTConfig", "check_divides", "pair", "replace"]

CHOICES = {
    "problem": PROBLEMS,
    "stem_kind": ("early", "mci"),
    "position": ("learned", "sincos2d_mae", "sincos2d_big_vision", "none"),
    "position_bias": ("none", "blocks", "shared"),
    "rope": ("none", "eva", "dinov3", "mixed"),
    "rope_first": ("rows", "columns"),
    "pool": ("cls", "mean", "cls_mean", "map", "patches", "none"),
    "pool_norm": ("before", "after", "none"),
    "bias_resample": ("geometric", "bilinear"),
    "resample": RESAMPLE,
    "merge_schedule": ("constant", "decreasing"),
}


@dataclass(frozen=True)
class ViTConfig(EncoderConfig):
    """Everything that defines a Vision Transformer; the blocks' fields are those of `EncoderConfig`.

    Attributes:
      image_size: height and width in pixels.
      patch_size: height and width of a patch in pixels; divides `image_size`. Behind a backbone or a stem with strides,
        a patch is of its output.
      patch_sizes: of square patches in pixels, of which each step of training draws one; kernel and positions are
        resized from those of `patch_size` (FlexiViT, Beyer et al. 2022, arXiv 2212.08013). Empty for that size alone.
      in_channels: channels of the input images.
      num_classes: size of the head; 0 for none.
      problem: what the outputs mean: classes of which one is right, `single_label` (softmax); each on its own,
        `multi_label` (sigmoid); or values as they are, `regression`. One class alone is `multi_label`, as transformers'
        pipeline has it, unless it is said to be a regression: a softmax of one output is always 1.
      stem: channels of convolutions before the patches (Xiao et al. 2021, arXiv 2106.14881).
      stem_strides: of each of them, from one window to the next; empty for 1. A patch is of their output.
      stem_kind: what they are: `early`, 3x3, each with a layer norm; or `mci`, as wide as their strides, without biases
        and each with a batch norm (MobileCLIP, Vasu et al. 2023, arXiv 2311.17049).
      backbone: a ResNet before the patches (hybrids), or None.
      class_token: put a learned class token first.
      distillation_token: a second such token (Touvron et al. 2020, arXiv 2012.12877).
      distillation_head: it has a head of its own, and the output is the mean of both heads'; without, only the class
        token is read (transformers' `DeiTForImageClassification`).
      register_tokens: learned tokens after these (Darcet et al. 2023, arXiv 2309.16588).
      mask_token: a learned token that stands in for hidden patches (SimMIM, BEiT, DINOv2).
      position: `learned`, `sincos2d_mae` (MAE and DiT), `sincos2d_big_vision` (other
        frequencies), or `none`.
      class_position: learned positions have slots of their own for the class and distillation tokens.
      register_position: they have slots for the register tokens too.
      position_bias: learned biases of attention by relative position, `none`, in all `blocks` or one `shared` by them
        (BEiT, Bao et al. 2021, arXiv 2106.08254).
      rope: rotary positions of patches in attention: `none`, `eva` (EVA-02, Fang et al. 2023, arXiv 2303.11331),
        `dinov3` (Simeoni et al. 2025, arXiv 2508.10104) or `mixed` (learned by each block, Heo et al. 2024, arXiv
        2403.13298).
      rope_theta: base of the rotary frequencies.
      rope_grid: patch grid whose positions `eva` spreads over any other grid; None takes each grid as it is.
      rope_first: what the first half of the channels turns with, `rows` or `columns`.
      rope_offset: the number of the first row and column, for `eva`.
      pool: `cls`, `mean` (over patches), `cls_mean` (both, concatenated), `map` (attention pooling, Zhai et al. 2021),
        `patches` (every patch token) or `none` (all tokens).
      pool_heads, pool_mlp_dim: heads and hidden units of attention pooling; 0 for those of the blocks.
      pool_prefix: whether attention pooling also sees class and register tokens.
      pool_norm: where the final norm stands: `before` the pooling, or `after` it (timm's `fc_norm`); `none` for none.
      representation_size: width of a dense+tanh layer before the head; 0 for none.
      head_batch_norm: a batch norm without parameters before the head: linear classifiers on frozen features are
        trained behind it (MAE, He et al. 2021, arXiv 2111.06377, appendix A.1).
      head_bias: whether the head has a bias.
      head_bias_init: initial bias of the head; about -log(classes) suits sigmoid losses.
      patch_bias: whether the patch embedding has a bias.
      patch_norm: a norm of each patch's embedding, before positions are added (AIMv2).
      pre_norm: a norm between the embedding and the first block, as in CLIP.
      patch_drop_rate: share of patch tokens left out in training (PatchDropout, Liu et al. 2022, arXiv 2208.07220; Li
        et al. 2022, arXiv 2212.00794): of each image others, always as many. Evaluation sees all.
      merge_tokens: how many tokens each block merges into similar ones, in training and prediction (ToMe, Bolya et al.
        2022, arXiv 2210.09461): one number for all blocks, or one for each; at most half of the patches, and where
        fewer are left, half of those. 0 or empty for none.
      merge_schedule: of one number for all: `constant`, or `decreasing` from twice as many to 0 over depth.
      merge_proportional: merged tokens are attended to as often as they stand for patches. ToMe leaves it out for
        masked autoencoders' encoders that were not trained with merging.
      dynamic_image_size: accept other image sizes at call time by resampling positions.
      dynamic_image_pad: accept sizes that patches do not divide, by zeros at the bottom and on the right.
      max_patches: images keep their aspect ratio and are sequences of so many patches at most, padded and masked
        (NaFlex, Tschannen et al. 2025, arXiv 2502.14786); 0 for images of `image_size`, which then says only what grid
        the position table has.
      resample, resample_antialias, resample_offset: how positions go to another grid; see
        `models.layers.positions.resample`.
      load_resample, load_antialias: how positions and patch kernels go to another size when weights are loaded,
        `bilinear`, `bicubic` or, of positions, `zoom`; None for the rule above, and for bicubic kernels. timm's
        FlexiViTs and RADIOs have their own.
      bias_resample: how relative position biases do; see `models.layers.positions.relative`.
      preprocessing: how images become inputs; travels with the weights.
    """

    image_size: tuple[int, int] = (224, 224)
    patch_size: tuple[int, int] = (16, 16)
    patch_sizes: tuple[int, ...] = ()
    in_channels: int = 3
    num_classes: int = 1000
    problem: str = "single_label"
    stem: tuple[int, ...] = ()
    stem_strides: tuple[int, ...] = ()
    stem_kind: str = "early"
    backbone: ResNetConfig | None = None
    class_token: bool = True
    distillation_token: bool = False
    distillation_head: bool = True
    register_tokens: int = 0
    mask_token: bool = False
    position: str = "learned"
    class_position: bool = True
    register_position: bool = False
    position_bias: str = "none"
    rope: str = "none"
    rope_theta: float = 100.0
    rope_grid: tuple[int, int] | None = None
    rope_first: str = "rows"
    rope_offset: float = 0.0
    pool: str = "cls"
    pool_heads: int = 0
    pool_mlp_dim: int = 0
    pool_prefix: bool = True
    pool_norm: str = "before"
    representation_size: int = 0
    head_batch_norm: bool = False
    head_bias: bool = True
    head_bias_init: float = 0.0
    patch_bias: bool = True
    patch_norm: bool = False
    pre_norm: bool = False
    patch_drop_rate: float = 0.0
    merge_tokens: tuple[int, ...] = ()
    merge_schedule: str = "constant"
    merge_proportional: bool = True
    dynamic_image_size: bool = False
    dynamic_image_pad: bool = False
    max_patches: int = 0
    resample: str = "bicubic"
    resample_antialias: bool = True
    resample_offset: float = 0.0
    load_resample: str | None = None
    load_antialias: bool = True
    bias_resample: str = "geometric"
    preprocessing: Preprocessing = INCEPTION

    def __post_init__(self) -> None:
        for field in ("image_size", "patch_size"):
            object.__setattr__(self, field, pair(getattr(self, field), field))
        if self.rope_grid is not None:
            object.__setattr__(self, "rope_grid", pair(self.rope_grid, "rope_grid"))
        object.__setattr__(self, "merge_tokens", several(self.merge_tokens))
        object.__setattr__(self, "backbone", backbone(self.backbone))
        object.__setattr__(self, "preprocessing", as_preprocessing(self.preprocessing))
        super().__post_init__()
        for field in ("stem", "stem_strides", "patch_sizes"):
            object.__setattr__(self, field, tuple(getattr(self, field)))
        for field, allowed in CHOICES.items():
            choose(getattr(self, field), allowed, field)
        if self.num_classes == 1 and self.problem == "single_label":
            object.__setattr__(self, "problem", "multi_label")
        if self.load_resample is not None:
            choose(self.load_resample, ("bilinear", "bicubic", "zoom"), "load_resample")
        check_at_least(self, 1, "in_channels", "stem", "stem_strides")
        if set(self.stem_strides) == {1} and len(self.stem_strides) == len(self.stem):
            object.__setattr__(self, "stem_strides", ())  # one way to say it
        if self.stem_strides and len(self.stem_strides) != len(self.stem):
            raise ConfigError(
                f"stem_strides are {self.stem_strides}, for a stem of {len(self.stem)} convolutions; give one for "
                "each, or none at all."
            )
        check_at_least(
            self, 0, "num_classes", "register_tokens", "representation_size", "resample_offset", "max_patches"
        )
        check_at_least(self, 0, "pool_heads", "pool_mlp_dim")
        check_rates(self, "patch_drop_rate")
        check_divides(self.image_size, self.token_stride)
        check_patch_sizes(self)
        if self.position.startswith("sincos2d") and self.width % 4:
            raise ConfigError(f"width is {self.width}; {self.position} needs a multiple of 4.")
        if self.rope != "none" and self.head_dim % 4:
            raise ConfigError(
                f"rope needs heads whose width is a multiple of 4; there are {self.heads} of width {self.head_dim}."
            )
        if not self.rope_theta > 0:
            raise ConfigError(f"rope_theta is {self.rope_theta}; it must be above 0.")
        if self.rope_grid is not None and self.rope != "eva":
            raise ConfigError(f"rope_grid is {self.rope_grid}, which only rope 'eva' has; set it to None.")
        if self.rope_offset and self.rope != "eva":
            raise ConfigError(f"rope_offset is {self.rope_offset}, which only rope 'eva' has; set it to 0.")
        if self.register_position and not (self.register_tokens and self.position == "learned"):
            raise ConfigError(
                "register_position needs register_tokens and position 'learned'; set it to False."
            )
        if self.pool_heads and self.width % self.pool_heads:
            raise ConfigError(
                f"pool_heads is {self.pool_heads}, which does not divide width {self.width}; choose another."
            )
        if self.pool == "map" and (not self.branch_bias or self.parallel == "one_bias"):
            raise ConfigError(
                "pool 'map' has an MLP with biases; it needs branch_bias True, and not one_bias."
            )
        if self.differential and (self.rope != "none" or self.position_bias != "none"):
            raise ConfigError(
                "differential attention needs positions that are added to tokens: rope and position_bias 'none'."
            )
        if self.pool in ("cls", "cls_mean") and not self.class_token:
            raise ConfigError(
                f"pool is {self.pool!r} but class_token is False; use pool 'mean' or 'map', or a class token."
            )
        if self.pool == "cls_mean" and (self.pool_norm == "after" or self.representation_size):
            raise ConfigError(
                "pool 'cls_mean' is twice as wide as a token; it needs pool_norm 'before' and representation_size 0."
            )
        if self.patch_drop_rate and self.position_bias != "none":
            raise ConfigError(
                f"patch_drop_rate needs positions of single patches, and position_bias is {self.position_bias!r}; set "
                "it to 0."
            )
        check_merging(self)
        if self.distillation_token and not (self.class_token and self.pool in ("cls", "patches", "none")):
            raise ConfigError("distillation_token needs a class token and pool 'cls', 'patches' or 'none'.")
        if self.two_heads and (self.pool_norm == "after" or self.representation_size):
            raise ConfigError(
                "distillation_head needs pool_norm 'before' and representation_size 0: each token has its own head."
            )
        if self.head_batch_norm and self.two_heads:
            raise ConfigError(
                "head_batch_norm stands before one head; set it, or distillation_head, to False."
            )
        if self.position_bias != "none" and not (self.class_token and self.prefix_tokens == 1):
            raise ConfigError(
                "position_bias needs a class token and no distillation or register tokens: its tables have entries "
                "for one token before the patches."
            )
        if self.max_patches:
            check_sequences(self, f"max_patches is {self.max_patches}, but ", "set max_patches to 0")

    @property
    def token_stride(self) -> tuple[int, int]:
        """Pixels, in height and in width, that one patch token covers."""
        scale = math.prod(self.stem_strides) * (self.backbone.stride if self.backbone else 1)
        return scale * self.patch_size[0], scale * self.patch_size[1]

    @property
    def stem_layers(self) -> tuple[tuple[int, int, int], ...]:
        """Channels in, channels out and stride of each convolution of the stem."""
        strides = self.stem_strides or (1,) * len(self.stem)
        return tuple(zip((self.in_channels, *self.stem), self.stem, strides))

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        (height, width), (p, q) = self.image_size, self.token_stride
        return height // p, width // q

    @property
    def num_patches(self) -> int:
        """Number of patch tokens."""
        return self.grid[0] * self.grid[1]

    @property
    def prefix_tokens(self) -> int:
        """Number of tokens before the patches: class and distillation token and registers."""
        return int(self.class_token) + int(self.distillation_token) + self.register_tokens

    @property
    def two_heads(self) -> bool:
        """Whether class and distillation token are both read."""
        return self.distillation_token and self.distillation_head

    @property
    def position_slots(self) -> int:
        """Rows of the learned position table."""
        own = int(self.class_token) + int(self.distillation_token)
        return self.num_patches + own * self.class_position + self.register_tokens * self.register_position

    @property
    def feature_width(self) -> int:
        """Width of what goes into the head."""
        return self.representation_size or self.width * (2 if self.pool == "cls_mean" else 1)

    @property
    def output_width(self) -> int:
        """Width of the output: classes, or features where there is no head."""
        return self.num_classes or self.feature_width

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of an image: height, width, channels; with `max_patches`, these and the values of a patch."""
        if self.max_patches:
            return self.max_patches, math.prod(self.patch_size) * self.in_channels
        return *self.image_size, self.in_channels


def check_sequences(
    config: ViTConfig, whose: str = "", remedy: str = "give images (batch, height, width, channels)"
) -> None:
    """Raise ConfigError unless a model takes sequences of patches, see `models.patches`.

    Args:
      config: the model.
      whose: how the message begins.
      remedy: what to do instead.
    """
    fixed = {"stem": (), "backbone": None, "position_bias": "none", "patch_drop_rate": 0, "patch_sizes": ()}
    fixed |= {"merge_tokens": ()}
    for field, value in fixed.items():
        if getattr(config, field) != value:
            raise ConfigError(
                f"{whose}this model has {field} {getattr(config, field)!r} and does not take patches of "
                f"variable-size images; {remedy}."
            )
    if config.position == "learned" and config.resample not in ("bilinear", "bicubic"):
        raise ConfigError(
            f"{whose}patches of variable-size images need positions that are resampled bilinear or bicubic; this "
            f"model has resample {config.resample!r}; {remedy}."
        )


SIZES: dict[str, dict[str, int]] = {
    name: dict(width=width, depth=depth, heads=heads, mlp_dim=mlp_dim)
    for name, width, depth, heads, mlp_dim in (
        ("mu", 32, 1, 2, 128),
        ("tiny", 192, 12, 3, 768),
        ("small", 384, 12, 6, 1536),
        ("medium", 512, 12, 8, 2048),
        ("base", 768, 12, 12, 3072),
        ("large", 1024, 24, 16, 4096),
        ("huge", 1280, 32, 16, 5120),
        ("so400m", 1152, 27, 16, 4304),
        ("giant", 1408, 40, 16, 6144),
        ("giantopt", 1536, 40, 16, 6144),
        ("gigantic", 1664, 48, 16, 8192),
        ("enormous", 1792, 56, 16, 15360),
    )
}
