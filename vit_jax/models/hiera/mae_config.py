"""What a masked autoencoder with a Hiera is made of. Needs no jax."""

from dataclasses import dataclass

from vit_jax.errors import ConfigError
from vit_jax.models.family import Autoencoder
from vit_jax.models.hiera.config import HieraConfig
from vit_jax.models.layers.encoder_config import EncoderConfig, check_parts, check_types, replace


@dataclass(frozen=True)
class HieraMaeConfig:
    """A masked autoencoder with a Hiera (Ryali et al. 2023, arXiv 2306.00989), which hides whole mask units.

    Attributes:
      encoder: sees the visible mask units.
      decoder_width, decoder_depth, decoder_heads, decoder_mlp_dim: of the plain blocks that see all last tokens.
    """

    encoder: HieraConfig
    decoder_width: int = 512
    decoder_depth: int = 8
    decoder_heads: int = 16
    decoder_mlp_dim: int = 2048

    def __post_init__(self) -> None:
        check_parts(self, encoder=HieraConfig)
        check_types(self)
        needed = {"num_classes": 0, "pool_norm": True, "reordered": True}
        for field, value in needed.items():
            if getattr(self.encoder, field) != value:
                raise ConfigError(
                    f"the encoder of a masked autoencoder has {field} {getattr(self.encoder, field)!r}; it must be "
                    f"{value!r}."
                )
        if self.encoder.mask_unit < 2**self.encoder.pooled_stages:
            raise ConfigError(
                f"mask_unit is {self.encoder.mask_unit}, but {self.encoder.pooled_stages} pooled_stages pool tokens of "
                "several mask units to one, of which some are hidden; choose a larger unit or fewer such stages."
            )
        check_types(self.decoder)

    @property
    def decoder(self) -> EncoderConfig:
        """The decoder's blocks, whose options are the encoder's."""
        blocks = self.encoder.stages[0].blocks
        return replace(
            blocks,
            width=self.decoder_width,
            depth=self.decoder_depth,
            heads=self.decoder_heads,
            mlp_dim=self.decoder_mlp_dim,
            drop_path_rate=0.0,
            layer_scale=None,
        )

    @property
    def unit_grid(self) -> tuple[int, int]:
        """Rows and columns of mask units."""
        (h, w), side = self.encoder.grid, self.encoder.mask_unit
        return h // side, w // side

    @property
    def units(self) -> int:
        """Number of mask units, each of which is hidden or not."""
        return self.unit_grid[0] * self.unit_grid[1]

    @property
    def patch_size(self) -> tuple[int, int]:
        """Height and width of the pixels that one of the last tokens predicts."""
        side = self.encoder.patch_stride * 2**self.encoder.pooled_stages
        return side, side

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the last tokens."""
        (h, w), (p, q) = self.encoder.image_size, self.patch_size
        return h // p, w // q

    @property
    def fused(self) -> tuple[tuple[int, int], ...]:
        """Of the stages before each pooling, whose tokens join the last: side of the squares that become one, width."""
        pools = self.encoder.pooled_stages
        return tuple(
            (2 ** (pools - i), stage.blocks.width) for i, stage in enumerate(self.encoder.stages[:pools])
        )


def _whole(encoder: HieraConfig, width: int, depth: int, heads: int, mlp_dim: int) -> HieraMaeConfig:
    return HieraMaeConfig(encoder, width, depth, heads, mlp_dim)


# Its norm is behind what all stages say together.
AUTOENCODER = Autoencoder(lambda config: replace(config, num_classes=0, pool_norm=True), _whole)
