"""What a dense prediction transformer is made of. Needs no jax.

Sources: Ranftl et al. 2021 (arXiv 2103.13413); Yang et al. 2024 (arXiv 2406.09414) for Depth Anything V2.
"""

from dataclasses import dataclass
from typing import Any

from vit_jax.errors import ConfigError, choose
from vit_jax.models.families import family_of
from vit_jax.models.family import Level
from vit_jax.models.heads.levels import tapped_levels
from vit_jax.models.heads.linear.config import NORMS
from vit_jax.models.layers.encoder_config import check_at_least, check_rates, check_types

READOUTS = ("ignore", "add", "project")
OUTPUTS = ("classes", "relu", "sigmoid")
MAPS = 4
FACTORS = (4, 2, 1, 0.5)  # how much larger the maps of a backbone are made that are all of one size


@dataclass(frozen=True)
class DptConfig:
    """A backbone whose four maps become a pyramid and are fused from the coarsest to the finest.

    Attributes:
      encoder: of images.
      num_classes: of a pixel; 1 for depth.
      output: what is predicted: `classes`, or a depth, `relu` (relative; inverse in published models) or `sigmoid`
        (metric), times `max_depth`.
      taps: the four maps that are taken, see `models.heads.levels`; empty for those of a backbone in stages.
      tap_norm: whether maps go through the encoder's final norm first (Depth Anything).
      readout: what becomes of the class token: `ignore` it, `add` it to each patch, or `project` both.
      widths: channels of the four maps of the pyramid, the finest first.
      channels: of the fusion.
      head_width: of the last but one convolution of a depth.
      max_depth: the largest depth that `sigmoid` can give; a factor of `relu`.
      fuse_to: each fusion ends with a map twice as large (`double`, DPT), or as large as the next of the pyramid
        (`next`, Depth Anything).
      norm: of the head of classes, `batch` or `layer`.
      dropout_rate: of channels, before the classes.
      auxiliary: whether a second head of classes, on the last fused map, is used in training.
    """

    encoder: Any
    num_classes: int = 150
    output: str = "classes"
    taps: tuple[int, ...] = ()
    tap_norm: bool = False
    readout: str = "ignore"
    widths: tuple[int, ...] = (96, 192, 384, 768)
    channels: int = 256
    head_width: int = 32
    max_depth: float = 1.0
    fuse_to: str = "double"
    norm: str = "batch"
    dropout_rate: float = 0.1
    auxiliary: bool = False

    def __post_init__(self) -> None:
        check_types(self)
        for field in ("taps", "widths"):
            object.__setattr__(self, field, tuple(getattr(self, field)))
        choose(self.output, OUTPUTS, "output")
        choose(self.readout, READOUTS, "readout")
        choose(self.fuse_to, ("double", "next"), "fuse_to")
        choose(self.norm, NORMS, "norm")
        check_at_least(self, 1, "num_classes", "widths", "head_width")
        check_at_least(self, 2, "channels")
        check_rates(self, "dropout_rate")
        if len(self.widths) != MAPS:
            raise ConfigError(f"widths is {self.widths}; it must be {MAPS} numbers, the finest map first.")
        if len(self.levels) != MAPS:
            raise ConfigError(
                f"taps is {self.taps}, which are {len(self.levels)} maps; it must be {MAPS} numbers, see "
                "`vit-jax models NAME`."
            )
        if not self.max_depth > 0:
            raise ConfigError(f"max_depth is {self.max_depth}; it must be above 0.")
        if self.output != "classes" and (self.num_classes != 1 or self.auxiliary):
            raise ConfigError(
                f"output is {self.output!r}, a depth; set num_classes to 1 and auxiliary to False."
            )
        token = getattr(self.encoder, "class_token", False)
        if self.readout != "ignore" and not token:
            raise ConfigError(
                f"readout is {self.readout!r}, but the backbone has no class token; set it to 'ignore'."
            )
        if self.tap_norm and getattr(self.encoder, "pool_norm", "none") != "before":
            raise ConfigError(
                "tap_norm needs a backbone with a final norm (pool_norm 'before'); set it to False."
            )

    @property
    def levels(self) -> tuple[Level, ...]:
        """The maps that are taken, in the order of the pyramid."""
        return tapped_levels(self.encoder, self.taps)

    @property
    def factors(self) -> tuple[float, ...]:
        """How much larger each map is made for the pyramid: not at all where a backbone gives one."""
        return FACTORS if len(family_of(self.encoder).levels(self.encoder)) == 1 else (1,) * MAPS

    @property
    def pyramid(self) -> list[tuple[int, int]]:
        """Rows and columns of the maps of the pyramid for images of the model's own size."""
        found = []
        for level, factor in zip(self.levels, self.factors):
            sides = (side * int(factor) if factor >= 1 else -(-side // 2) for side in level.grid)
            rows, columns = sides
            found.append((rows, columns))
        return found
