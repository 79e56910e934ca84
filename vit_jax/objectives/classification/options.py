"""What a configuration may say about classification; needs no jax, so mistakes are found at once."""

from dataclasses import dataclass
from typing import Any, ClassVar

from vit_jax.errors import ConfigError, choose
from vit_jax.models.problem import LOSSES
from vit_jax.objectives.option_checks import check_ranges, interval, is_number


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

    training: ClassVar[tuple[str, ...]] = ("class_weights",)  # need not go with other data

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
        choose(self.loss, LOSSES, "objective.loss")
        if isinstance(self.class_weights, str):
            choose(self.class_weights, ("none", "balanced"), "objective.class_weights")
        else:
            object.__setattr__(self, "class_weights", _weights(self.class_weights))
        if self.bce_threshold is not None:
            check_ranges(self, ("bce_threshold",), 0, 1)
        check_ranges(self, ("label_smoothing", "mix_probability", "cutmix_probability"), 0, 1)
        check_ranges(self, ("mixup", "cutmix"), 0, 1000)
        choose(self.mix_mode, ("batch", "pair", "elem"), "objective.mix_mode")
        choose(self.mix_partner, ("roll", "flip"), "objective.mix_partner")
        if self.mix_mode == "pair" and self.mix_partner != "flip":
            raise ConfigError(
                f"objective.mix_partner is {self.mix_partner!r}, but mix_mode 'pair' works only with mix_partner "
                "'flip'; set mix_partner='flip' or choose another mix_mode."
            )
        choose(self.erase_mode, ("pixel", "rand", "const"), "objective.erase_mode")
        check_ranges(self, ("erase_probability",), 0, 1)
        check_ranges(self, ("erase_aspect",), 0.01, 1)
        if self.cutmix_minmax is not None:
            object.__setattr__(self, "cutmix_minmax", interval(self, "cutmix_minmax", 0, 1))
        object.__setattr__(self, "erase_area", interval(self, "erase_area", 0, 1))
        object.__setattr__(self, "erase_count", interval(self, "erase_count", 1, 100, whole=True))


def _weights(values: Any) -> tuple[float, ...]:
    listed = isinstance(values, list | tuple) and all(is_number(v) and 0 <= v < float("inf") for v in values)
    if not listed or not sum(values):
        raise ConfigError(
            f"objective.class_weights is {values!r}; it must be 'none', 'balanced' or one non-negative number per "
            "class, not all 0."
        )
    return tuple(float(value) for value in values)
