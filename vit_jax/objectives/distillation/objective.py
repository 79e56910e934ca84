"""Classification with a teacher: what it says of an image is learned beside the image's label."""

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import replace as changed
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp

from vit_jax.errors import ConfigError
from vit_jax.models.families import family_of
from vit_jax.models.flops import forward_flops
from vit_jax.objectives.classification.objective import Classification
from vit_jax.objectives.distillation.losses import LOSSES
from vit_jax.objectives.distillation.options import DistillationOptions
from vit_jax.objectives.protocol import Batch, Buffers, Constant, DataInfo, LossOutput, Moment, Params
from vit_jax.objectives.teachers.frozen import FrozenTeacher, open_classifier

TEACHER = "teacher"


@dataclass(frozen=True)
class Distillation(Classification):
    """Cross-entropy of labels, and a teacher's logits of the same pixels: mixed, erased, cropped alike.

    Sources: Hinton et al. 2015, arXiv 1503.02531; DeiT (Touvron et al. 2020, arXiv 2012.12877), whose distillation
    token, where a model has one, learns from the teacher and its class token from labels; the patient and consistent
    teacher of Beyer et al. 2021, arXiv 2106.05237: no labels, much mixing, a long schedule.

    Attributes:
      options: of classification, and of the teacher.
      moment: where a run stands; it brings the teacher's parameters.
    """

    options: DistillationOptions  # pyright: ignore[reportIncompatibleVariableOverride]
    moment: Moment | None = None

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.model, self.options, self.data)

    @property
    def any_shape(self) -> bool:
        """The teacher takes images of one shape."""
        return False

    @cached_property
    def teacher(self) -> FrozenTeacher:
        """The teacher; its checkpoint is opened when it is first asked for, which predictions never do."""
        options = self.options
        return open_classifier(
            "objective.teacher",
            options.teacher,
            self.model,
            self.data,
            options.teacher_labels,
            options.teacher_size,
        )

    @property
    def train_flops(self) -> float:
        """Floating-point operations of the student's forward and backward and the teacher's forward for one image."""
        taught = forward_flops(self.teacher.config) if self.options.teacher else 0
        return super().train_flops + taught

    def constants(self) -> Mapping[str, Constant]:
        """Return the teacher; nothing where none is needed."""
        return {TEACHER: self.teacher.constant} if self.options.teacher else {}

    def refuses(self, config: Any) -> None:
        """Raise ConfigError for training without a teacher."""
        if not self.options.teacher:
            raise ConfigError(
                "objective.teacher is ''; it must be the checkpoint of a classifier of the data's classes: a file, "
                "folder, workdir, or a name on the hub."
            )

    def at(self, moment: Moment) -> "Distillation":
        """Return the objective at a moment of a run."""
        return changed(self, moment=moment)

    def loss(
        self, params: Params, buffers: Buffers, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, LossOutput]:
        """Return the mean loss; metrics are its two parts, and how often student and teacher are right and agree."""
        assert self.moment is not None
        options, images = self.options, batch["image"]
        heads = family_of(self.model).two_heads(self.model)
        call, buffers = self.functions.apply_state(params, buffers, images, key, capture=heads or ())
        if heads is None:
            logits = own = taught = call
        else:
            logits, found = call
            own, taught = (found[name] for name in heads)
        teacher = self.teacher
        said = teacher(self.moment.constants[TEACHER], teacher.sees(images, self.model.preprocessing))
        labels = self._losses(own, batch["target"]).mean()
        taught_loss = LOSSES[options.teacher_loss](taught, said, options.temperature).mean()
        share = options.teacher_weight
        loss = share * taught_loss + ((1 - share) * labels if share < 1 else 0.0)
        # Of a mixed image, the class with the larger share.
        right, best = jnp.argmax(batch["target"], axis=-1), jnp.argmax(said, axis=-1)
        rates = {
            "accuracy": jnp.argmax(logits, axis=-1) == right,
            "teacher_accuracy": best == right,
            "agreement": jnp.argmax(taught, axis=-1) == best,
        }
        metrics = {"loss": loss, "label_loss": labels, "teacher_loss": taught_loss}
        metrics |= {name: jnp.mean(hits.astype(jnp.float32)) for name, hits in rates.items()}
        return loss, LossOutput(metrics, buffers, jnp.float32(len(images)))


def build(model: Any, options: DistillationOptions, data: DataInfo) -> Distillation:
    """Return the objective; see `objectives.registry`."""
    return Distillation(model, options, data)
