"""What a configuration may say about I-JEPA; needs no jax, so mistakes are found at once."""

from dataclasses import dataclass

from vit_jax.errors import ConfigError
from vit_jax.objectives.option_checks import check_ranges, interval


@dataclass(frozen=True)
class IJepaOptions:
    """I-JEPA (Assran et al. 2023, arXiv 2301.08243).

    Attributes:
      targets: how many blocks of each image are predicted.
      target_scale: share of the patches that such a block has, from and to.
      target_aspect: its height in widths, from and to.
      context_scale: share of the patches that the square block has which the context is what the targets leave of.
      context_ratio: share of the patches that the encoder sees of it, at most: others, drawn at random, are left out.
      predictor_width, predictor_depth, predictor_heads: size of the predictor; `predictor_heads` 0 means as many as the
        encoder has.
      momentum, momentum_end: share that stays of the target encoder in a step; it goes evenly from one to the other.
    """

    targets: int = 4
    target_scale: tuple[float, float] = (0.15, 0.2)
    target_aspect: tuple[float, float] = (0.75, 1.5)
    context_scale: tuple[float, float] = (0.85, 1.0)
    context_ratio: float = 0.27
    predictor_width: int = 384
    predictor_depth: int = 12
    predictor_heads: int = 0
    momentum: float = 0.996
    momentum_end: float = 1.0

    def __post_init__(self) -> None:
        for name, high in (("target_scale", 1), ("target_aspect", 10), ("context_scale", 1)):
            values = interval(self, name, 0, high)
            if not values[0] > 0:
                raise ConfigError(f"objective.{name} is {values}; both numbers must be above 0.")
            object.__setattr__(self, name, values)
        check_ranges(self, ("targets", "predictor_width", "predictor_depth"), 1, 2**20)
        check_ranges(self, ("predictor_heads",), 0, 2**20)
        check_ranges(self, ("context_ratio", "momentum", "momentum_end"), 0, 1)
        if self.predictor_width % 4:
            raise ConfigError(
                f"objective.predictor_width is {self.predictor_width}; it must be a multiple of 4, for its position "
                "embeddings."
            )
        if self.momentum_end < self.momentum:
            raise ConfigError(
                f"objective.momentum is {self.momentum} and momentum_end {self.momentum_end}; it must not go down."
            )
