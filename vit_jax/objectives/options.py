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
      cutmix_minmax: smallest and largest side of boxes as shares of the image's, or None; turns cutmix on and replaces
        its alpha (timm's `cutmix_minmax`).
      cutmix_corrected: targets follow the area that a box clipped at the border really has.
      mix_probability: share of what `mix_mode` names that is mixed.
      cutmix_probability: share of these that use cutmix when both are on.
      mix_mode: what has a strength, a kind and a box of its own: the whole `batch`, each `pair` of partners or each
        element, `elem` (timm's `mixup_mode`).
      mix_partner: `roll` mixes an image with the one before it in the batch (big_vision), `flip` with the one as far
        from the end as it is from the start (timm, DeiT). Repetitions of an image (`data.repeats`) stand a share of the
        batch apart, so that images meet others either way, but for a few in the middle with `flip`.
      mix_dominant: an image keeps the larger share of itself (big_vision).
      erase_probability: share of images with random erasing (Zhong et al. 2017, arXiv 1708.04896), done before mixing.
      erase_mode: `pixel` fills boxes with noise, `rand` with one random colour, `const` with the mean colour.
      erase_area: smallest and largest share of the image that is erased.
      erase_aspect: smallest height over width of a box; the largest is its inverse.
      erase_count: smallest and largest number of boxes in an image.
    """

    loss: str = "softmax"
    label_smoothing: float = 0.0
    bce_threshold: float | None = 0.0
    class_weights: str | tuple[float, ...] = "none"
    mixup: float = 0.0
    cutmix: float = 0.0
    cutmix_minmax: tuple[float, float] | None = None
    cutmix_corrected: bool = True
    mix_probability: float = 1.0
    cutmix_probability: float = 0.5
    mix_mode: str = "batch"
    mix_partner: str = "roll"
    mix_dominant: bool = False
    erase_probability: float = 0.0
    erase_mode: str = "pixel"
    erase_area: tuple[float, float] = (0.02, 1 / 3)
    erase_aspect: float = 0.3
    erase_count: tuple[int, int] = (1, 1)

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
        choose(self.mix_mode, ("batch", "pair", "elem"), "objective.mix_mode")
        choose(self.mix_partner, ("roll", "flip"), "objective.mix_partner")
        if self.mix_mode == "pair" and self.mix_partner != "flip":
            raise ConfigError(
                f"objective.mix_partner is {self.mix_partner!r}, but only 'flip' makes pairs for mix_mode 'pair'; set "
                "mix_partner='flip' or another mix_mode."
            )
        choose(self.erase_mode, ("pixel", "rand", "const"), "objective.erase_mode")
        _check_ranges(self, ("erase_probability",), 0, 1)
        _check_ranges(self, ("erase_aspect",), 0.01, 1)
        if self.cutmix_minmax is not None:
            object.__setattr__(self, "cutmix_minmax", _interval(self, "cutmix_minmax", 0, 1))
        object.__setattr__(self, "erase_area", _interval(self, "erase_area", 0, 1))
        object.__setattr__(self, "erase_count", _interval(self, "erase_count", 1, 100, whole=True))


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


def _interval(options: Any, name: str, low: int, high: int, whole: bool = False) -> tuple[Any, ...]:
    values = getattr(options, name)
    kind = int if whole else int | float
    good = isinstance(values, list | tuple) and len(values) == 2
    good = good and all(_is_number(v) and isinstance(v, kind) for v in values)
    if not good or not low <= values[0] <= values[1] <= high:
        numbers = "integers" if whole else "numbers"
        raise ConfigError(
            f"objective.{name} is {values!r}; it must be two {numbers} between {low} and {high}, the smaller one first."
        )
    return tuple(values)


def _check_ranges(options: Any, names: tuple[str, ...], low: float, high: float) -> None:
    for name in names:
        value = getattr(options, name)
        if not low <= value <= high:
            raise ConfigError(f"objective.{name} is {value}; it must be between {low} and {high}.")
