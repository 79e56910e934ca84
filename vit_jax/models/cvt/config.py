"""What a Convolutional vision Transformer is made of: configuration, sizes and names. Needs no jax.

Source: Wu et al. 2021 (arXiv 2103.15808), Table 2.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vit_jax.errors import ConfigError
from vit_jax.models.layers.encoder_config import EncoderConfig, check_at_least
from vit_jax.models.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from vit_jax.models.staged import StagedConfig, check_heads, check_stages

STAGES = 3  # of every published model
PREPROCESSING = Preprocessing(IMAGENET_MEAN, IMAGENET_STD, "bicubic", 0.875)


@dataclass(frozen=True)
class CvtConfig(StagedConfig):
    """Everything that defines a CvT; fields that are not here are those of `StagedConfig`.

    Attributes:
      widths: `d` of each stage.
      kernels, strides, pads: of the overlapping convolution that begins each stage, in height and in width.
      projection_kernel: places, in height and in width, of the depthwise convolutions before queries, keys and values.
      kv_stride: places from one key to the next.
      activation: `quick_gelu` in the authors' code, `gelu` in transformers.
      final_norm: whether the class token is normalised before the head; transformers' `CvtModel` leaves it as it is.
      frozen_statistics: take the running statistics of batch norms in training too, and leave them as they are.
      drop_path_rate: of the last block; it rises from 0 over the last stage, and there is none before.
    """

    norm_epsilon: float = 1e-5
    widths: tuple[int, ...] = (64, 192, 384)
    kernels: tuple[int, ...] = (7, 3, 3)
    strides: tuple[int, ...] = (4, 2, 2)
    pads: tuple[int, ...] = (2, 1, 1)
    projection_kernel: int = 3
    kv_stride: int = 2
    final_norm: bool = True
    frozen_statistics: bool = False
    preprocessing: Preprocessing = PREPROCESSING

    def __post_init__(self) -> None:
        super().__post_init__()
        check_stages(self, len(self.depths), "widths", "kernels", "strides", "pads")
        check_at_least(self, 1, "widths", "kernels", "strides", "projection_kernel", "kv_stride")
        check_at_least(self, 0, "pads")
        check_heads(self, *self.widths)
        if self.projection_kernel % 2 == 0:
            raise ConfigError(
                f"projection_kernel is {self.projection_kernel}; it must be odd, so that every place has a query."
            )
        if self.num_classes and not self.final_norm:
            raise ConfigError(
                "final_norm is False, but the head reads a normalised class token; set it to True."
            )
        self.grids(self.image_size)

    def stage(self, index: int) -> EncoderConfig:
        """Return what the blocks of a stage are made of."""
        last = index == len(self.depths) - 1
        rate = self.drop_path_rate if last else 0.0
        return self.blocks(self.widths[index], self.depths[index], drop_path_rate=rate)

    def grids(self, size: Sequence[int]) -> list[tuple[int, int]]:
        """Return rows and columns of each stage's map, of images of a size.

        Raises:
          ConfigError: the convolutions leave nothing of such an image.
        """
        found, sides = [], (size[0], size[1])
        for kernel, stride, pad in zip(self.kernels, self.strides, self.pads):
            sides = tuple((side + 2 * pad - kernel) // stride + 1 for side in sides)
            if any(side < 1 for side in sides):  # not `min`: sides may be symbols
                least = max(self.kernels[0] - 2 * self.pads[0], 1)
                raise ConfigError(
                    f"images of {size[0]}x{size[1]} pixels are too small, since the convolutions leave nothing of "
                    f"them; give images of at least {least}x{least}."
                )
            found.append(sides)
        return found

    def keys(self, grid: tuple[int, int]) -> tuple[int, int]:
        """Return rows and columns of keys on a grid of queries."""
        return -(-grid[0] // self.kv_stride), -(-grid[1] // self.kv_stride)

    @property
    def output_width(self) -> int:
        """Width of the output: classes, or the class token where there is no head."""
        return self.num_classes or self.widths[-1]


SIZES: dict[str, dict[str, Any]] = {
    "13": dict(widths=(64, 192, 384), depths=(1, 2, 10)),
    "21": dict(widths=(64, 192, 384), depths=(1, 4, 16)),
    "w24": dict(widths=(192, 768, 1024), depths=(2, 2, 20)),
}
