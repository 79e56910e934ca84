"""SimMIM (Xie et al. 2021, arXiv 2111.09886): predict the pixels of hidden squares by a linear layer."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from vit_jax.errors import ConfigError
from vit_jax.models.functional import ModelFunctions
from vit_jax.models.layers.pixels.patches import unpatchify
from vit_jax.models.registry import model_functions
from vit_jax.objectives.base import Objective
from vit_jax.objectives.images import denormalise, normalise, on_host
from vit_jax.objectives.masked.model import last_level, masked_model
from vit_jax.objectives.protocol import (
    Batch,
    Buffers,
    DataInfo,
    Example,
    Field,
    HostBatch,
    Illustration,
    LossOutput,
    Params,
    Sums,
)
from vit_jax.objectives.simmim.losses import enlarged, hidden_errors, hidden_squares, l1_loss
from vit_jax.objectives.simmim.options import SimmimOptions
from vit_jax.random import fold, root


@dataclass(frozen=True)
class Simmim(Objective):
    """Mean absolute error of the pixels of hidden squares.

    Attributes:
      model: configuration of the model; its outputs are the pixels of each place of its last map.
      options: what is hidden.
    """

    model: Any
    options: SimmimOptions
    functions: ModelFunctions = field(init=False, compare=False)

    def __post_init__(self) -> None:
        side, stride = self.options.mask_size, last_level(self.model).stride
        for pixels, patch in zip(self.model.image_size, self.model.patch_size):
            if pixels % side or side % patch:
                raise ConfigError(
                    f"objective.mask_size is {side}; it must be a multiple of the patches' {patch} pixels and divide "
                    f"the images' {pixels}."
                )
        if any(pixels % step for pixels, step in zip(self.model.image_size, stride)):
            raise ConfigError(
                f"model.image_size is {self.model.image_size}, but each place of the last map predicts {stride} "
                "pixels; choose a multiple."
            )
        if self.hidden_count == math.prod(self.squares):
            raise ConfigError(
                f"objective.mask_ratio is {self.options.mask_ratio}, which hides all {self.hidden_count} squares of "
                f"{side} pixels; choose a smaller ratio, or a smaller objective.mask_size."
            )
        object.__setattr__(self, "functions", model_functions(self.model))

    @property
    def squares(self) -> tuple[int, int]:
        """Rows and columns of squares that are hidden or not."""
        height, width = self.model.image_size
        return height // self.options.mask_size, width // self.options.mask_size

    @property
    def hidden_count(self) -> int:
        """How many of them are hidden."""
        return math.ceil(math.prod(self.squares) * self.options.mask_ratio)

    @property
    def outputs_named(self) -> bool:
        """False: they are pixels."""
        return False

    @property
    def fields(self) -> Mapping[str, Field]:
        """An image of the model's size."""
        return {"image": Field(self.model.input_shape)}

    def init(self, key: jax.Array) -> tuple[Params, Buffers]:
        """Return fresh parameters of the model, and its state."""
        return self.functions.init_state(key)

    def prepare(self, batch: Batch, key: jax.Array) -> Batch:
        """Normalise images and draw each image's hidden squares, over the whole batch."""
        images = normalise(batch["image"], self.model.preprocessing)
        noise = jax.random.uniform(key, (images.shape[0], math.prod(self.squares)))
        return {"image": images, "hidden": hidden_squares(noise, self.hidden_count)}

    def loss(
        self, params: Params, buffers: Buffers, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, LossOutput]:
        """Return the mean loss over all hidden pixels."""
        predicted, buffers = self.reconstruct(params, buffers, batch, key)
        errors, count = hidden_errors(batch["image"], predicted, self._hidden_pixels(batch))
        loss = l1_loss(errors.sum(), count.sum())
        return loss, LossOutput({"loss": loss}, buffers, count.sum())

    def evaluate(self, params: Params, buffers: Buffers, batch: Batch) -> Sums:
        """Return the sum of each image's mean loss; what is hidden is the same every time."""
        rows = batch["mask"]
        prepared = self.prepare({"image": batch["image"]}, fold(root(0), "evaluation"))
        predicted, _ = self.reconstruct(params, buffers, prepared, None)
        errors, count = hidden_errors(prepared["image"], predicted, self._hidden_pixels(prepared))
        losses = jnp.where(rows, l1_loss(errors, count), 0)
        return {"loss": losses.sum(), "count": rows.sum().astype(jnp.float32)}

    def reconstruct(
        self, params: Params, buffers: Buffers, batch: Batch, key: jax.Array | None
    ) -> tuple[jax.Array, Buffers]:
        """Return the pixels that the model makes of a prepared batch, `(b, h, w, c)`, and its state.

        Args:
          params, buffers: of the model.
          batch: `image` `(b, h, w, c)`, and which squares are `hidden`, bool `(b, n)`.
          key: None for evaluation.
        """
        (rows, columns), side = self.squares, self.options.mask_size
        times = [side // patch for patch in self.model.patch_size]
        mask = enlarged(batch["hidden"].reshape(-1, rows, columns), (times[0], times[1]))
        images = batch["image"]
        out, buffers = self.functions.apply_state(
            params, buffers, images, key, mask=mask.reshape(len(images), -1)
        )
        level = last_level(self.model)
        return unpatchify(out.reshape(len(images), -1, out.shape[-1]), level.stride, level.grid), buffers

    def illustrate(
        self, params: Params, buffers: Buffers, batch: HostBatch, records: Sequence[str]
    ) -> Illustration:
        """Return images, what the model saw of them, and what it made of the rest."""

        @jax.jit
        def parts(params: Params, buffers: Buffers, images: jax.Array) -> tuple[jax.Array, ...]:
            prepared = self.prepare({"image": images}, fold(root(0), "illustration"))
            predicted, _ = self.reconstruct(params, buffers, prepared, None)
            images, hidden = prepared["image"], self._hidden_pixels(prepared)
            errors, count = hidden_errors(images, predicted, hidden)
            hidden = hidden[..., None]
            seen, whole = jnp.where(hidden, 0.0, images), jnp.where(hidden, predicted, images)
            return seen, whole, l1_loss(errors, count)

        images = batch["image"]
        seen, whole, losses = on_host(parts(params, buffers, images))
        seen, whole = (denormalise(pixels, self.model.preprocessing) for pixels in (seen, whole))
        examples = [
            Example(f"loss {loss:.3f}", pictures, record)
            for loss, record, *pictures in zip(losses, records, images, seen, whole)
        ]
        title = f"Reconstruction with {self.options.mask_ratio:.0%} of the squares hidden"
        return Illustration(title, ("image", "seen", "reconstructed"), examples)

    def _hidden_pixels(self, batch: Batch) -> jax.Array:
        side = self.options.mask_size
        return enlarged(batch["hidden"].reshape(-1, *self.squares), (side, side))


def build(model: Any, options: SimmimOptions, data: DataInfo) -> Simmim:
    """Return the objective; see `objectives.registry`. Labels are not used."""
    return Simmim(masked_model(model, "SimMIM"), options)
