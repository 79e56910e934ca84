"""What a stack of transformer blocks is made of, for images or text. Needs no jax."""

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from vit_jax.errors import ConfigError, choose, nearest

STORAGES = ("float32", "bfloat16", "int8")  # of parameters in prediction, see `models.storage`
RESAMPLE = ("nearest", "bilinear", "bicubic", "zoom")  # how grids change their size
LARGEST = 10_000_000  # no number in the description of a model is more

# Fields that say how a model is trained or run, and not what it computes.
RUNNING = frozenset({
    "dropout_rate", "attention_dropout_rate", "drop_path_rate", "drop_path_schedule", "init", "dtype", "attention",
    "remat", "unroll",
})  # fmt: skip

CHOICES = {
    "parallel": ("none", "two_biases", "one_bias"),
    "norm": ("layer", "rms"),
    "branch_norm": ("before", "after"),
    "mlp": ("mlp", "swiglu"),
    "activation": ("gelu", "gelu_tanh", "quick_gelu", "relu", "silu"),
    "drop_path_schedule": ("linear", "constant"),
    "init": ("jax", "trunc_normal"),
    "dtype": ("float32", "bfloat16"),
    "attention": ("auto", "explicit", "xla", "cudnn", "kernel"),
    "remat": ("none", "full", "dots", "dots_no_batch", "attention"),
}


@dataclass(frozen=True)
class EncoderConfig:
    """The transformer blocks of a model; sources of one model differ in these fields.

    Attributes:
      width, depth, heads, mlp_dim: `d`, `l`, number of attention heads, `m`.
      qkv_bias: whether queries, keys and values have biases.
      k_bias: False leaves out the keys' bias alone, as BEiT and DINOv3 do.
      qk_norm: norms over the head dimension of queries and keys (Dehghani et al. 2023, arXiv 2302.05442).
      differential: whether heads subtract a second attention from the first (Ye et al. 2024, arXiv 2410.05258).
      parallel: `none`, or attention and MLP side by side behind one norm, as in ViT-22B (Dehghani et al. 2023, arXiv
        2302.05442): each with a bias of what it adds, `two_biases`, or with one for both, `one_bias`.
      norm: kind of every norm: `layer`, or `rms` (without mean and bias; Zhang & Sennrich 2019, arXiv 1910.07467).
      branch_norm: where a block's norms stand: `before` attention and MLP, or `after` each, on what it adds (the
        enormous EVA-02; Liu et al. 2021, arXiv 2111.09883).
      attention_norm: a norm over the heads' outputs before their projection (EVA-02).
      layer_scale: initial value of the per-channel residual scale (Touvron et al. 2021, arXiv 2103.17239),
        or None for no scale.
      mlp_scale: whether the MLP has such a scale too; Sapiens 2 has it after attention alone.
      branch_bias: whether what a block adds has biases: attention's last layer and the MLP; AIMv2 has none (Fini et al.
        2024, arXiv 2411.14402).
      mlp: `mlp` or `swiglu` (Shazeer 2020, arXiv 2002.05202); for `swiglu`, `mlp_dim` is the width after gating.
      mlp_norm: a norm over the hidden units before the MLP's last layer (EVA-02).
      activation: `gelu` (exact), `gelu_tanh` (Google's), `quick_gelu` (OpenAI CLIP), `relu` or `silu`.
      norm_epsilon: epsilon of all norms.
      dropout_rate: dropout after embedding, attention output and MLP layers.
      attention_dropout_rate: dropout of attention weights.
      drop_path_rate: stochastic depth of the last block (Huang et al. 2016, arXiv 1603.09382).
      drop_path_schedule: `linear` from 0 over depth, or `constant`.
      init: `jax` (Xavier, as vision_transformer and big_vision) or `trunc_normal` (0.02, as DeiT and timm).
      dtype: compute dtype; parameters are always float32.
      attention: implementation: `auto`, `explicit`, `xla`, `cudnn` or `kernel` (TPU).
      remat: gradient checkpointing policy; see `models.layers.encoder.REMAT_POLICIES`.
      unroll: blocks per iteration of the scan over depth; 0 chooses (all of them up to depth 48).
    """

    width: int = 192
    depth: int = 12
    heads: int = 3
    mlp_dim: int = 768
    qkv_bias: bool = True
    k_bias: bool = True
    qk_norm: bool = False
    differential: bool = False
    parallel: str = "none"
    norm: str = "layer"
    branch_norm: str = "before"
    attention_norm: bool = False
    layer_scale: float | None = None
    mlp_scale: bool = True
    branch_bias: bool = True
    mlp: str = "mlp"
    mlp_norm: bool = False
    activation: str = "gelu"
    norm_epsilon: float = 1e-6
    dropout_rate: float = 0.0
    attention_dropout_rate: float = 0.0
    drop_path_rate: float = 0.0
    drop_path_schedule: str = "linear"
    init: str = "jax"
    dtype: str = "float32"
    attention: str = "auto"
    remat: str = "none"
    unroll: int = 0

    def __post_init__(self) -> None:
        check_types(self)
        for field, allowed in CHOICES.items():
            choose(getattr(self, field), allowed, field)
        check_at_least(self, 1, "width", "depth", "heads", "mlp_dim")
        check_at_least(self, 0, "unroll")
        check_rates(self, "dropout_rate", "attention_dropout_rate", "drop_path_rate")
        if not self.norm_epsilon > 0:
            raise ConfigError(f"norm_epsilon is {self.norm_epsilon}; it must be above 0.")
        if self.layer_scale is not None and not (
            _is_number(self.layer_scale) and abs(self.layer_scale) < math.inf
        ):
            raise ConfigError(f"layer_scale is {self.layer_scale!r}; it must be a number or None.")
        if self.parallel != "none" and (
            self.branch_norm == "after" or self.mlp != "mlp" or not self.mlp_scale
        ):
            raise ConfigError(
                f"parallel is {self.parallel!r}; it needs branch_norm 'before', mlp 'mlp' and mlp_scale True."
            )
        if self.differential and (self.qk_norm or self.attention_norm or self.width // self.heads % 2):
            raise ConfigError(
                "differential attention needs heads of an even width, without qk_norm and attention_norm; set it to "
                "False."
            )
        if self.width % self.heads:
            raise ConfigError(
                f"heads is {self.heads}, which does not divide width {self.width}; choose another."
            )

    @property
    def head_dim(self) -> int:
        """Width `k` of one attention head."""
        return self.width // self.heads


def check_types(config: Any) -> None:
    """Raise ConfigError unless each field whose default is plain, or a tuple of integers, has a value like it."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if isinstance(field.default, bool):
            expected, good = "True or False", isinstance(value, bool)
        elif isinstance(field.default, int):
            expected, good = f"an integer below {LARGEST}", _is_integer(value) and abs(value) < LARGEST
        elif isinstance(field.default, float):
            expected, good = "a number, and a finite one", _is_number(value) and abs(value) < math.inf
        elif isinstance(field.default, str):
            expected, good = "text", isinstance(value, str)
        elif isinstance(field.default, tuple):
            listed = isinstance(value, tuple | list)
            expected, good = "a list of integers", listed and all(map(_is_integer, value))
        else:
            continue
        if not good:
            raise ConfigError(f"{field.name} is {value!r}; it must be {expected}.")


def check_parts(config: Any, **kinds: type) -> None:
    """Raise ConfigError unless each field is a configuration of its kind."""
    for field, kind in kinds.items():
        value = getattr(config, field)
        if not isinstance(value, kind):
            raise ConfigError(f"{field} is {value!r}; it must be a {kind.__name__}.")


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, float) or _is_integer(value)


def check_at_least(config: Any, smallest: int, *fields: str) -> None:
    """Raise ConfigError unless each field, a number or a tuple of numbers, is at least `smallest`."""
    allowed = f"{smallest} or more" if smallest == 0 else f"at least {smallest}"
    for field in fields:
        value = getattr(config, field)
        if min(value if isinstance(value, tuple) else (value,), default=smallest) < smallest:
            raise ConfigError(f"{field} is {value}; it must be {allowed}.")


def check_rates(config: Any, *fields: str) -> None:
    """Raise ConfigError unless each field is at least 0 and below 1."""
    for field in fields:
        if not 0 <= getattr(config, field) < 1:
            raise ConfigError(f"{field} is {getattr(config, field)}; it must be at least 0 and below 1.")


C = TypeVar("C", bound=Any)


def replace(config: C, **changes: Any) -> C:
    """Return `config` with fields changed.

    Raises:
      ConfigError: a name is not a field (the nearest are named) or a value is not allowed.
    """
    check_options(config, changes)
    return dataclasses.replace(config, **changes)


def check_options(config: Any, options: Iterable[str]) -> None:
    """Raise ConfigError unless these are fields of a configuration, or of a class of them; the nearest are named."""
    names = [field.name for field in dataclasses.fields(config)]
    for name in options:
        if name not in names:
            raise ConfigError(f"{name!r} is not a model option.{nearest(name, names)}")
