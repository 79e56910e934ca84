"""What a configuration may say about distillation of features; needs no jax, so mistakes are found at once."""

from dataclasses import dataclass
from typing import Any, ClassVar

from vit_jax.errors import ConfigError, choose
from vit_jax.objectives.option_checks import numbers
from vit_jax.objectives.teachers.options import check_source

FEATURES = ("pooled", "maps", "both")
LOSSES = ("cosine", "smooth_l1", "mse")
STANDARDS = ("phi_s", "scale", "layer_norm", "none")


@dataclass(frozen=True)
class FeatureDistillationOptions:
    """Learning the features of one or several frozen teachers, without labels.

    Attributes:
      teachers: a checkpoint of an image encoder, or several, whatever `vit_jax.load` takes.
      teacher_weights: how much each counts; empty for all alike.
      features: `pooled` (one row for an image), `maps` (one for each patch or place), or `both`, which count alike.
      level: which map of the student, by stride or name as `levels` has it; empty for its coarsest.
      teacher_levels: the same of each teacher; empty for the coarsest of each.
      loss: `cosine` (1 minus the cosine), `smooth_l1` (of each number, beta 1) or `mse`; the mean over all.
      standard: what is made of a teacher's features first: `phi_s` (their mean removed, turned so that all have the
        same variance, and scaled to 1), `scale` (the same without turning, which `mse` and `cosine` do not notice),
        `layer_norm` (each row to mean 0 and variance 1) or `none`.
      measured_steps: steps at the beginning in which `phi_s` and `scale` are measured, of the teacher's features of
        training data; what was measured so far is used meanwhile.
      hidden_dim: of the layer before each teacher's last one that takes the student's features to the teacher's; 0 for
        none, a linear map.
      teacher_size: pixels of the images that teachers see; 0 for those that each was made for. Another size than the
        student's is resized within the step, from the very pixels that the student sees.
    """

    training: ClassVar[tuple[str, ...]] = ()

    teachers: str | tuple[str, ...] = ""
    teacher_weights: tuple[float, ...] = ()
    features: str = "both"
    level: str | int = ""
    teacher_levels: tuple[str | int, ...] = ()
    loss: str = "cosine"
    standard: str = "phi_s"
    measured_steps: int = 50
    hidden_dim: int = 0
    teacher_size: int = 0

    def __post_init__(self) -> None:
        given: Any = (self.teachers,) if isinstance(self.teachers, str) and self.teachers else self.teachers
        if not isinstance(given, list | tuple) or not given:
            raise ConfigError(
                f"objective.teachers is {self.teachers!r}; it must be a checkpoint of an image encoder, or several: "
                "files, folders, workdirs, or names on the hub."
            )
        for source in given:
            check_source("objective.teachers", source)
        object.__setattr__(self, "teachers", tuple(given))
        choose(self.features, FEATURES, "objective.features")
        choose(self.loss, LOSSES, "objective.loss")
        choose(self.standard, STANDARDS, "objective.standard")
        if self.teacher_weights:
            weights = numbers(self, "teacher_weights", 0.0, "a number for each teacher, none below 0")
            object.__setattr__(self, "teacher_weights", weights)
        object.__setattr__(self, "level", _asked(self.level))
        object.__setattr__(self, "teacher_levels", tuple(map(_asked, self.teacher_levels)))
        for name in ("teacher_weights", "teacher_levels"):
            values = getattr(self, name)
            if values and len(values) != len(given):
                raise ConfigError(
                    f"objective.{name} has {len(values)} entries and objective.teachers {len(given)}; give one for "
                    "each, or none."
                )
        if self.teacher_weights and not sum(self.teacher_weights):
            raise ConfigError("objective.teacher_weights are all 0; nothing would be learned.")
        if self.features == "pooled" and (self.level != "" or self.teacher_levels):
            raise ConfigError(
                "objective.level and teacher_levels choose maps, but features is 'pooled'; choose features='maps' or "
                "'both'."
            )
        for name, low in (("measured_steps", 1), ("hidden_dim", 0), ("teacher_size", 0)):
            if getattr(self, name) < low:
                raise ConfigError(f"objective.{name} is {getattr(self, name)}; it must be at least {low}.")


def _asked(level: Any) -> Any:
    """Return a level as it is asked for; a stride may come as text, from the command line."""
    return int(level) if isinstance(level, str) and level.isdecimal() else level
