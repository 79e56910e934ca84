"""What a residual network is made of: configuration and sizes. Needs no jax.

Sources: He et al. 2015 (arXiv 1512.03385), Table 1; Zagoruyko and Komodakis 2016 (arXiv 1605.07146) for wide ones; Xie
et al. 2016 (arXiv 1611.05431) for groups.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from vit_jax.errors import ConfigError, choose
from vit_jax.models.layers.encoder_config import CHOICES, check_at_least, check_types
from vit_jax.models.layers.pixels.sizes import pair
from vit_jax.models.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing, as_preprocessing
from vit_jax.models.problem import PROBLEMS

PREPROCESSING = Preprocessing(IMAGENET_MEAN, IMAGENET_STD, "bilinear", 0.875)
EXPANSION = {"basic": 1, "bottleneck": 4}  # channels of a block's output for each of its width
STRIDE = 4  # pixels of a place of the first stage; each of the others has half as many places


@dataclass(frozen=True)
class Convolution:
    """One convolution, which a batch norm follows.

    Attributes:
      size: of the kernel, in height and in width.
      inputs, outputs: channels.
      stride: places from one window to the next.
      groups: of channels that do not see each other.
    """

    size: int
    inputs: int
    outputs: int
    stride: int = 1
    groups: int = 1


@dataclass(frozen=True)
class ResNetConfig:
    """Everything that defines a ResNet with batch norms, in the form of torchvision and timm.

    The 3x3 convolution of a bottleneck has the stride, where the paper gave it to the one before.

    Attributes:
      image_size: height and width in pixels.
      in_channels: channels of the input images.
      num_classes: size of the head; 0 for none.
      problem: what the outputs mean, see `ViTConfig`.
      block: `basic`, two 3x3 convolutions, or `bottleneck`, 1x1, 3x3 and 1x1.
      depths: blocks of each stage.
      widths: of each stage; a bottleneck's output has four times as many channels.
      stem_width: channels of the 7x7 convolution.
      width_factor: of the inner channels of bottlenecks (wide ones 2; 32 groups of 4 channels at width 64: 2).
      groups: of their 3x3 convolutions.
      frozen_statistics: take the running statistics of batch norms in training too, and leave them as they are.
      norm_epsilon: added to variances.
      dtype: of computation.
      preprocessing: how images become inputs; travels with the weights.
    """

    image_size: tuple[int, int] = (224, 224)
    in_channels: int = 3
    num_classes: int = 1000
    problem: str = "single_label"
    block: str = "bottleneck"
    depths: tuple[int, ...] = (3, 4, 6, 3)
    widths: tuple[int, ...] = (64, 128, 256, 512)
    stem_width: int = 64
    width_factor: int = 1
    groups: int = 1
    frozen_statistics: bool = False
    norm_epsilon: float = 1e-5
    dtype: str = "float32"
    preprocessing: Preprocessing = PREPROCESSING

    def __post_init__(self) -> None:
        object.__setattr__(self, "image_size", pair(self.image_size, "image_size"))
        object.__setattr__(self, "preprocessing", as_preprocessing(self.preprocessing))
        check_types(self)
        for field in ("depths", "widths"):
            object.__setattr__(self, field, tuple(getattr(self, field)))
        choose(self.block, EXPANSION, "block")
        choose(self.dtype, CHOICES["dtype"], "dtype")
        choose(self.problem, PROBLEMS, "problem")
        if self.num_classes == 1 and self.problem == "single_label":
            object.__setattr__(self, "problem", "multi_label")
        check_at_least(self, 1, "in_channels", "depths", "widths", "stem_width", "width_factor", "groups")
        check_at_least(self, 0, "num_classes")
        if not self.depths or len(self.depths) != len(self.widths):
            raise ConfigError(
                f"depths is {self.depths} and widths {self.widths}; give one number of each for every stage."
            )
        if not self.norm_epsilon > 0:
            raise ConfigError(f"norm_epsilon is {self.norm_epsilon}; it must be above 0.")
        if self.block == "basic" and (self.groups, self.width_factor) != (1, 1):
            raise ConfigError(
                "groups and width_factor are of bottlenecks; set them to 1, or block to 'bottleneck'."
            )
        for width in self.widths:
            if width * self.width_factor % self.groups:
                raise ConfigError(
                    f"groups is {self.groups}, which does not divide {width * self.width_factor} channels; choose "
                    "another."
                )

    @property
    def stem(self) -> Convolution:
        """The first convolution, which max pooling follows."""
        return Convolution(7, self.in_channels, self.stem_width, 2)

    def blocks(self) -> Iterator[tuple[int, list[Convolution], Convolution | None]]:
        """Yield the stage, the convolutions, and that of the shortcut, if it has one, of each block in order."""
        channels = self.stem_width
        for stage, (depth, width) in enumerate(zip(self.depths, self.widths)):
            outputs = width * EXPANSION[self.block]
            for number in range(depth):
                stride = 2 if stage and not number else 1
                projected = stride > 1 or channels != outputs
                shortcut = Convolution(1, channels, outputs, stride) if projected else None
                yield stage, self._layers(channels, width, stride), shortcut
                channels = outputs

    def _layers(self, channels: int, width: int, stride: int) -> list[Convolution]:
        if self.block == "basic":
            return [Convolution(3, channels, width, stride), Convolution(3, width, width)]
        inner = width * self.width_factor
        return [
            Convolution(1, channels, inner),
            Convolution(3, inner, inner, stride, self.groups),
            Convolution(1, inner, width * EXPANSION[self.block]),
        ]

    def grid(self, stage: int) -> tuple[int, int]:
        """Return rows and columns of a stage's map for images of the model's own size."""
        step = STRIDE * 2**stage
        height, width = self.image_size
        return -(-height // step), -(-width // step)

    @property
    def feature_width(self) -> int:
        """Channels of the last map."""
        return self.widths[-1] * EXPANSION[self.block]

    @property
    def output_width(self) -> int:
        """Width of the output: classes, or features where there is no head."""
        return self.num_classes or self.feature_width

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of an image: height, width, channels."""
        return *self.image_size, self.in_channels


SIZES: dict[str, dict[str, Any]] = {
    "resnet18": dict(block="basic", depths=(2, 2, 2, 2)),
    "resnet34": dict(block="basic", depths=(3, 4, 6, 3)),
    "resnet26": dict(depths=(2, 2, 2, 2)),
    "resnet50": dict(depths=(3, 4, 6, 3)),
    "resnet101": dict(depths=(3, 4, 23, 3)),
    "resnet152": dict(depths=(3, 8, 36, 3)),
    "wide_resnet50_2": dict(depths=(3, 4, 6, 3), width_factor=2),
    "wide_resnet101_2": dict(depths=(3, 4, 23, 3), width_factor=2),
    "resnext50_32x4d": dict(depths=(3, 4, 6, 3), width_factor=2, groups=32),
    "resnext101_32x4d": dict(depths=(3, 4, 23, 3), width_factor=2, groups=32),
    "resnext101_32x8d": dict(depths=(3, 4, 23, 3), width_factor=4, groups=32),
    "resnext101_64x4d": dict(depths=(3, 4, 23, 3), width_factor=4, groups=64),
}
