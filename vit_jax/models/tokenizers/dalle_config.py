"""What the tokenizer of DALL-E is made of (Ramesh et al. 2021, arXiv 2102.12092). Needs no jax."""

from dataclasses import dataclass

from vit_jax.models.layers.encoder_config import check_at_least, check_types
from vit_jax.models.preprocessing import Preprocessing

# Pixels from 0 to 1 become 0.8 x + 0.1.
PREPROCESSING = Preprocessing(mean=(-0.125,) * 3, std=(1.25,) * 3, interpolation="lanczos", crop=1.0)
GROUPS = 4


@dataclass(frozen=True)
class DalleEncoderConfig:
    """The encoder of DALL-E's discrete autoencoder.

    Attributes:
      hidden: channels of the first group; each later one has twice those of the one before.
      blocks: residual blocks of each of the four groups.
      in_channels: channels of the images.
      vocabulary: number of codes.
      dtype: what it computes in.
      preprocessing: how images become inputs.
    """

    hidden: int = 256
    blocks: int = 2
    in_channels: int = 3
    vocabulary: int = 8192
    dtype: str = "float32"
    preprocessing: Preprocessing = PREPROCESSING

    def __post_init__(self) -> None:
        check_types(self)
        check_at_least(self, 1, "blocks", "in_channels")
        check_at_least(self, 2, "vocabulary")
        check_at_least(self, 4, "hidden")

    @property
    def image_size(self) -> None:
        """None: it takes any whose sides are multiples of `stride`."""
        return

    @property
    def stride(self) -> tuple[int, int]:
        """Height and width of the pixels that have a code."""
        return 8, 8

    @property
    def widths(self) -> tuple[tuple[int, int], ...]:
        """Channels that go into each block, and that come out."""
        outputs = [self.hidden * 2**group for group in range(GROUPS) for _ in range(self.blocks)]
        return tuple(zip([self.hidden, *outputs], outputs))

    @property
    def kernels(self) -> list[tuple[int, int, int]]:
        """Side, inputs and outputs of every convolution; those that change the number of channels are last."""
        sizes = [(7, self.in_channels, self.hidden), (1, self.widths[-1][1], self.vocabulary)]
        for inputs, outputs in self.widths:
            inner = outputs // 4
            sizes += [(3, inputs, inner), (3, inner, inner), (3, inner, inner), (1, inner, outputs)]
        return sizes + [(1, inputs, outputs) for inputs, outputs in self.widths if inputs != outputs]

    def code_macs(self, codes: int) -> int:
        """Return the multiply-adds of an image that has so many codes."""
        first, last, *_ = self.kernels
        pixels = codes * self.stride[0] * self.stride[1]
        count = pixels * first[0] ** 2 * first[1] * first[2] + codes * last[1] * last[2]
        for block, (inputs, outputs) in enumerate(self.widths):
            inner, smaller = outputs // 4, 4 ** (block // self.blocks)
            each = (
                9 * inputs * inner + 18 * inner**2 + inner * outputs + inputs * outputs * (inputs != outputs)
            )
            count += pixels // smaller * each
        return count
