"""What a configuration may say about joint embedding; needs no jax, so mistakes are found at once.

Each method has its own defaults, those it was published with. What it is made of is said by its class.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, NamedTuple

from vit_jax.errors import ConfigError, choose
from vit_jax.objectives.option_checks import check_ranges, is_number


class Widths(NamedTuple):
    """What a projector or predictor is made of, see `models.heads.projector`."""

    sizes: tuple[int, ...]
    last_norm: bool = False

    @property
    def macs(self) -> int:
        """Multiplications of one row."""
        return sum(i * o for i, o in pairwise(self.sizes))


@dataclass(frozen=True)
class ViewsOptions:
    """What all methods have: a projector on the encoder.

    Attributes:
      hidden_dim: width of the projector's hidden layers.
      hidden_layers: how many there are.
      output_dim: width of the projections that are compared.
      last_norm: the projector ends with a batch normalisation.
    """

    pair: ClassVar[bool] = True  # it compares two global crops; others any number, local ones too
    together: ClassVar[bool] = False  # batches are normalised over all views, not each view's own
    teaches: ClassVar[bool] = False  # targets come from a moving average
    predictor: ClassVar[Widths | None] = None

    hidden_dim: int = 2048
    hidden_layers: int = 2
    output_dim: int = 2048
    last_norm: bool = False

    def __post_init__(self) -> None:
        check_ranges(self, ("hidden_dim", "output_dim"), 1, 2**20)
        check_ranges(self, ("hidden_layers",), 0, 16)

    def projector(self, width: int) -> Widths:
        """Return the projector on features of a width."""
        return Widths((width, *[self.hidden_dim] * self.hidden_layers, self.output_dim), self.last_norm)

    def checked(self, name: str, count: int) -> None:
        """Make an option a tuple of so many weights, or raise `ConfigError`."""
        values = getattr(self, name)
        good = isinstance(values, list | tuple) and len(values) == count
        if not good or not all(is_number(value) and 0 <= value <= 1e6 for value in values):
            raise ConfigError(f"objective.{name} is {values!r}; it must be {count} numbers from 0 to 1e6.")
        object.__setattr__(self, name, tuple(map(float, values)))


@dataclass(frozen=True)
class LejepaOptions(ViewsOptions):
    """LeJEPA (Balestriero & LeCun 2025, arXiv 2511.08544): projections that agree and are normally distributed.

    Attributes:
      weight: of the distribution (SIGReg); agreement has the rest.
      directions: along which the distribution is looked at, new ones in each step.
      around: views agree with the mean of the `global` ones, or of `all`.
    """

    pair: ClassVar[bool] = False
    together: ClassVar[bool] = True

    output_dim: int = 16
    weight: float = 0.02
    directions: int = 256
    around: str = "all"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, ("weight",), 0, 1)
        check_ranges(self, ("directions",), 1, 2**20)
        choose(self.around, ("all", "global"), "objective.around")


@dataclass(frozen=True)
class VisregOptions(LejepaOptions):
    """VISReg (Wu et al. 2026, arXiv 2606.02572): LeJEPA with a distribution whose gradient stays in a collapse.

    Attributes:
      weights: of deviation, shape and mean of the distribution.
    """

    weight: float = 0.9
    directions: int = 4096
    around: str = "global"
    weights: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.checked("weights", 3)


@dataclass(frozen=True)
class VicregOptions(ViewsOptions):
    """VICReg (Bardes et al. 2021, arXiv 2105.04906).

    Attributes:
      weights: of invariance, variance and covariance.
    """

    hidden_dim: int = 8192
    output_dim: int = 8192
    weights: tuple[float, float, float] = (25.0, 25.0, 1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.checked("weights", 3)


@dataclass(frozen=True)
class BarlowTwinsOptions(ViewsOptions):
    """Barlow Twins (Zbontar et al. 2021, arXiv 2103.03230).

    Attributes:
      weight: of the correlations of different features.
    """

    hidden_dim: int = 8192
    output_dim: int = 8192
    weight: float = 5e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, ("weight",), 0, 1e6)


@dataclass(frozen=True)
class SimclrOptions(ViewsOptions):
    """SimCLR (Chen et al. 2020, arXiv 2002.05709).

    Attributes:
      temperature: of the cosines.
    """

    together: ClassVar[bool] = True

    hidden_layers: int = 1
    output_dim: int = 128
    last_norm: bool = True
    temperature: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, ("temperature",), 1e-3, 10)


@dataclass(frozen=True)
class SimsiamOptions(ViewsOptions):
    """SimSiam (Chen & He 2020, arXiv 2011.10566).

    Attributes:
      predictor_dim: width of the predictor's hidden layer.
    """

    last_norm: bool = True
    predictor_dim: int = 512

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, ("predictor_dim",), 1, 2**20)

    @property
    def predictor(self) -> Widths:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The predictor."""
        return Widths((self.output_dim, self.predictor_dim, self.output_dim))


@dataclass(frozen=True)
class ByolOptions(SimsiamOptions):
    """BYOL (Grill et al. 2020, arXiv 2006.07733): targets of a teacher that follows.

    Attributes:
      momentum, last_momentum: share of the old teacher in the first step and at the end, along half a cosine.
    """

    teaches: ClassVar[bool] = True

    hidden_dim: int = 4096
    hidden_layers: int = 1
    output_dim: int = 256
    last_norm: bool = False
    predictor_dim: int = 4096
    momentum: float = 0.996
    last_momentum: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, ("momentum", "last_momentum"), 0, 1)


@dataclass(frozen=True)
class MocoV3Options(ByolOptions):
    """MoCo v3 (Chen et al. 2021, arXiv 2104.02057): a teacher's projections of the batch are keys, without a queue.

    Attributes:
      temperature: of the cosines.
    """

    hidden_layers: int = 2
    last_norm: bool = True
    momentum: float = 0.99
    temperature: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, ("temperature",), 1e-3, 10)

    @property
    def predictor(self) -> Widths:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The predictor, which ends with a batch normalisation too."""
        return Widths((self.output_dim, self.predictor_dim, self.output_dim), last_norm=True)
