"""What a masked autoencoder is made of. Needs no jax."""

from dataclasses import dataclass

from vit_jax.errors import ConfigError
from vit_jax.models.family import Autoencoder
from vit_jax.models.layers.encoder_config import check_parts, replace
from vit_jax.models.vit.config import ViTConfig


@dataclass(frozen=True)
class MaeConfig:
    """A masked autoencoder (He et al. 2021, arXiv 2111.06377).

    Attributes:
      encoder: sees the visible patches.
      decoder: its head predicts the pixels of every patch.
    """

    encoder: ViTConfig
    decoder: ViTConfig

    def __post_init__(self) -> None:
        check_parts(self, encoder=ViTConfig, decoder=ViTConfig)
        needed = {
            "rope": "none",
            "position_bias": "none",
            "backbone": None,
            "stem_strides": (),
            "patch_drop_rate": 0,
            "merge_tokens": (),
            "patch_sizes": (),
        }
        needed |= {"distillation_token": False, "pool_norm": "before"}
        for part, config in (("encoder", self.encoder), ("decoder", self.decoder)):
            for field, value in needed.items():
                if getattr(config, field) != value:
                    raise ConfigError(
                        f"the {part} of a masked autoencoder has {field} {getattr(config, field)!r}; it must be "
                        f"{value!r}."
                    )
        for field in ("grid", "class_token"):
            ours, theirs = getattr(self.encoder, field), getattr(self.decoder, field)
            if ours != theirs:
                raise ConfigError(
                    f"a masked autoencoder's encoder has {field} {ours} and its decoder {theirs}; they must be equal."
                )

    @property
    def units(self) -> int:
        """Number of patches, each of which is hidden or not."""
        return self.encoder.num_patches

    @property
    def patch_size(self) -> tuple[int, int]:
        """Height and width of the pixels that the decoder predicts of a token."""
        return self.decoder.patch_size

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of these."""
        return self.decoder.grid


def mae_encoder_config(config: ViTConfig) -> ViTConfig:
    """Return `config` as an MAE encoder: fixed positions, a class token, all tokens out, no head."""
    return replace(
        config,
        position="sincos2d_mae",
        class_token=True,
        pool="none",
        pool_norm="before",
        num_classes=0,
        representation_size=0,
    )


def _whole(encoder: ViTConfig, **decoder: int) -> MaeConfig:
    return MaeConfig(encoder, replace(encoder, **decoder, drop_path_rate=0.0, stem=()))


AUTOENCODER = Autoencoder(mae_encoder_config, _whole)
