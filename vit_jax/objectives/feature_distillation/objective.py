"""Features of frozen teachers are learned: of images, of their patches, or both; no label is used."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from dataclasses import replace as changed
from functools import cached_property
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp

from vit_jax.errors import ConfigError
from vit_jax.models.families import family_of
from vit_jax.models.family import Level
from vit_jax.models.flops import forward_flops
from vit_jax.models.functional import ModelFunctions, buffers_of
from vit_jax.models.layers.activations import ACTIVATIONS
from vit_jax.models.layers.dense import dense
from vit_jax.models.maps import named_levels, output_and_maps
from vit_jax.models.registry import model_functions
from vit_jax.objectives.base import Objective
from vit_jax.objectives.feature_distillation import standard
from vit_jax.objectives.feature_distillation.losses import row_cosines, row_losses, same_grid
from vit_jax.objectives.feature_distillation.options import FeatureDistillationOptions
from vit_jax.objectives.images import normalise
from vit_jax.objectives.losses import normalised
from vit_jax.objectives.protocol import (
    Batch,
    Buffers,
    Constant,
    DataInfo,
    Field,
    LossOutput,
    Moment,
    Params,
    Sums,
)
from vit_jax.objectives.teachers.frozen import FrozenTeacher, open_encoder
from vit_jax.random import fold

ENCODER, STANDARDS = "encoder", "standards"


@dataclass(frozen=True)
class FeatureDistillation(Objective):
    """A student's features, by a layer of each teacher's own, are brought to the teachers'.

    Sources: Wei et al. 2022, arXiv 2205.14141 (features of a pretrained model as targets); AM-RADIO (Ranzinger et al.
    2023, arXiv 2312.06709) for several teachers, with the standardisation of PHI-S (arXiv 2410.01680).

    Attributes:
      model: the student, without a head.
      options: teachers, features, loss.
      moment: where a run stands; it brings the teachers' parameters.
    """

    model: Any
    options: FeatureDistillationOptions
    moment: Moment | None = None
    functions: ModelFunctions = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "functions", model_functions(self.model))

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.model, self.options)

    # ---- what it is made of

    @property
    def fields(self) -> Mapping[str, Field]:
        """An image of the student's size."""
        return {"image": Field(self.model.input_shape)}

    @property
    def network(self) -> Any:
        """None: no family has a student with its projectors."""
        return None

    @property
    def encoder(self) -> str:
        """Where the student's parameters are."""
        return ENCODER

    @cached_property
    def teachers(self) -> tuple[FrozenTeacher, ...]:
        """The teachers; their checkpoints are opened when they are first asked for."""
        return tuple(
            open_encoder("objective.teachers", source, self.model, self.options.teacher_size)
            for source in self.options.teachers
        )

    @property
    def kinds(self) -> tuple[str, ...]:
        """Which features are learned."""
        return ("pooled", "maps") if self.options.features == "both" else (self.options.features,)

    @cached_property
    def level(self) -> Level:
        """The student's map."""
        return _level(self.model, self.options.level)

    @cached_property
    def teacher_levels(self) -> tuple[Level, ...]:
        """The map of each teacher."""
        asked = self.options.teacher_levels or ("",) * len(self.teachers)
        return tuple(_level(teacher.config, name) for teacher, name in zip(self.teachers, asked))

    @cached_property
    def widths(self) -> Mapping[str, tuple[int, int]]:
        """What each projector takes and gives, by `TEACHER_KIND`."""
        found = {}
        for number, (teacher, level) in enumerate(zip(self.teachers, self.teacher_levels)):
            for kind in self.kinds:
                ends = (self.model, self.level), (teacher.config, level)
                found[f"{number}_{kind}"] = tuple(
                    _width(config) if kind == "pooled" else own.channels for config, own in ends
                )
        return found

    @property
    def train_flops(self) -> float:
        """Floating-point operations of the student's forward and backward and the teachers' forward for one image."""
        return super().train_flops + sum(forward_flops(teacher.config) for teacher in self.teachers)

    def constants(self) -> Mapping[str, Constant]:
        """Return the teachers."""
        return {f"teacher_{number}": teacher.constant for number, teacher in enumerate(self.teachers)}

    def refuses(self, config: Any) -> None:
        """Raise ConfigError for a teacher whose features cannot be turned."""
        if self.options.standard != "phi_s":
            return
        for name, (_, width) in self.widths.items():
            try:
                standard.hadamard(width)
            except ValueError:
                raise ConfigError(
                    f"objective.standard is 'phi_s', but {self.options.teachers[int(name.split('_')[0])]!r} has "
                    f"features of width {width}, for which no Hadamard matrix is known here; choose 'scale', which is "
                    "the same for the losses 'mse' and 'cosine'."
                ) from None

    # ---- training

    def at(self, moment: Moment) -> "FeatureDistillation":
        """Return the objective at a moment of a run."""
        return changed(self, moment=moment)

    def init(self, key: jax.Array) -> tuple[Params, Buffers]:
        """Return the student with its projectors, and the student's buffers with what is known of the teachers."""
        params, buffers = self.functions.init_state(fold(key, ENCODER))
        projectors, known = {}, {}
        for name, (inputs, outputs) in self.widths.items():
            sizes = (
                (inputs, self.options.hidden_dim, outputs) if self.options.hidden_dim else (inputs, outputs)
            )
            projectors[name] = _projector(fold(key, name), sizes)
            if self._measures:
                known[name] = standard.begin(outputs)
        state = {ENCODER: buffers} if buffers else {}
        return {ENCODER: params, "projectors": projectors}, state | ({STANDARDS: known} if known else {})

    def prepare(self, batch: Batch, key: jax.Array) -> Batch:
        """Return normalised images."""
        return {"image": normalise(batch["image"], self.model.preprocessing)}

    def loss(
        self, params: Params, buffers: Buffers, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, LossOutput]:
        """Return the mean over teachers and kinds of features; metrics are that of each, and the cosines."""
        losses, cosines, more, state = self._compared(params, buffers, batch["image"], key)
        loss, metrics = self._weighed({name: value.mean() for name, value in losses.items()})
        metrics |= {f"cosine_{name}": value.mean() for name, value in cosines.items()}
        changes = {ENCODER: state} if ENCODER in buffers else {}
        return loss, LossOutput(metrics, changes, jnp.float32(len(batch["image"])), more)

    def combine(self, buffers: Buffers, sums: Sums) -> Buffers:
        """Return the buffers with what this step has measured of the teachers' features."""
        if not self._measures:
            return buffers
        assert self.moment is not None
        step, steps = self.moment.step, min(self.options.measured_steps, self.moment.total)
        turned = self.options.standard == "phi_s"

        def more(known: Any) -> Any:
            found: Any = sums
            return {
                name: standard.measured(one, found[name], step == steps - 1, turned)
                for name, one in known.items()
            }

        known = jax.lax.cond(step < steps, more, lambda known: known, buffers[STANDARDS])
        return {**buffers, STANDARDS: known}

    def evaluate(self, params: Params, buffers: Buffers, batch: Batch) -> Sums:
        """Return the sums of the rows' losses and cosines, as they are at the end of training."""
        rows = batch["mask"]
        images = normalise(batch["image"], self.model.preprocessing)
        losses, cosines, _, _ = self._compared(params, buffers, images, None)
        _, per_row = self._weighed(losses)
        per_row |= {f"cosine_{name}": value for name, value in cosines.items()}
        sums = {name: jnp.where(rows, value, 0.0).sum() for name, value in per_row.items()}
        return sums | {"count": rows.sum().astype(jnp.float32)}

    @property
    def metric_modes(self) -> Mapping[str, str]:
        """Losses are better when small, cosines when large."""
        of_each = {
            f"{kind}_{name}": mode
            for name in self.widths
            for kind, mode in (("loss", "min"), ("cosine", "max"))
        }
        return {"loss": "min"} | of_each

    # ---- within

    @property
    def _measures(self) -> bool:
        return self.options.standard in ("phi_s", "scale")

    def _compared(
        self, params: Params, buffers: Buffers, images: jax.Array, key: jax.Array | None
    ) -> tuple[Any, Any, Any, Any]:
        """Return by `TEACHER_KIND` the loss and the cosine of each row `(b,)`, and what `standard.sums` adds up; and
        the student's buffers.
        """
        assert self.moment is not None
        levels = () if self.options.features == "pooled" else (self.level,)
        bound = self.functions.bind(params[ENCODER], buffers.get(ENCODER, {}))
        pooled, maps = output_and_maps(bound, levels, images, fold(key, "student"))
        own: dict[str, jax.Array] = dict(zip(("pooled", "maps"), (pooled, *maps)))
        state = buffers_of(bound)
        losses, cosines, sums = {}, {}, {}
        for number, (teacher, level) in enumerate(zip(self.teachers, self.teacher_levels)):
            frozen = self.moment.constants[f"teacher_{number}"]
            seen = teacher.sees(images, self.model.preprocessing)
            asked = () if self.options.features == "pooled" else (level,)
            said, their_maps = output_and_maps(teacher.functions.bind(frozen), asked, seen)
            theirs: dict[str, jax.Array] = dict(zip(("pooled", "maps"), (said, *their_maps)))
            for kind in self.kinds:
                name = f"{number}_{kind}"
                projected = _projected(params["projectors"][name], own[kind])
                target = jax.lax.stop_gradient(theirs[kind])
                if self._measures:
                    sums[name] = self._sums(target)
                    target = standard.standardised(target, buffers[STANDARDS][name])
                elif self.options.standard == "layer_norm":
                    target = normalised(target)
                target, projected = target.astype(jnp.float32), projected.astype(jnp.float32)
                if kind == "maps":
                    projected, target = same_grid(projected, target)
                losses[name] = row_losses(projected, target, self.options.loss)
                cosines[name] = row_cosines(projected, target)
        return losses, cosines, sums, state

    def _sums(self, target: jax.Array) -> Any:
        """Return what a batch says of a teacher's features while it is measured; afterwards zeros, at no cost."""
        assert self.moment is not None
        shapes = jax.eval_shape(standard.sums, target)
        none = lambda _: jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)  # noqa: E731
        measuring = self.moment.step < self.options.measured_steps
        return jax.lax.cond(measuring, standard.sums, none, target)

    def _weighed(self, losses: Mapping[str, jax.Array]) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Return the weighted mean over teachers of the mean over kinds, and everything by name."""
        weights = self.options.teacher_weights or (1.0,) * len(self.teachers)
        shares = {name: weights[int(name.split("_")[0])] / sum(weights) / len(self.kinds) for name in losses}
        loss = sum((shares[name] * value for name, value in losses.items()), jnp.zeros(()))
        return loss, {"loss": loss, **{f"loss_{name}": value for name, value in losses.items()}}


def _level(config: Any, asked: str | int) -> Level:
    """Return a level of a model, its coarsest for an empty word."""
    return named_levels(config)[-1] if asked == "" else named_levels(config, asked)[0]


def _width(config: Any) -> int:
    """Return the width of what a model without a head gives for an image."""
    functions = model_functions(config)
    images = jax.ShapeDtypeStruct((1, *config.input_shape), jnp.float32)
    out, _ = jax.eval_shape(functions.apply_state, functions.abstract, functions.abstract_buffers, images)
    return out.shape[-1]


def _projector(key: jax.Array, sizes: Sequence[int]) -> dict[str, Any]:
    """Return the dense layers of a projector, kernels by LeCun's normal."""
    layers = {}
    for number, (inputs, outputs) in enumerate(pairwise(sizes)):
        kernel = jax.random.normal(fold(key, str(number)), (inputs, outputs)) * inputs**-0.5
        layers[f"fc{number + 1}"] = {"kernel": kernel, "bias": jnp.zeros((outputs,))}
    return layers


def _projected(layers: Mapping[str, Any], x: jax.Array) -> jax.Array:
    """Return features `(..., d)` of the student as features of a teacher, with GELU between layers."""
    for number, layer in enumerate(layers.values()):
        x = ACTIVATIONS["gelu"](x) if number else x
        x = dense(x, layer["kernel"], layer["bias"])
    return x


def build(model: Any, options: FeatureDistillationOptions, data: DataInfo) -> FeatureDistillation:
    """Return the objective; see `objectives.registry`. Labels are not used."""
    return FeatureDistillation(family_of(model).headless(model), options)
