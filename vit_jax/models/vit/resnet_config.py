"""What the convolutional front of a hybrid is made of. Needs no jax."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from vit_jax.errors import ConfigError, choose, nearest
from vit_jax.models.layers.encoder_config import check_at_least, check_types


@dataclass(frozen=True)
class ResNetConfig:
    """A ResNet without its head, in front of a Vision Transformer (Dosovitskiy et al. 2020, arXiv 2010.11929).

    Attributes:
      depths: units of each stage; the stem alone for none.
      channels: output channels of each stage.
      stem_channels: output channels of the 7x7 convolution.
      numerics: `google` or `timm`: they add other epsilons where weights are standardised and groups normalised.
    """

    depths: tuple[int, ...] = ()
    channels: tuple[int, ...] = ()
    stem_channels: int = 64
    numerics: str = "google"

    def __post_init__(self) -> None:
        check_types(self)
        for field in ("depths", "channels"):
            object.__setattr__(self, field, tuple(getattr(self, field)))
        choose(self.numerics, ("google", "timm"), "numerics")
        check_at_least(self, 1, "depths", "channels", "stem_channels")
        if len(self.depths) != len(self.channels):
            raise ConfigError(
                f"backbone has {len(self.depths)} depths and {len(self.channels)} channels; each stage needs both."
            )
        if self.stem_channels % 32 or any(channels % 128 for channels in self.channels):
            raise ConfigError(
                f"backbone has {self.stem_channels} stem_channels and channels {self.channels}; group norm needs "
                "multiples of 32 in the stem and of 128 after it."
            )

    @property
    def stride(self) -> int:
        """Pixels, in height and in width, that one output position covers."""
        return 4 * 2 ** max(0, len(self.depths) - 1)

    @property
    def out_channels(self) -> int:
        """Channels of the output."""
        return self.channels[-1] if self.channels else self.stem_channels


def backbone(value: Any) -> ResNetConfig | None:
    """Return a ResNetConfig or None as it is, or one made of a dict as read from JSON; else raise ConfigError."""
    if value is None or isinstance(value, ResNetConfig):
        return value
    names = [field.name for field in dataclasses.fields(ResNetConfig)]
    if not isinstance(value, dict):
        raise ConfigError(f"backbone is {value!r}; it must be None, a ResNetConfig or a dict of its fields.")
    for name in value:
        if name not in names:
            raise ConfigError(f"backbone has no {name!r}; it has {', '.join(names)}.{nearest(name, names)}")
    try:
        return ResNetConfig(**value)
    except ConfigError as error:
        raise ConfigError(f"backbone: {error}") from None
