"""BEiT (Bao et al. 2021, arXiv 2106.08254): predict the codes that a frozen tokenizer gives to hidden patches."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from vit_jax.errors import ConfigError
from vit_jax.models.families import family_of
from vit_jax.models.functional import ModelFunctions
from vit_jax.models.layers.pixels.patches import patchify, unpatchify
from vit_jax.models.registry import model_functions
from vit_jax.objectives.base import Objective
from vit_jax.objectives.beit.losses import token_losses
from vit_jax.objectives.beit.options import BeitOptions
from vit_jax.objectives.images import denormalise, normalise, on_host
from vit_jax.objectives.masked.model import last_level, masked_model
from vit_jax.objectives.protocol import (
    Batch,
    Buffers,
    Constant,
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


@dataclass(frozen=True)
class Beit(Objective):
    """Cross-entropy of the codes of hidden patches.

    Attributes:
      model: configuration of the model; its outputs are scores of codes for each patch.
      options: the tokenizer.
      tokenizer: its configuration.
      moment: has the tokenizer's parameters.
    """

    model: Any
    options: BeitOptions
    tokenizer: Any
    moment: Moment | None = None
    functions: ModelFunctions = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        level, grid = last_level(self.model), self.model.grid
        if level.grid != grid:
            raise ConfigError(
                f"BEiT predicts a code for each patch, but the last map of the model has {level.grid} places for "
                f"{grid} patches; choose a plain ViT."
            )
        own = self.tokenizer.image_size
        if own not in (None, self.token_size):
            raise ConfigError(
                f"objective.tokenizer {self.options.tokenizer!r} takes images of {own} and has a code for "
                f"{self.tokenizer.stride} pixels, but the model has {grid} patches, of which each needs one; choose "
                "another model.image_size or patch_size, or another tokenizer."
            )
        object.__setattr__(self, "functions", model_functions(self.model))

    @property
    def token_size(self) -> tuple[int, int]:
        """Height and width of the images that the tokenizer must see, so that each patch has a code."""
        (rows, columns), (p, q) = self.model.grid, self.tokenizer.stride
        return rows * p, columns * q

    @property
    def fields(self) -> Mapping[str, Field]:
        """An image, the same for the tokenizer, and which patches are hidden."""
        return {
            "image": Field(self.model.input_shape),
            "token_image": Field((*self.token_size, self.tokenizer.in_channels), "uint8"),
            "patch_mask": Field((self.model.num_patches,), "bool"),
        }

    @property
    def outputs_named(self) -> bool:
        """False: they are codes."""
        return False

    @property
    def metric_modes(self) -> Mapping[str, str]:
        """The loss, and how many codes of hidden patches are the most probable ones."""
        return {"loss": "min", "token_accuracy": "max"}

    @property
    def train_flops(self) -> float:
        """Floating-point operations for one image: the model forward and backward, the tokenizer forward."""
        return super().train_flops + 2.0 * self.tokenizer.code_macs(self.model.num_patches)

    def constants(self) -> Mapping[str, Constant]:
        """Return the tokenizer."""
        return {"tokenizer": Constant(self.tokenizer, self.options.tokenizer)}

    def at(self, moment: Moment) -> "Beit":
        """Return the objective with the tokenizer's parameters."""
        return dataclasses.replace(self, moment=moment)

    def init(self, key: jax.Array) -> tuple[Params, Buffers]:
        """Return fresh parameters of the model, and its state."""
        return self.functions.init_state(key)

    def prepare(self, batch: Batch, key: jax.Array) -> Batch:
        """Normalise images and give every patch its code, over the whole batch."""
        assert self.moment is not None
        tokenizer = model_functions(self.tokenizer).bind(self.moment.constants["tokenizer"])
        codes = tokenizer.codes(normalise(batch["token_image"], self.tokenizer.preprocessing))
        images = normalise(batch["image"], self.model.preprocessing)
        return {"image": images, "codes": codes, "hidden": batch["patch_mask"]}

    def loss(
        self, params: Params, buffers: Buffers, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, LossOutput]:
        """Return the mean loss over all hidden patches."""
        losses, right, buffers = self._losses(params, buffers, batch, key)
        hidden = batch["hidden"].astype(jnp.float32)
        count = jnp.maximum(hidden.sum(), 1e-12)  # a microbatch may have none
        loss, accuracy = ((values * hidden).sum() / count for values in (losses, right))
        return loss, LossOutput({"loss": loss, "token_accuracy": accuracy}, buffers, count)

    def evaluate(self, params: Params, buffers: Buffers, batch: Batch) -> Sums:
        """Return sums of each image's means over its hidden patches; one without any does not count."""
        rows = batch["mask"] & batch["patch_mask"].any(axis=1)
        prepared = self.prepare(batch, jax.random.key(0))
        losses, right, _ = self._losses(params, buffers, prepared, None)
        hidden = prepared["hidden"].astype(jnp.float32)
        count = jnp.maximum(hidden.sum(axis=1), 1.0)
        means = {
            "loss": (losses * hidden).sum(axis=1) / count,
            "token_accuracy": (right * hidden).sum(axis=1) / count,
        }
        sums = {name: jnp.where(rows, values, 0).sum() for name, values in means.items()}
        return sums | {"count": rows.sum().astype(jnp.float32)}

    def illustrate(
        self, params: Params, buffers: Buffers, batch: HostBatch, records: Sequence[str]
    ) -> Illustration:
        """Return images, and what the model sees of them."""

        @jax.jit
        def seen(images: jax.Array, hidden: jax.Array) -> jax.Array:
            level = last_level(self.model)
            patches = patchify(normalise(images, self.model.preprocessing), level.stride)
            return unpatchify(jnp.where(hidden[..., None], 0.0, patches), level.stride, level.grid)

        pixels = denormalise(on_host(seen(batch["image"], batch["patch_mask"])), self.model.preprocessing)
        shown = zip(records, batch["image"], batch["token_image"], pixels)
        examples = [Example(record, pictures, record) for record, *pictures in shown]
        return Illustration(
            "What is seen, and what has codes", ("image", "for the tokenizer", "seen"), examples
        )

    def _losses(
        self, params: Params, buffers: Buffers, batch: Batch, key: jax.Array | None
    ) -> tuple[jax.Array, jax.Array, Buffers]:
        out, buffers = self.functions.apply_state(params, buffers, batch["image"], key, mask=batch["hidden"])
        logits = out.reshape(len(out), -1, out.shape[-1])
        return *token_losses(logits, batch["codes"]), buffers


def tokenizer_of(source: str) -> Any:
    """Return the configuration of the tokenizer in a checkpoint.

    Raises:
      ConfigError: it is none.
      VitError: it cannot be read.
    """
    # Here because reading checkpoints takes imports that other objectives can do without.
    from vit_jax.weights.load import open_pretrained

    config = open_pretrained(source).config
    if not hasattr(config, "vocabulary"):
        raise ConfigError(
            f"objective.tokenizer is {source!r}, which holds a model of family {family_of(config).name!r}; it must be "
            "a tokenizer: the workdir of a run of vq_tokenizer, or the encoder of DALL-E."
        )
    return config


def build(model: Any, options: BeitOptions, data: DataInfo) -> Beit:
    """Return the objective; see `objectives.registry`. Labels are not used."""
    tokenizer = tokenizer_of(options.tokenizer)
    return Beit(masked_model(model, "BEiT", tokenizer.vocabulary), options, tokenizer)
