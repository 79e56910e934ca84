"""What a configuration may say about regression; needs no jax, so mistakes are found at once."""

from dataclasses import dataclass

from vit_jax.errors import ConfigError, choose
from vit_jax.objectives.option_checks import check_ranges, numbers

LOSSES = ("mse", "l1", "huber")


@dataclass(frozen=True)
class RegressionOptions:
    """One or several values an image.

    Attributes:
      loss: `mse` (squared error), `l1` (absolute error) or `huber`, of scaled values; the mean over all that are known.
      delta: of `huber`: errors above it, in scaled values, pull no harder than it.
      scaling: what the model's outputs are: `standard` (values less their mean in the training records, over their
        standard deviation), `none` (values as they are), or `given`, by `mean` and `std`. Predictions and metrics are
        in the values' own units either way.
      mean, std: one number for each value, with scaling `given`.
      units: of the values, for what is printed; one text for each.
    """

    loss: str = "mse"
    delta: float = 1.0
    scaling: str = "standard"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    units: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        choose(self.loss, LOSSES, "objective.loss")
        choose(self.scaling, ("standard", "none", "given"), "objective.scaling")
        check_ranges(self, ("delta",), 1e-6, 1e6)
        for name in ("mean", "std"):
            if (self.scaling == "given") != bool(getattr(self, name)):
                raise ConfigError(
                    f"objective.scaling is {self.scaling!r} and objective.{name} is {getattr(self, name)!r}; give "
                    "both mean and std with scaling 'given', and neither with any other scaling."
                )
        if self.scaling == "given":
            for name in ("mean", "std"):
                low = None if name == "mean" else 0
                given = numbers(self, name, low, f"one number{' above 0' * (name == 'std')} per value")
                object.__setattr__(self, name, given)
            if len(self.mean) != len(self.std) or min(self.std) <= 0:
                raise ConfigError(
                    f"objective.mean is {self.mean} and objective.std is {self.std}; they must have the same "
                    "length, and std must be above 0."
                )
        listed = isinstance(self.units, list | tuple)
        if not listed or not all(isinstance(unit, str) for unit in self.units):
            raise ConfigError(
                f"objective.units is {self.units!r}; it must be a tuple of strings, one per value."
            )
        object.__setattr__(self, "units", tuple(self.units))
