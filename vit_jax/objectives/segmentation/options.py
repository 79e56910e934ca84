"""What a configuration may say about semantic segmentation; needs no jax, so mistakes are found at once."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from vit_jax.errors import ConfigError, choose
from vit_jax.objectives.option_checks import check_ranges, integers, is_number
from vit_jax.objectives.segmentation.heads import HEADS
from vit_jax.objectives.segmentation.heads.head import Head
from vit_jax.objectives.segmentation.heads.linear import LinearHead

EVALUATIONS = ("whole", "slide")


@dataclass(frozen=True)
class SegmentationOptions:
    """A class for each pixel: cross-entropy over the pixels whose class is known.

    Attributes:
      head: one of `HEADS`, whose own options are options too.
      class_weights: of the pixels of each class in the loss; empty for the same.
      calibrated: the weights make rare classes learned sooner and do not make them predicted more often: logits are
        those of pixels as they are.
      copy_paste: chance that an image, in training, gets the pixels of some classes of another one of the batch (Ghiasi
        et al. 2021, arXiv 2012.07177).
      pasted: the classes, by number, whose pixels those are.
      evaluation: `whole` images, or windows of the model's size that `slide` over larger ones and are averaged.
      eval_size: height and width of images in evaluation; empty for the model's.
      stride: from one window to the next, down and across; empty for two thirds of a window.
      head_options: those of the head; see `objectives.options.parse_options`.
    """

    # By option: what it chooses, see `objectives.options`.
    chosen: ClassVar[Mapping[str, Mapping[str, str]]] = {"head": HEADS}
    # Need not go with other data.
    training: ClassVar[tuple[str, ...]] = ("class_weights", "calibrated", "copy_paste", "pasted")

    head: str = "linear"
    class_weights: tuple[float, ...] = ()
    calibrated: bool = False
    copy_paste: float = 0.0
    pasted: tuple[int, ...] = ()
    evaluation: str = "whole"
    eval_size: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    head_options: Head = field(default_factory=LinearHead)

    def __post_init__(self) -> None:
        choose(self.head, HEADS, "objective.head")
        kind = type(self.head_options)
        if f"{kind.__module__}:{kind.__name__}" != HEADS[self.head]:
            raise ConfigError(
                f"objective.head is {self.head!r}, but its options are a {kind.__name__}; make both by parse_options."
            )
        choose(self.evaluation, EVALUATIONS, "objective.evaluation")
        check_ranges(self, ("copy_paste",), 0, 1)
        for name in ("pasted", "eval_size", "stride"):
            object.__setattr__(self, name, integers(self, name))
        for name in ("eval_size", "stride"):
            values = getattr(self, name)
            if values and (len(values) != 2 or min(values) < 1):
                raise ConfigError(
                    f"objective.{name} is {values}; it must be two positive integers, or () to choose automatically."
                )
        if self.stride and self.evaluation != "slide":
            raise ConfigError(
                f"objective.stride is {self.stride}, but objective.evaluation is {self.evaluation!r}; set it to "
                "'slide' or leave stride out."
            )
        weights = self.class_weights
        good = isinstance(weights, list | tuple) and all(is_number(w) and 0 <= w < 1e6 for w in weights)
        if not good or (weights and not sum(weights)):
            raise ConfigError(
                f"objective.class_weights is {weights!r}; it must be one non-negative number per class, not all "
                "0, or () for none."
            )
        object.__setattr__(self, "class_weights", tuple(float(weight) for weight in weights))
        if bool(self.copy_paste) != bool(self.pasted):
            raise ConfigError(
                f"objective.copy_paste is {self.copy_paste} and objective.pasted {self.pasted}; give a chance above 0 "
                "and the classes whose pixels are pasted, or neither."
            )
        if self.calibrated and not (weights and min(weights) > 0):
            raise ConfigError(
                f"objective.calibrated is True, but objective.class_weights is {weights!r}; give a number above 0 for "
                "each class, or set calibrated=False."
            )
