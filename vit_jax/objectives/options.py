"""What a configuration may say about each objective; needs no jax, so mistakes are found at once."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from vit_jax.errors import ConfigError, choose, nearest


@dataclass(frozen=True)
class ClassificationOptions:
    """Supervised classification.

    Attributes:
      loss: `softmax`, `sigmoid` (each class on its own, summed over classes, as big_vision) or `bce` (mean
        over classes of targets thresholded at `bce_threshold`, as DeiT-III).
      label_smoothing: share of the target spread evenly over all classes.
      bce_threshold: targets above it count as 1 in `bce`; None keeps them as they are.
      class_weights: `none`, `balanced` (inverse frequency in the training set) or one weight per class.
      mixup: alpha of the Beta distribution of mixup (Zhang et al. 2017, arXiv 1710.09412); 0 is off.
      cutmix: alpha of cutmix (Yun et al. 2019, arXiv 1905.04899); 0 is off.
      mix_probability: share of batches that are mixed.
      cutmix_probability: share of mixed batches that use cutmix when both are on.
    """

    loss: str = "softmax"
    label_smoothing: float = 0.0
    bce_threshold: float | None = 0.0
    class_weights: str | tuple[float, ...] = "none"
    mixup: float = 0.0
    cutmix: float = 0.0
    mix_probability: float = 1.0
    cutmix_probability: float = 0.5

    def __post_init__(self) -> None:
        choose(self.loss, ("softmax", "sigmoid", "bce"), "objective.loss")
        if isinstance(self.class_weights, str):
            choose(self.class_weights, ("none", "balanced"), "objective.class_weights")
        else:
            object.__setattr__(self, "class_weights", _weights(self.class_weights))
        if self.bce_threshold is not None:
            _check_ranges(self, ("bce_threshold",), 0, 1)
        _check_ranges(self, ("label_smoothing", "mix_probability", "cutmix_probability"), 0, 1)
        _check_ranges(self, ("mixup", "cutmix"), 0, 1000)


@dataclass(frozen=True)
class MaeOptions:
    """Masked autoencoding (He et al. 2021, arXiv 2111.06377).

    Attributes:
      mask_ratio: share of patches hidden from the encoder.
      normalise_pixels: predict patches with their own mean and deviation removed.
      decoder_width, decoder_depth, decoder_heads, decoder_mlp_dim: size of the decoder; `decoder_mlp_dim` 0
        means four times the width.
    """

    mask_ratio: float = 0.75
    normalise_pixels: bool = True
    decoder_width: int = 512
    decoder_depth: int = 8
    decoder_heads: int = 16
    decoder_mlp_dim: int = 0

    def __post_init__(self) -> None:
        _check_ranges(self, ("mask_ratio",), 0, 0.999)
        _check_ranges(self, ("decoder_width", "decoder_depth", "decoder_heads"), 1, 2**20)
        _check_ranges(self, ("decoder_mlp_dim",), 0, 2**20)
        if self.decoder_width % 4:
            raise ConfigError(
                f"objective.decoder_width is {self.decoder_width}; its positions need a multiple of 4."
            )
        if self.decoder_width % self.decoder_heads:
            raise ConfigError(
                f"objective.decoder_heads is {self.decoder_heads}, which does not divide decoder_width "
                f"{self.decoder_width}; choose another."
            )


OPTIONS = {"classification": ClassificationOptions, "mae": MaeOptions}


def parse_options(section: dict[str, Any]) -> Any:
    """Return the options dataclass for a config's `objective` section, `{"name": ..., option: value}`.

    Raises:
      ConfigError: unknown objective or option (the nearest are named), or a value out of range.
    """
    values = dict(section)
    name = values.pop("name", None)
    choose(name, OPTIONS, "objective.name")
    known = {field.name: field.default for field in dataclasses.fields(OPTIONS[name])}
    for key, value in values.items():
        if key not in known:
            raise ConfigError(f"objective.{key} is not an option of {name!r}.{nearest(key, known)}")
        _check_type(key, value, known[key])
    return OPTIONS[name](**values)


def _check_type(key: str, value: Any, default: Any) -> None:
    if isinstance(default, bool):
        expected, good = "True or False", isinstance(value, bool)
    elif isinstance(default, int):
        expected, good = "an integer", _is_number(value) and isinstance(value, int)
    elif key == "bce_threshold":
        expected, good = "a number or None", value is None or _is_number(value)
    elif isinstance(default, float):
        expected, good = "a number", _is_number(value)
    else:
        return  # what is text or more is checked where it is chosen from
    if not good:
        raise ConfigError(f"objective.{key} is {value!r}; it must be {expected}.")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _weights(values: Any) -> tuple[float, ...]:
    listed = isinstance(values, list | tuple) and all(_is_number(v) and 0 <= v < float("inf") for v in values)
    if not listed or not sum(values):
        raise ConfigError(
            f"objective.class_weights is {values!r}; it must be 'none', 'balanced' or one number of 0 or more for "
            "each class, not all 0."
        )
    return tuple(float(value) for value in values)


def _check_ranges(options: Any, names: tuple[str, ...], low: float, high: float) -> None:
    for name in names:
        value = getattr(options, name)
        if not low <= value <= high:
            raise ConfigError(f"objective.{name} is {value}; it must be between {low} and {high}.")
