"""What a configuration may say about several labels an image; needs no jax, so mistakes are found at once."""

from dataclasses import dataclass

from vit_jax.errors import ConfigError, choose
from vit_jax.objectives.option_checks import check_ranges, is_number, numbers

LOSSES = ("bce", "asymmetric")
TUNED = ("tuned", "tuned_per_class")


@dataclass(frozen=True)
class MultiLabelOptions:
    """Several labels an image, each class a choice of its own.

    Attributes:
      loss: `bce` (binary cross-entropy) or `asymmetric` (Ben-Baruch et al. 2020, arXiv 2009.14119, which damps easy
        negatives); the mean over all entries that are known.
      label_smoothing: moves targets towards 1/2 by this share.
      gamma_negative, gamma_positive, clip: of the asymmetric loss; gammas are 0 or at least 1.
      positive_weights: factor of what an image has: `none`, `balanced` (of each class, how many training images have it
        not for each that has it) or one number for each class.
      thresholds: probability from which a class counts as predicted: one, one for each class, or `tuned` or
        `tuned_per_class`: what gives the evaluation records the highest F1, of all classes together or of each.
    """

    loss: str = "bce"
    label_smoothing: float = 0.0
    gamma_negative: float = 4.0
    gamma_positive: float = 0.0
    clip: float = 0.05
    positive_weights: str | tuple[float, ...] = "none"
    thresholds: float | str | tuple[float, ...] = 0.5

    def __post_init__(self) -> None:
        choose(self.loss, LOSSES, "objective.loss")
        check_ranges(self, ("label_smoothing", "clip"), 0, 0.999)
        check_ranges(self, ("gamma_negative", "gamma_positive"), 0, 100)
        for name in ("gamma_negative", "gamma_positive"):
            if 0 < getattr(self, name) < 1:  # the slope of p^gamma at 0 is infinite
                raise ConfigError(f"objective.{name} is {getattr(self, name)}; it must be 0, or at least 1.")
        if isinstance(self.positive_weights, str):
            choose(self.positive_weights, ("none", "balanced"), "objective.positive_weights")
        else:
            given = numbers(self, "positive_weights", 0, "'none', 'balanced' or one number per class")
            object.__setattr__(self, "positive_weights", given)
        if isinstance(self.thresholds, str):
            choose(self.thresholds, TUNED, "objective.thresholds")
        elif is_number(self.thresholds):
            check_ranges(self, ("thresholds",), 0, 1)
        else:
            like = "a number from 0 to 1, one per class, 'tuned' or 'tuned_per_class'"
            given = numbers(self, "thresholds", 0, like)
            if max(given) > 1:
                raise ConfigError(f"objective.thresholds is {self.thresholds!r}; it must be {like}.")
            object.__setattr__(self, "thresholds", given)
