"""What a plain Vision Transformer is made of: configuration, sizes and names. Needs no jax.

Sources: Dosovitskiy et al. 2020 (arXiv 2010.11929) Table 1 for B, L, H; Touvron et al. 2020 (arXiv
2012.12877) Table 1 for Ti, S; Zhai et al. 2021 (arXiv 2106.04560) Table 2 for g, G; Touvron et al. 2022
(arXiv 2204.07118) for M; Alabdulmohsin et al. 2023 (arXiv 2305.13035) for So400m; Chen et al. 2022
(arXiv 2209.06794) for e; mu is big_vision's size for tests.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

from vit_jax.errors import ConfigError, choose, nearest
from vit_jax.models.preprocessing import INCEPTION, Preprocessing


@dataclass(frozen=True)
class ViTConfig:
    """Everything that defines a Vision Transformer; sources of one model differ in these fields.

    Attributes:
      image_size: height and width in pixels.
      patch_size: height and width of a patch in pixels; divides `image_size`.
      in_channels: channels of the input images.
      width, depth, heads, mlp_dim: `d`, `l`, number of attention heads, `m`.
      num_classes: size of the head; 0 for none.
      stem: channels of 3x3 stride-1 convolutions before the patches (Xiao et al. 2021, arXiv 2106.14881).
      class_token: put a learned class token first.
      register_tokens: learned tokens after the class token, without position (Darcet et al. 2023,
        arXiv 2309.16588).
      position: `learned`, `sincos2d_mae` (MAE and DiT), `sincos2d_big_vision` (other
        frequencies), or `none`.
      class_position: learned positions have a slot of their own for the class token.
      pool: `cls`, `mean` (over patches), `map` (attention pooling, Zhai et al. 2021) or `none` (all tokens).
      pool_norm: where the final norm stands: `before` the pooling, or `after` it (timm's `fc_norm`).
      representation_size: width of a dense+tanh layer before the head; 0 for none.
      qkv_bias, patch_bias: whether these projections have biases.
      pre_norm: a norm between the embedding and the first block, as in CLIP.
      qk_norm: norms over the head dimension of queries and keys (Dehghani et al. 2023, arXiv 2302.05442).
      layer_scale: initial value of the per-channel residual scale (Touvron et al. 2021, arXiv 2103.17239),
        or None for no scale.
      mlp: `mlp` or `swiglu` (Shazeer 2020, arXiv 2002.05202); for `swiglu`, `mlp_dim` is the width after gating.
      activation: `gelu` (exact), `gelu_tanh` (Google's), `quick_gelu` (OpenAI CLIP), `relu` or `silu`.
      norm_epsilon: epsilon of all layer norms.
      dropout_rate: dropout after embedding, attention output and MLP layers.
      attention_dropout_rate: dropout of attention weights.
      drop_path_rate: stochastic depth of the last block (Huang et al. 2016, arXiv 1603.09382).
      drop_path_schedule: `linear` from 0 over depth, or `constant`.
      patch_drop_rate: share of patch tokens left out in training (Li et al. 2022, arXiv 2212.00794).
      init: `jax` (Xavier, as vision_transformer and big_vision) or `trunc_normal` (0.02, as DeiT and timm).
      head_bias_init: initial bias of the head; about -log(classes) suits sigmoid losses.
      dynamic_image_size: accept other image sizes at call time by resampling positions.
      resample, resample_antialias: how positions go to another grid; see `models.resample`.
      dtype: compute dtype; parameters are always float32.
      attention: implementation: `auto`, `explicit`, `xla` or `cudnn`.
      remat: gradient checkpointing policy; see `models.encoder.REMAT_POLICIES`.
      unroll: blocks per iteration of the scan over depth; 0 chooses (all of them up to depth 48).
      preprocessing: how images become inputs; travels with the weights.
    """

    image_size: tuple[int, int] = (224, 224)
    patch_size: tuple[int, int] = (16, 16)
    in_channels: int = 3
    width: int = 192
    depth: int = 12
    heads: int = 3
    mlp_dim: int = 768
    num_classes: int = 1000
    stem: tuple[int, ...] = ()
    class_token: bool = True
    register_tokens: int = 0
    position: str = "learned"
    class_position: bool = True
    pool: str = "cls"
    pool_norm: str = "before"
    representation_size: int = 0
    qkv_bias: bool = True
    patch_bias: bool = True
    pre_norm: bool = False
    qk_norm: bool = False
    layer_scale: float | None = None
    mlp: str = "mlp"
    activation: str = "gelu"
    norm_epsilon: float = 1e-6
    dropout_rate: float = 0.0
    attention_dropout_rate: float = 0.0
    drop_path_rate: float = 0.0
    drop_path_schedule: str = "linear"
    patch_drop_rate: float = 0.0
    init: str = "jax"
    head_bias_init: float = 0.0
    dynamic_image_size: bool = False
    resample: str = "bicubic"
    resample_antialias: bool = True
    dtype: str = "float32"
    attention: str = "auto"
    remat: str = "none"
    unroll: int = 0
    preprocessing: Preprocessing = INCEPTION

    def __post_init__(self) -> None:
        for field in ("image_size", "patch_size"):
            object.__setattr__(self, field, pair(getattr(self, field), field))
        object.__setattr__(self, "stem", tuple(self.stem))
        object.__setattr__(self, "preprocessing", _preprocessing(self.preprocessing))
        for field, allowed in CHOICES.items():
            choose(getattr(self, field), allowed, field)
        for field in ("in_channels", "width", "depth", "heads", "mlp_dim", *("stem",) * bool(self.stem)):
            value = getattr(self, field)
            if min(value if isinstance(value, tuple) else (value,)) < 1:
                raise ConfigError(f"{field} is {value}; it must be at least 1.")
        for field in ("num_classes", "register_tokens", "representation_size", "unroll"):
            if getattr(self, field) < 0:
                raise ConfigError(f"{field} is {getattr(self, field)}; it must be 0 or more.")
        for field in ("dropout_rate", "attention_dropout_rate", "drop_path_rate", "patch_drop_rate"):
            if not 0 <= getattr(self, field) < 1:
                raise ConfigError(f"{field} is {getattr(self, field)}; it must be at least 0 and below 1.")
        if not self.norm_epsilon > 0:
            raise ConfigError(f"norm_epsilon is {self.norm_epsilon}; it must be above 0.")
        check_divides(self.image_size, self.patch_size)
        if self.width % self.heads:
            raise ConfigError(
                f"heads is {self.heads}, which does not divide width {self.width}; choose another."
            )
        if self.position.startswith("sincos2d") and self.width % 4:
            raise ConfigError(f"width is {self.width}; {self.position} needs a multiple of 4.")
        if self.pool == "cls" and not self.class_token:
            raise ConfigError(
                "pool is 'cls' but class_token is False; use pool 'mean' or 'map', or a class token."
            )

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.image_size[0] // self.patch_size[0], self.image_size[1] // self.patch_size[1]

    @property
    def num_patches(self) -> int:
        """Number of patch tokens."""
        return self.grid[0] * self.grid[1]

    @property
    def prefix_tokens(self) -> int:
        """Number of tokens before the patches: class token and registers."""
        return int(self.class_token) + self.register_tokens

    @property
    def head_dim(self) -> int:
        """Width `k` of one attention head."""
        return self.width // self.heads

    @property
    def position_slots(self) -> int:
        """Rows of the learned position table."""
        return self.num_patches + int(self.class_token and self.class_position)


CHOICES = {
    "position": ("learned", "sincos2d_mae", "sincos2d_big_vision", "none"),
    "pool": ("cls", "mean", "map", "none"),
    "pool_norm": ("before", "after"),
    "mlp": ("mlp", "swiglu"),
    "activation": ("gelu", "gelu_tanh", "quick_gelu", "relu", "silu"),
    "drop_path_schedule": ("linear", "constant"),
    "init": ("jax", "trunc_normal"),
    "resample": ("nearest", "bilinear", "bicubic", "zoom"),
    "dtype": ("float32", "bfloat16"),
    "attention": ("auto", "explicit", "xla", "cudnn"),
    "remat": ("none", "full", "dots", "dots_no_batch", "attention"),
}

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


def pair(value: Any, name: str) -> tuple[int, int]:
    """Return `(value, value)` for an integer and a tuple for a sequence of two; else raise ConfigError."""
    values = (
        (value, value) if isinstance(value, int) else tuple(value) if isinstance(value, tuple | list) else ()
    )
    if len(values) != 2 or not all(isinstance(v, int) and v > 0 for v in values):
        raise ConfigError(
            f"{name} is {value!r}; it must be a positive integer or two of them, height and width."
        )
    return values[0], values[1]


def _preprocessing(value: Any) -> Preprocessing:
    """Return a Preprocessing as it is, or made of a dict as read from JSON; else raise ConfigError."""
    if isinstance(value, Preprocessing):
        return value
    if not isinstance(value, dict):
        raise ConfigError(f"preprocessing is {value!r}; it must be a Preprocessing or a dict of its fields.")
    names = [field.name for field in dataclasses.fields(Preprocessing)]
    for name in value:
        if name not in names:
            raise ConfigError(
                f"preprocessing has no {name!r}; it has {', '.join(names)}.{nearest(name, names)}"
            )
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in value.items()}
    return Preprocessing(**values)


def check_divides(image_size: tuple[int, int], patch_size: tuple[int, int]) -> None:
    """Raise ConfigError, naming the two nearest sizes, unless patches tile the image."""
    for axis, size, patch in zip(("height", "width"), image_size, patch_size):
        if size % patch:
            below, above = size // patch * patch, (size // patch + 1) * patch
            near = f"{below} or {above}" if below else f"{above}"
            raise ConfigError(
                f"image {axis} {size} is not divisible by patch size {patch}; the nearest sizes are {near}."
            )


def replace(config: ViTConfig, **changes: Any) -> ViTConfig:
    """Return `config` with fields changed.

    Raises:
      ConfigError: a name is not a field (the nearest are named) or a value is not allowed.
    """
    names = [field.name for field in dataclasses.fields(ViTConfig)]
    for name, value in changes.items():
        if name not in names:
            raise ConfigError(f"{name!r} is not a model option.{nearest(name, names)}")
        _check_type(name, value, getattr(ViTConfig, name))
    return dataclasses.replace(config, **changes)


def _check_type(name: str, value: Any, default: Any) -> None:
    if isinstance(default, bool):
        expected, good = "True or False", isinstance(value, bool)
    elif isinstance(default, int):
        expected, good = "an integer", isinstance(value, int) and not isinstance(value, bool)
    elif isinstance(default, float):
        expected, good = "a number", isinstance(value, int | float) and not isinstance(value, bool)
    elif isinstance(default, str):
        expected, good = "text", isinstance(value, str)
    elif name == "layer_scale":
        number = isinstance(value, int | float) and not isinstance(value, bool)
        expected, good = "a number or None", value is None or number
    elif name == "stem":
        listed = isinstance(value, tuple | list)
        good = listed and all(isinstance(v, int) and not isinstance(v, bool) for v in value)
        expected = "a list of channels, for example (32, 32)"
    else:
        return
    if not good:
        raise ConfigError(f"{name} is {value!r}; it must be {expected}.")
