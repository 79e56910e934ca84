"""I-JEPA (Assran et al. 2023, arXiv 2301.08243): predict a moving encoder's features of blocks from those of others."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax.errors import ConfigError
from vit_jax.models.arithmetic import blocks_macs
from vit_jax.models.flops import forward_macs
from vit_jax.models.functional import ModelFunctions, functions
from vit_jax.models.heads.predictor import Predictor
from vit_jax.models.layers.attention import Surroundings
from vit_jax.models.layers.pixels.patches import patchify, unpatchify
from vit_jax.models.registry import model_functions
from vit_jax.models.vit.config import ViTConfig
from vit_jax.objectives.base import Objective
from vit_jax.objectives.ijepa.losses import spread_of
from vit_jax.objectives.ijepa.masks import Masks, block_sizes, draw_masks
from vit_jax.objectives.ijepa.options import IJepaOptions
from vit_jax.objectives.images import denormalise, normalise, on_host
from vit_jax.objectives.losses import normalised, smooth_l1
from vit_jax.objectives.masked.model import patchwise_model
from vit_jax.objectives.protocol import (
    Batch,
    Buffers,
    DataInfo,
    Example,
    Field,
    HostBatch,
    Illustration,
    LossOutput,
    Moment,
    Params,
    Sums,
)
from vit_jax.objectives.schedules import linear
from vit_jax.objectives.teacher import follow
from vit_jax.random import fold, root

COLLAPSED = 0.01  # spread of features over images, whose patches have a deviation of 1


@dataclass(frozen=True)
class IJepa(Objective):
    """Smooth absolute error of predicted features; its features are those of the moving encoder.

    Attributes:
      model: configuration of the encoder, which has no token but the patches.
      options: blocks, predictor and momentum.
      moment: where the run stands.
    """

    model: Any
    options: IJepaOptions
    moment: Moment | None = None
    functions: ModelFunctions = field(init=False, compare=False, repr=False)
    predictor: ModelFunctions = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        options, patches = self.options, self.model.num_patches
        most = options.targets * int(self.target_sizes.prod(axis=1).max())
        if most >= int(self.context_sizes.prod(axis=1).min()):
            raise ConfigError(
                f"objective.targets is {options.targets} and target_scale {options.target_scale}: together they may "
                f"hide {most} of {patches} patches and leave no context; choose fewer, or smaller ones."
            )
        if not self.context:
            raise ConfigError(
                f"objective.context_ratio is {options.context_ratio}, which is none of {patches} patches; choose a "
                "larger one."
            )
        encoder = model_functions(self.model)
        if encoder.abstract_buffers:
            raise ConfigError(
                "I-JEPA's moving encoder cannot follow batch statistics; choose a model without."
            )
        object.__setattr__(self, "functions", encoder)
        build = partial(Predictor, self.predictor_config, self.model.width)
        object.__setattr__(self, "predictor", functions(build))

    @cached_property
    def target_sizes(self) -> np.ndarray:
        """Sizes of the blocks that are predicted."""
        return block_sizes(self.model.grid, self.options.target_scale, self.options.target_aspect)

    @cached_property
    def context_sizes(self) -> np.ndarray:
        """Sizes of the blocks that the context is a part of."""
        return block_sizes(self.model.grid, self.options.context_scale, (1.0, 1.0))

    @property
    def context(self) -> int:
        """How many patches the encoder sees."""
        return int(self.model.num_patches * self.options.context_ratio)

    @property
    def predictor_config(self) -> ViTConfig:
        """The predictor's blocks, on the encoder's grid."""
        width = self.options.predictor_width
        sizes = dict(width=width, depth=self.options.predictor_depth, mlp_dim=4 * width)
        heads = self.options.predictor_heads or self.model.heads
        if width % heads:
            raise ConfigError(
                f"objective.predictor_heads is {heads}, which does not divide predictor_width {width}; choose another."
            )
        return dataclasses.replace(self.model, **sizes, heads=heads, drop_path_rate=0.0, stem=())

    @property
    def fields(self) -> Mapping[str, Field]:
        """An image of the model's size."""
        return {"image": Field(self.model.input_shape)}

    @property
    def encoder(self) -> str:
        """Where the parameters are of the encoder that has gradients."""
        return "encoder"

    @property
    def network(self) -> Any:
        """None: no family has an encoder and a predictor."""
        return None

    @property
    def encoders(self) -> Mapping[str, str]:
        """The moving encoder, whose features count, and the one that follows gradients."""
        return {"target": "buffers/target", "context": "params/encoder"}

    @property
    def loss_may_rise(self) -> bool:
        """True: targets become harder as the encoder learns."""
        return True

    @property
    def train_flops(self) -> float:
        """Floating-point operations for one image: of the moving encoder forward only."""
        config, tokens = self.predictor_config, self.context + int(self.target_sizes.prod(axis=1).max())
        predicting = blocks_macs(config, tokens) + 2 * tokens * config.width * self.model.width
        context = forward_macs(self.model, self.context / self.model.num_patches)
        return 6.0 * (context + self.options.targets * predicting) + 2.0 * forward_macs(self.model, 1.0)

    def at(self, moment: Moment) -> "IJepa":
        """Return the objective at a moment, which decides the momentum."""
        return dataclasses.replace(self, moment=moment)

    def init(self, key: jax.Array) -> tuple[Params, Buffers]:
        """Return fresh parameters of encoder and predictor, and the target encoder."""
        params = {
            "encoder": self.functions.init(fold(key, "encoder")),
            "predictor": self.predictor.init(fold(key, "predictor")),
        }
        return params, {"target": params["encoder"]}

    def begin(self, params: Params, buffers: Buffers) -> Buffers:
        """Return the target encoder as a copy of the other, as it was loaded."""
        return {"target": params["encoder"]}

    def prepare(self, batch: Batch, key: jax.Array) -> Batch:
        """Normalise images and draw their blocks, over the whole batch."""
        images = normalise(batch["image"], self.model.preprocessing)
        sizes = self.target_sizes, self.context_sizes
        masks = draw_masks(key, len(images), self.model.grid, *sizes, self.options.targets, self.context)
        return {"image": images, **masks._asdict()}

    def loss(
        self, params: Params, buffers: Buffers, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, LossOutput]:
        """Return the mean loss over all patches that are predicted."""
        losses, spread = self._losses(params, buffers, batch, key)
        weight = batch["valid"].sum().astype(jnp.float32) * self.options.targets
        loss = jnp.where(batch["valid"][:, None], losses, 0).sum() / weight
        return loss, LossOutput({"loss": loss, "target_std": spread}, {}, weight)

    def after_update(self, params: Params, buffers: Buffers, step: jax.Array) -> Buffers:
        """Return the target encoder a step later."""
        assert self.moment is not None
        first, last = self.options.momentum, self.options.momentum_end
        momentum = linear(self.moment.step, first, last, self.moment.total)
        return {"target": follow(buffers["target"], params["encoder"], momentum)}

    def concerns(self, metrics: Mapping[str, float]) -> Mapping[str, str]:
        """Return that all images have come to look the same."""
        spread = metrics["target_std"]
        if spread >= COLLAPSED:
            return {}
        return {
            "collapse": f"the target encoder's features vary by {spread:.2g} between images, of 1 within them: it has "
            "collapsed; raise objective.momentum or lower optimizer.learning_rate"
        }

    def evaluate(self, params: Params, buffers: Buffers, batch: Batch) -> Sums:
        """Return the sum of each image's mean loss; blocks are the same every time."""
        rows = batch["mask"]
        prepared = self.prepare({"image": batch["image"]}, fold(root(0), "evaluation"))
        losses, _ = self._losses(params, buffers, prepared, None)
        count = prepared["valid"].sum(axis=1).astype(jnp.float32) * self.options.targets
        each = jnp.where(prepared["valid"][:, None], losses, 0).sum(axis=(1, 2)) / count
        return {"loss": jnp.where(rows, each, 0).sum(), "count": rows.sum().astype(jnp.float32)}

    def encode(
        self, params: Params, images: jax.Array, masks: Masks | None, key: jax.Array | None = None
    ) -> jax.Array:
        """Return an encoder's features `(b, n, d)`, or those of the context `(b, k, d)`, which it sees alone.

        Args:
          params: of one encoder.
          images: normalised images `(b, h, w, c)`.
          masks: what it sees; None for all.
          key: None for evaluation.
        """
        encoder = self.functions.bind(params)
        x, around = encoder.embed(images, fold(key, "embed")), Surroundings()
        if masks is not None:
            x = jnp.take_along_axis(x, masks.context[..., None], axis=1)
            around = Surroundings(mask=masks.seen[:, None, None])
        return encoder.encode(x, key, around)[0]

    def illustrate(
        self, params: Params, buffers: Buffers, batch: HostBatch, records: Sequence[str]
    ) -> Illustration:
        """Return images, what the encoder sees of them, and which blocks are predicted."""

        @jax.jit
        def parts(images: jax.Array) -> tuple[jax.Array, jax.Array]:
            prepared = self.prepare({"image": images}, fold(root(0), "illustration"))
            masks = Masks(**{name: prepared[name] for name in Masks._fields})
            patches = patchify(prepared["image"], self.model.patch_size)
            b, n, _ = patches.shape
            row, known = jnp.arange(b)[:, None], masks.valid[:, None] & jnp.ones_like(masks.targets, bool)
            none = jnp.zeros((b, n), bool)
            context = none.at[row, masks.context].max(masks.seen)
            targets = none.at[row[..., None], masks.targets].max(known)
            shape = self.model.patch_size, self.model.grid
            seen, wanted = (
                unpatchify(jnp.where(m[..., None], patches, 0.0), *shape) for m in (context, targets)
            )
            return seen, wanted

        images = batch["image"]
        shown = (denormalise(pixels, self.model.preprocessing) for pixels in on_host(parts(images)))
        examples = [Example(record, pictures, record) for record, *pictures in zip(records, images, *shown)]
        return Illustration("What is seen, and what is predicted", ("image", "context", "targets"), examples)

    def _losses(
        self, params: Params, buffers: Buffers, batch: Batch, key: jax.Array | None
    ) -> tuple[jax.Array, jax.Array]:
        """Return the loss of each predicted patch `(b, t, m)`, and the spread of the targets' features."""
        masks = Masks(**{name: batch[name] for name in Masks._fields})
        target = normalised(self.encode(buffers["target"], batch["image"], None))
        b, t, m = masks.targets.shape
        wanted = jnp.take_along_axis(target, masks.targets.reshape(b, t * m, 1), axis=1).reshape(b, t, m, -1)
        context = self.encode(params["encoder"], batch["image"], masks, fold(key, "encoder"))
        predicted = self.predictor.apply(params["predictor"], context, *masks, fold(key, "predictor"))
        return smooth_l1(predicted, wanted), spread_of(target)


def build(model: Any, options: IJepaOptions, data: DataInfo) -> IJepa:
    """Return the objective; see `objectives.registry`. Labels are not used."""
    return IJepa(patchwise_model(model, "I-JEPA"), options)
