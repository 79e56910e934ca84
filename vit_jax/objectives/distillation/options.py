"""What a configuration may say about distillation from a classifier; needs no jax, so mistakes are found at once."""

from dataclasses import dataclass
from typing import ClassVar

from vit_jax.data.section import LABELS
from vit_jax.errors import ConfigError, choose
from vit_jax.objectives.classification.options import ClassificationOptions
from vit_jax.objectives.teachers.options import check_source

KINDS = ("kl", "soft", "hard")


@dataclass(frozen=True)
class DistillationOptions(ClassificationOptions):
    """Classification with a teacher; all options of classification hold but `class_weights`.

    Attributes:
      teacher: a checkpoint of a classifier of any family, whatever `vit_jax.load` takes, with the data's classes.
      teacher_loss: `kl` (at a temperature), `soft` (the same divided by the number of classes, as DeiT's code has it)
        or `hard` (the teacher's best class as a label).
      teacher_weight: share of the teacher's loss; the rest is that of the labels. With 1 labels are not used.
      temperature: of `kl` and `soft`.
      teacher_size: pixels of the images that the teacher sees; 0 for those that it was made for. Another size than the
        student's is resized within the step, from the very pixels that the student sees.
      teacher_labels: `by-name` finds the data's classes among the teacher's by their names, and by their numbers where
        one side has none; `by-position` takes as many classes as they stand.
    """

    training: ClassVar[tuple[str, ...]] = ("class_weights", "teacher", "teacher_labels")

    teacher: str = ""
    teacher_loss: str = "kl"
    teacher_weight: float = 0.5
    temperature: float = 1.0
    teacher_size: int = 0
    teacher_labels: str = LABELS[0]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.teacher:  # which predictions do without; for training see `objective.Distillation.refuses`
            check_source("objective.teacher", self.teacher)
        choose(self.teacher_loss, KINDS, "objective.teacher_loss")
        choose(self.teacher_labels, LABELS, "objective.teacher_labels")
        if not 0 < self.teacher_weight <= 1:
            raise ConfigError(
                f"objective.teacher_weight is {self.teacher_weight}; it must be above 0 and at most 1; without a "
                "teacher choose objective.name='classification'."
            )
        if not 0 < self.temperature < float("inf"):
            raise ConfigError(f"objective.temperature is {self.temperature}; it must be above 0.")
        if self.teacher_loss == "hard" and self.temperature != 1:
            raise ConfigError(
                f"objective.temperature is {self.temperature}, but teacher_loss 'hard' has none; set temperature=1."
            )
        if self.teacher_size < 0:
            raise ConfigError(
                f"objective.teacher_size is {self.teacher_size}; it must be pixels, or 0 for the teacher's own."
            )
        if self.class_weights != "none":
            raise ConfigError(
                f"objective.class_weights is {self.class_weights!r}; the teacher's loss has no weights of classes; set "
                "class_weights='none'."
            )
