"""Self-distillation: a student says of every crop what a teacher, its moving average, says of the global ones."""

import dataclasses
import math
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
from vit_jax.models.layers.encoder_config import replace
from vit_jax.models.registry import model_functions
from vit_jax.objectives.base import Objective
from vit_jax.objectives.crops import Crops, check_sizes, crop_fields, crops_of, flat, of_any_size
from vit_jax.objectives.dino import losses
from vit_jax.objectives.dino.crops import as_maps, check_model, shrunk
from vit_jax.objectives.dino.masks import draw_masks
from vit_jax.objectives.dino.networks import Networks
from vit_jax.objectives.dino.options import DinoOptions
from vit_jax.objectives.images import image_fields, inputs, normalise
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
from vit_jax.objectives.schedules import cosine, linear
from vit_jax.objectives.teacher import follow
from vit_jax.random import fold

# Shares of the entropy that uniform targets have, and of prototypes, where there is nothing left to learn from.
UNIFORM, CONSTANT = 0.98, 1.5


@dataclass(frozen=True)
class Dino(Objective):
    """DINO, with the losses of DINOv2 and DINOv3 that its options name.

    Parameters are an `encoder`, a `head` and perhaps a `patch_head`; buffers are the `teacher`, which has the same, and
    the mean scores of its heads, `centre` and `patch_centre`.

    Attributes:
      model: configuration of the encoder.
      options: losses and schedules.
      crops: of an image, global ones first; empty where nothing is trained.
      moment: where the run stands; None before it begins.
    """

    model: Any
    options: DinoOptions
    crops: tuple[Crops, ...] = ()
    moment: Moment | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        check_model(self.model, self.options, self.crops)

    # ---- what it is made of

    @property
    def fields(self) -> Mapping[str, Field]:
        """Crops: global ones of the model's size, local ones of theirs."""
        return crop_fields(self.model, self._global_size, self.crops)

    @property
    def eval_fields(self) -> Mapping[str, Field]:
        """An image of the model's size."""
        return image_fields(self.model)

    @property
    def network(self) -> None:
        """No family has an encoder and these heads."""

    @property
    def encoder(self) -> str:
        """Where the student's encoder is."""
        return "encoder"

    @property
    def encoders(self) -> Mapping[str, str]:
        """The teacher, whose features count, and the student."""
        return {"teacher": "buffers/teacher/encoder", "student": "params/encoder"}

    @property
    def loss_may_rise(self) -> bool:
        """The teacher's targets change."""
        return True

    @property
    def train_flops(self) -> float:
        """Floating-point operations for one image: the student forward and backward, its teachers forward."""
        if not self.crops:
            return super().train_flops
        student, teacher = self.networks.macs(self.crops)
        large = replace(self.model, image_size=self._global_size)
        gram = self.crops[0].count * forward_macs(large) if self.options.gram_weight else 0
        return 2.0 * (3 * student + teacher + gram)

    def constants(self) -> Mapping[str, Constant]:
        """The teacher whose similarities are kept, if any."""
        if not self.options.gram_weight:
            return {}
        seen = replace(self.model, image_size=self._global_size)
        return {"gram": Constant(seen, self.options.gram_teacher)}

    def refuses(self, config: Any) -> None:
        """Raise `ConfigError` where a loss needs more images at once."""
        options, rows = self.options, config.data.batch_size
        across = {
            "targets 'sinkhorn'": options.targets == "sinkhorn",
            "koleo_weight": options.koleo_weight,
        }
        whole = [name for name, used in across.items() if used]
        if whole and config.accumulation > 1:
            raise ConfigError(
                f"accumulation is {config.accumulation}, but objective.{whole[0]} compares the images of the whole "
                "batch; set accumulation=1."
            )
        if options.koleo_weight and rows < 2:
            raise ConfigError(
                f"data.batch_size is {rows}, but objective.koleo_weight needs the nearest of at least 2 images; "
                "choose a larger batch, or koleo_weight=0."
            )

    def at(self, moment: Moment) -> "Dino":
        """Return it with the schedules of a moment."""
        return dataclasses.replace(self, moment=moment)

    @cached_property
    def networks(self) -> Networks:
        """Student and teacher."""
        return Networks(self.model, self.options)

    @property
    def _global_size(self) -> tuple[int, int]:
        size = self.options.gram_size
        return (size, size) if size else self.model.image_size

    # ---- training

    def init(self, key: jax.Array) -> tuple[Params, Buffers]:
        """Return fresh parameters, and a teacher that is `begin`'s to make."""
        params = self.networks.init(key)
        return params, {"teacher": params, **self.networks.centres()}

    def begin(self, params: Params, buffers: Buffers) -> Buffers:
        """Return the buffers with a teacher that is the student."""
        return {**buffers, "teacher": params}

    def prepare(self, batch: Batch, key: jax.Array) -> Batch:
        """Normalise crops, and draw masks over the whole batch."""
        options = self.options
        prepared = {
            name: normalise(batch[name], self.model.preprocessing)
            for name in ("global_crops", "local_crops")
            if name in batch
        }
        whole = prepared["global_crops"]
        if options.gram_size:
            prepared |= {"global_crops": shrunk(whole, self.model.image_size), "gram_crops": whole}
        if options.patch_weight:
            images, views = whole.shape[:2]
            drawn = draw_masks(
                key, images, views, options.masked_crops, self.networks.level.grid, options.mask_ratio
            )
            prepared |= drawn._asdict()
        return prepared

    def loss(
        self, params: Params, buffers: Buffers, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, LossOutput]:
        """Return the mean loss over pairs of crops, and over masked patches."""
        options, teacher = self.options, buffers["teacher"]
        whole, masks = batch["global_crops"], batch.get("masks")
        rows, views = whole.shape[:2]
        patches = bool(options.patch_weight or options.gram_weight)
        seen = self.networks.views(params, whole, fold(key, "global"), patches=patches, masks=masks)
        taught = self.networks.views(teacher, whole, patches=bool(options.patch_weight))
        scores = [_by_view(seen.scores, views)]
        if "local_crops" in batch:
            near = self.networks.views(params, batch["local_crops"], fold(key, "local"))
            scores.append(_by_view(near.scores, batch["local_crops"].shape[1]))
        targets = self._targets(taught.scores, buffers.get("centre"))
        temperature = options.student_temperature
        loss = losses.dino_loss(jnp.concatenate(scores), _by_view(targets, views), temperature)
        entropy = losses.entropies(targets).mean()
        metrics = {
            "view_loss": loss,
            "teacher_entropy": entropy,
            "prototypes": jnp.exp(losses.entropies(targets.mean(0))),
            "teacher_temperature": self._temperature,
        }
        sums = {"rows": jnp.float32(len(taught.scores)), "scores": taught.scores.sum(0)}
        if options.patch_weight:
            weights = batch["weights"]
            both = (params, seen), (teacher, taught)
            said, known = (self.networks.patch_scores(tree, of.patches, batch["places"]) for tree, of in both)
            valid = weights.reshape(-1) > 0
            wanted = self._targets(known, buffers.get("patch_centre"), valid)
            patch = losses.patch_loss(said, wanted, weights.reshape(-1), rows * views, temperature)
            loss += options.patch_weight * patch
            metrics["patch_loss"] = patch
            sums |= {
                "patches": valid.sum().astype(jnp.float32),
                "patch_scores": jnp.where(valid[:, None], known, 0).sum(0),
            }
        if options.koleo_weight:
            koleo = jnp.stack([losses.koleo_loss(one) for one in _by_view(seen.pooled, views)])
            loss += options.koleo_weight * koleo.sum()
            metrics["koleo_loss"] = koleo.mean()
        if options.gram_weight:
            gram = self._gram_loss(seen.patches, batch)
            loss += jnp.where(self._step >= options.gram_after, options.gram_weight, 0.0) * gram
            metrics["gram_loss"] = gram
        if options.targets != "centre":
            sums = {}
        return loss, LossOutput({"loss": loss, **metrics}, {}, jnp.float32(rows), sums)

    def combine(self, buffers: Buffers, sums: Sums) -> Buffers:
        """Return the buffers with the centres moved by the mean scores of the whole batch."""
        moved, share = dict(buffers), self.options.centre_momentum
        for centre, scores, count in (
            ("centre", "scores", "rows"),
            ("patch_centre", "patch_scores", "patches"),
        ):
            if scores in sums:
                moved[centre] = share * buffers[centre] + (1 - share) * sums[scores] / sums[count]
        return moved

    def after_update(self, params: Params, buffers: Buffers, step: jax.Array) -> Buffers:
        """Return the buffers with a teacher that has followed."""
        options, moment = self.options, self.moment
        assert moment is not None
        momentum = cosine(moment.step, options.momentum, options.last_momentum, moment.total)
        return {**buffers, "teacher": follow(buffers["teacher"], params, momentum)}

    def activations(
        self, params: Params, buffers: Buffers, batch: Batch, key: jax.Array
    ) -> dict[str, jax.Array]:
        """Return what the student's encoder computes for global crops."""
        names = family_of(self.model).names_traced(self.model)
        mask = {"mask": flat(batch["masks"])} if "masks" in batch else {}
        images = flat(batch["global_crops"])
        call = self.networks.encoder.apply(
            params["encoder"], images, fold(key, "global"), capture=names, **mask
        )
        return call[1]

    def concerns(self, metrics: Mapping[str, float]) -> Mapping[str, str]:
        """Return how the teacher has collapsed, if it has."""
        count, entropy, used = self.options.prototypes, metrics["teacher_entropy"], metrics["prototypes"]
        found = {}
        if entropy > UNIFORM * math.log(count):
            found["uniform"] = (
                f"the teacher has collapsed: its targets are uniform, their entropy {entropy:.3f} is nearly "
                f"ln {count} = {math.log(count):.3f}; lower objective.teacher_temperature"
            )
        elif used < CONSTANT:
            found["constant"] = (
                f"the teacher has collapsed: its targets are the same for all images (entropy {entropy:.3f}), "
                f"{used:.2f} of {count} prototypes are used; raise objective.teacher_temperature, or lower "
                "centre_momentum"
            )
        return found

    # ---- evaluation

    @property
    def monitor(self) -> str:
        """How much a prototype says of an image, which falls to 0 in either collapse."""
        return "information"

    @property
    def metric_modes(self) -> Mapping[str, str]:
        """Of student and teacher on whole images: their loss, how often they agree; how the teacher uses prototypes."""
        return {
            "loss": "min",
            "agreement": "max",
            "teacher_entropy": "min",
            "prototypes": "max",
            "information": "max",
        }

    def evaluate(self, params: Params, buffers: Buffers, batch: Batch) -> Sums:
        """Return sums of losses, agreements, entropies and of targets `(k,)`, of the same whole images."""
        images, counted = inputs(batch, self.model)[:, None], batch["mask"]
        student, teacher = (self.networks.views(tree, images).scores for tree in (params, buffers["teacher"]))
        centre = buffers.get("centre", 0.0)
        targets = losses.teacher_targets(teacher, centre, self._temperature)
        said = jax.nn.log_softmax(student / self.options.student_temperature)
        each = {
            "loss": -(targets * said).sum(-1),
            "agreement": (student - centre).argmax(-1) == targets.argmax(-1),
            "teacher_entropy": losses.entropies(targets),
        }
        rows = counted.astype(jnp.float32)
        sums = {
            name: jnp.where(counted, values.astype(jnp.float32), 0).sum() for name, values in each.items()
        }
        usage = jnp.where(counted[:, None], targets, 0).sum(0)
        return sums | {"usage": usage, "count": rows.sum()}

    def summarise(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Return the means; how many prototypes are used as if alike; and how much they say of an image, in nats."""
        found = super().summarise(sums)
        usage = np.asarray(sums["usage"], np.float64) / float(sums["count"])
        entropy = -float(np.sum(usage * np.log(np.maximum(usage, 1e-300))))
        information = max(0.0, entropy - found["teacher_entropy"])
        return {**found, "prototypes": math.exp(entropy), "information": information}

    # ---- parts of the loss

    @property
    def _step(self) -> Any:
        return 0 if self.moment is None else self.moment.step

    @property
    def _temperature(self) -> jax.Array:
        options, moment = self.options, self.moment
        if moment is None:
            return jnp.float32(options.teacher_temperature)
        steps = options.temperature_epochs * moment.per_epoch
        return linear(moment.step, options.first_temperature, options.teacher_temperature, steps)

    def _targets(
        self, scores: jax.Array, centre: jax.Array | None, valid: jax.Array | None = None
    ) -> jax.Array:
        if centre is None:
            return losses.sinkhorn_targets(scores, self._temperature, valid)
        return losses.teacher_targets(scores, centre, self._temperature)

    def _gram_loss(self, patches: jax.Array | None, batch: Batch) -> jax.Array:
        assert patches is not None
        assert self.moment is not None
        seen = replace(self.model, image_size=self._global_size)
        level = family_of(seen).levels(seen)[-1]
        images = flat(batch.get("gram_crops", batch["global_crops"]))
        frozen = self.moment.constants["gram"]
        _, captured = model_functions(seen).apply(frozen, images, capture=(level.name,))
        return losses.gram_loss(patches, as_maps(captured[level.name], level, self.networks.level.grid))


def _by_view(rows: jax.Array, views: int) -> jax.Array:
    """Return rows `(b*v, k)` of views as `(v, b, k)`."""
    return jnp.moveaxis(rows.reshape(-1, views, rows.shape[-1]), 1, 0)


def build(model: Any, options: DinoOptions, data: DataInfo) -> Dino:
    """Return the objective; see `objectives.registry`. Labels are not used."""
    for name in ("prototypes", "patch_prototypes"):
        count = getattr(options, name)
        if 0 < data.records < count:
            raise ConfigError(
                f"objective.{name} is {count}, but there are {data.records} images to train on, and a prototype "
                f"stands for several of them; choose at most {data.records}."
            )
    crops = crops_of(data.shapes)
    changes = of_any_size(model, crops)
    if options.patch_weight and hasattr(model, "mask_token"):
        changes["mask_token"] = True
    learned = Dino(replace(family_of(model).headless(model), **changes), options, crops)
    check_sizes(learned.model, crops)
    return learned
