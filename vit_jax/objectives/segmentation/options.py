"""What a configuration may say about semantic segmentation; needs no jax, so mistakes are found at once."""

from dataclasses import dataclass
from typing import ClassVar

from vit_jax.errors import ConfigError, choose
from vit_jax.models.heads.linear_seg_config import NORMS
from vit_jax.objectives.option_checks import check_ranges, is_number

# And the options that each has alone.
HEADS = {"linear": ("cells", "detail"), "upernet": ("channels", "auxiliary_channels", "auxiliary_weight")}
EVALUATIONS = ("whole", "slide")


@dataclass(frozen=True)
class SegmentationOptions:
    """A class for each pixel: cross-entropy over the pixels whose class is known.

    Attributes:
      head: `linear` (DINOv2, arXiv 2304.07193) or `upernet` (Xiao et al. 2018, arXiv 1807.10221).
      taps: the maps of the backbone that the head takes: of a ViT how many blocks stand before each, of a backbone with
        maps of several sizes their numbers; empty for what suits the head.
      norm: of the head, `batch` or `layer`; batch norm needs the whole batch at once.
      dropout: share of the head's channels that are dropped in training.
      cells: of the linear head, rows and columns of logits for each place of the map.
      detail: of the linear head, whether logits of single pixels are added, from the convolutions before the patches.
      channels: of UPerNet's decoder; 0 for those of the last map.
      auxiliary_channels: of UPerNet's second head, used in training alone; 0 for none.
      auxiliary_weight: of its loss.
      class_weights: of the pixels of each class in the loss; empty for the same.
      calibrated: the weights make rare classes learned sooner and do not make them predicted more often: logits are
        those of pixels as they are.
      copy_paste: chance that an image, in training, gets the pixels of some classes of another one of the batch (Ghiasi
        et al. 2021, arXiv 2012.07177).
      pasted: the classes, by number, whose pixels those are.
      evaluation: `whole` images, or windows of the model's size that `slide` over larger ones and are averaged.
      eval_size: height and width of images in evaluation; empty for the model's.
      stride: from one window to the next, down and across; empty for two thirds of a window.
    """

    # Need not go with other data.
    training: ClassVar[tuple[str, ...]] = ("class_weights", "calibrated", "copy_paste", "pasted")

    head: str = "linear"
    taps: tuple[int, ...] = ()
    norm: str = "batch"
    dropout: float = 0.1
    cells: int = 1
    detail: bool = False
    channels: int = 512
    auxiliary_channels: int = 256
    auxiliary_weight: float = 0.4
    class_weights: tuple[float, ...] = ()
    calibrated: bool = False
    copy_paste: float = 0.0
    pasted: tuple[int, ...] = ()
    evaluation: str = "whole"
    eval_size: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        choose(self.head, HEADS, "objective.head")
        choose(self.norm, NORMS, "objective.norm")
        choose(self.evaluation, EVALUATIONS, "objective.evaluation")
        for head, names in HEADS.items():
            for name in names:
                value = getattr(self, name)
                if head != self.head and value != type(self).__dataclass_fields__[name].default:
                    raise ConfigError(
                        f"objective.{name} is {value!r}, but objective.head is {self.head!r}; leave it out, or set "
                        f"objective.head={head!r}."
                    )
        check_ranges(self, ("dropout",), 0, 0.999)
        check_ranges(self, ("cells",), 1, 64)
        check_ranges(self, ("channels", "auxiliary_channels"), 0, 2**16)
        check_ranges(self, ("auxiliary_weight",), 0, 1000)
        check_ranges(self, ("copy_paste",), 0, 1)
        for name in ("taps", "pasted", "eval_size", "stride"):
            object.__setattr__(self, name, self._integers(name))
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

    def _integers(self, name: str) -> tuple[int, ...]:
        values = getattr(self, name)
        if not isinstance(values, list | tuple) or not all(
            isinstance(value, int) and not isinstance(value, bool) for value in values
        ):
            raise ConfigError(f"objective.{name} is {values!r}; it must be a list of integers.")
        return tuple(values)
