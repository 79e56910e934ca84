"""Joint embedding: projections of views of an image shall agree, and those of different images differ."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax.errors import ConfigError
from vit_jax.models.families import family_of
from vit_jax.models.flops import forward_macs
from vit_jax.models.functional import ModelFunctions
from vit_jax.models.heads.projector import projector_functions
from vit_jax.models.layers.encoder_config import replace
from vit_jax.models.layers.norm import unit
from vit_jax.models.registry import model_functions
from vit_jax.objectives.base import Objective
from vit_jax.objectives.crops import Crops, check_local, check_sizes, crop_fields, crops_of, flat, of_any_size
from vit_jax.objectives.images import image_fields, inputs, normalise
from vit_jax.objectives.protocol import Batch, Buffers, DataInfo, Field, LossOutput, Moment, Params, Sums
from vit_jax.objectives.schedules import cosine
from vit_jax.objectives.teacher import follow
from vit_jax.objectives.views.losses import spread
from vit_jax.objectives.views.methods import Seen, loss_of
from vit_jax.objectives.views.options import ByolOptions, ViewsOptions, Widths
from vit_jax.random import fold
from vit_jax.trees import flatten, unflatten

# Of the deviation that features of all directions alike have; below, all images are nearly the same.
COLLAPSED = 0.02


@dataclass(frozen=True)
class Views(Objective):
    """An encoder and a projector, perhaps a predictor and a teacher, and the loss that the options name.

    Parameters are `encoder`, `projector` and perhaps `predictor`; buffers their running statistics under the same
    names, and the `teacher`, whose networks hold parameters and statistics together.

    Attributes:
      model: configuration of the encoder.
      options: the method.
      crops: of an image, global ones first; empty where nothing is trained.
      moment: where the run stands; None before it begins.
    """

    model: Any
    options: ViewsOptions
    crops: tuple[Crops, ...] = ()
    moment: Moment | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.crops:
            _check_crops(self.model, self.options, self.crops)

    # ---- what it is made of

    @property
    def fields(self) -> Mapping[str, Field]:
        """Crops: global ones of the model's size, local ones of theirs."""
        return crop_fields(self.model, self.model.image_size, self.crops)

    @property
    def eval_fields(self) -> Mapping[str, Field]:
        """An image of the model's size."""
        return image_fields(self.model)

    @property
    def network(self) -> None:
        """No family has an encoder and a projector."""

    @property
    def encoder(self) -> str:
        """Where the student's encoder is."""
        return "encoder"

    @property
    def encoders(self) -> Mapping[str, str]:
        """The student, whose features count, and its teacher."""
        teacher = {"teacher": "buffers/teacher/encoder"} if self.options.teaches else {}
        return {"student": "params/encoder", **teacher}

    @property
    def loss_may_rise(self) -> bool:
        """A teacher's targets change."""
        return self.options.teaches

    @property
    def train_flops(self) -> float:
        """Floating-point operations for one image: the student forward and backward, its teacher forward."""
        if not self.crops:
            return super().train_flops
        seen = [replace(self.model, image_size=crops.size) for crops in self.crops]
        counts, heads = [crops.count for crops in self.crops], self._heads
        networks = sum(count * forward_macs(model) for count, model in zip(counts, seen))
        student = networks + sum(counts) * sum(head.macs for head in heads.values())
        teacher = networks + sum(counts) * heads["projector"].macs if self.options.teaches else 0
        return 2.0 * (3 * student + teacher)

    def refuses(self, config: Any) -> None:
        """Raise `ConfigError` where the batch is not seen as a whole, or is too small."""
        rows, name = config.data.batch_size, config.objective.name
        if config.accumulation > 1:
            raise ConfigError(
                f"accumulation is {config.accumulation}, but objective {name!r} compares the images of the whole "
                "batch; set accumulation=1."
            )
        if rows < 2:
            raise ConfigError(
                f"data.batch_size is {rows}, but objective {name!r} compares at least 2 images; choose a larger batch."
            )

    def at(self, moment: Moment) -> "Views":
        """Return it with the schedules of a moment."""
        return dataclasses.replace(self, moment=moment)

    @cached_property
    def functions(self) -> ModelFunctions:
        """The encoder."""
        return model_functions(self.model)

    @cached_property
    def _heads(self) -> dict[str, Widths]:
        predictor = self.options.predictor
        heads = {"projector": self.options.projector(self.model.output_width)}
        return heads if predictor is None else heads | {"predictor": predictor}

    # ---- training

    def init(self, key: jax.Array) -> tuple[Params, Buffers]:
        """Return fresh parameters, and running statistics; a teacher is `begin`'s to make."""
        functions = {name: projector_functions(*head) for name, head in self._heads.items()}
        made = {
            name: network.init_state(fold(key, name))
            for name, network in {"encoder": self.functions, **functions}.items()
        }
        params = {name: own for name, (own, _) in made.items()}
        buffers = {name: state for name, (_, state) in made.items() if state}
        return params, self.begin(params, buffers)

    def begin(self, params: Params, buffers: Buffers) -> Buffers:
        """Return the buffers with a teacher that is the student, if there is one."""
        return {**buffers, "teacher": _whole(params, buffers)} if self.options.teaches else buffers

    def prepare(self, batch: Batch, key: jax.Array) -> Batch:
        """Return normalised crops."""
        names = ("global_crops", "local_crops")
        return {name: normalise(batch[name], self.model.preprocessing) for name in names if name in batch}

    def loss(
        self, params: Params, buffers: Buffers, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, LossOutput]:
        """Return the mean loss over the batch, which is seen as a whole."""
        options, rows = self.options, len(batch["global_crops"])
        changed = {name: buffers[name] for name in ("encoder", *self._heads) if name in buffers}
        pooled, changed = self._pooled(params, changed, batch, key)
        projections, changed = self._through("projector", params, changed, pooled)
        predictions = targets = projections
        if options.predictor is not None:
            predictions, changed = self._through("predictor", params, changed, projections)
        if options.teaches:
            teacher = buffers["teacher"]
            taught, _ = self._pooled(teacher, {}, batch, None)
            targets, _ = self._through("projector", teacher, {}, taught)
        seen = Seen(projections, batch["global_crops"].shape[1], predictions, targets)
        loss, terms = loss_of(options, seen, fold(key, "directions"))
        metrics = {
            "loss": loss,
            **terms,
            "feature_std": spread(pooled[0]),
            "projection_std": spread(projections[0]),
        }
        return loss, LossOutput(metrics, changed, jnp.float32(rows))

    def after_update(self, params: Params, buffers: Buffers, step: jax.Array) -> Buffers:
        """Return the buffers with a teacher that has followed, its statistics too."""
        options = self.options
        if not isinstance(options, ByolOptions):
            return buffers
        assert self.moment is not None
        momentum = cosine(self.moment.step, options.momentum, options.last_momentum, self.moment.total)
        return {**buffers, "teacher": follow(buffers["teacher"], _whole(params, buffers), momentum)}

    def activations(
        self, params: Params, buffers: Buffers, batch: Batch, key: jax.Array
    ) -> dict[str, jax.Array]:
        """Return what the student's encoder computes for global crops."""
        names = family_of(self.model).names_traced(self.model)
        state, images = buffers.get("encoder", {}), flat(batch["global_crops"])
        call = self.functions.apply_state(
            params["encoder"], state, images, fold(key, "global_crops"), capture=names
        )[0]
        return call[1] if names else {}

    def concerns(self, metrics: Mapping[str, float]) -> Mapping[str, str]:
        """Return that all images have nearly the same features, or projections, if they do."""
        return {
            name: f"the encoder has collapsed: {what} of all images are nearly the same ({name} is "
            f"{metrics[name]:.4f}, of images in all directions 1); lower the learning rate, or weigh what keeps them "
            "apart more"
            for name, what in (("feature_std", "features"), ("projection_std", "projections"))
            if metrics[name] < COLLAPSED
        }

    # ---- evaluation

    @property
    def monitor(self) -> str:
        """How different the features of images are; a probe says how good they are."""
        return "feature_std"

    @property
    def metric_modes(self) -> Mapping[str, str]:
        """How different features and projections of whole images are: 0 where all are the same, about 1 at most."""
        return {"feature_std": "max", "projection_std": "max"}

    def evaluate(self, params: Params, buffers: Buffers, batch: Batch) -> Sums:
        """Return sums and squares `(d,)` of unit features and unit projections, by running statistics."""
        images, counted = inputs(batch, self.model), batch["mask"].astype(jnp.float32)
        pooled, _ = self.functions.apply_state(params["encoder"], buffers.get("encoder", {}), images)
        projector = projector_functions(*self._heads["projector"])
        said, _ = projector.apply_state(params["projector"], buffers.get("projector", {}), pooled)
        sums = {"count": counted.sum()}
        for name, rows in (("feature", pooled), ("projection", said)):
            units = unit(rows.astype(jnp.float32))
            sums |= {f"{name}_sum": counted @ units, f"{name}_squares": counted @ jnp.square(units)}
        return sums

    def summarise(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Return the deviations of features and projections over the whole set."""
        found = {}
        for name in ("feature", "projection"):
            mean, squares = (
                np.asarray(sums[f"{name}_{part}"], np.float64) / float(sums["count"])
                for part in ("sum", "squares")
            )
            deviations = np.sqrt(np.maximum(squares - np.square(mean), 0))
            found[f"{name}_std"] = float(deviations.mean() * len(mean) ** 0.5)
        return found

    # ---- parts of the loss

    def _pooled(
        self, params: Params, state: Buffers, batch: Batch, key: jax.Array | None
    ) -> tuple[jax.Array, Buffers]:
        """Return features of all views `(v, b, d)`, and the state after them."""
        own, found = state.get("encoder", {}), []
        for name in ("global_crops", "local_crops"):
            if name in batch:
                images, views = flat(batch[name]), batch[name].shape[1]
                pooled, own = self.functions.apply_state(params["encoder"], own, images, fold(key, name))
                found.append(jnp.moveaxis(pooled.reshape(-1, views, pooled.shape[-1]), 1, 0))
        return jnp.concatenate(found), {**state, "encoder": own} if "encoder" in state else state

    def _through(
        self, name: str, params: Params, state: Buffers, views: jax.Array
    ) -> tuple[jax.Array, Buffers]:
        """Return what a projector or predictor makes of `(v, b, d)` in training, and the state after it."""
        functions, own = projector_functions(*self._heads[name]), state.get(name, {})
        parts = [views.reshape(-1, views.shape[-1])] if self.options.together else views
        made = []
        for part in parts:
            out, own = functions.apply_state(params[name], own, part, training=True)
            made.append(out)
        return jnp.stack(made).reshape(*views.shape[:2], -1), {**state, name: own} if name in state else state


def _whole(params: Params, buffers: Buffers) -> Params:
    """Return encoder and projector with their statistics among the parameters, as files have them."""
    names = ("encoder", "projector")
    return unflatten(
        {
            path: leaf
            for tree in (params, buffers)
            for path, leaf in flatten({name: tree[name] for name in names if name in tree}).items()
        }
    )


def _check_crops(model: Any, options: ViewsOptions, crops: tuple[Crops, ...]) -> None:
    counts = [one.count for one in crops]
    if options.pair and counts != [2]:
        local = f" and {counts[1]} local ones" if len(counts) > 1 else ""
        raise ConfigError(
            f"multi_crop makes {counts[0]} global crops{local}, but this objective compares two; give multi_crop "
            "global_count=2 and local_count=0."
        )
    if sum(counts) < 2:
        raise ConfigError(
            "one crop of an image has nothing that it could agree with; give multi_crop a global_count or local_count "
            "of at least 2."
        )
    check_local(model, crops)


def build(model: Any, options: ViewsOptions, data: DataInfo) -> Views:
    """Return the objective; see `objectives.registry`. Labels are not used."""
    crops = crops_of(data.shapes)
    learned = Views(replace(family_of(model).headless(model), **of_any_size(model, crops)), options, crops)
    check_sizes(learned.model, crops)
    return learned
