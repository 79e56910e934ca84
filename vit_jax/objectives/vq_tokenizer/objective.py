"""A tokenizer that is trained here, so that BEiT needs no other's: images through codes and back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax.models.functional import ModelFunctions
from vit_jax.models.registry import model_functions
from vit_jax.models.tokenizers.vq_config import VqTokenizerConfig
from vit_jax.objectives.base import Objective
from vit_jax.objectives.images import denormalise, normalise, on_host
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
    Params,
    Sums,
)
from vit_jax.objectives.vq_tokenizer.codebook import followed, offered, perplexity, usage
from vit_jax.objectives.vq_tokenizer.options import VqTokenizerOptions
from vit_jax.random import fold

FEW = 0.02  # share of the codes


@dataclass(frozen=True)
class VqTokenizerObjective(Objective):
    """Squared error of reconstructed pixels, and the distance to the codes that they are made from.

    Attributes:
      model: configuration of the encoder.
      options: codes and decoder.
    """

    model: Any
    options: VqTokenizerOptions
    whole: VqTokenizerConfig = field(init=False)
    functions: ModelFunctions = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        options, width = self.options, self.options.decoder_width
        sizes = dict(width=width, depth=options.decoder_depth, mlp_dim=4 * width)
        decoder = replace(self.model, **sizes, heads=options.decoder_heads, drop_path_rate=0.0)
        whole = VqTokenizerConfig(self.model, decoder, options.vocabulary, options.code_width)
        object.__setattr__(self, "whole", whole)
        object.__setattr__(self, "functions", model_functions(whole))

    @property
    def fields(self) -> Mapping[str, Field]:
        """An image of the model's size."""
        return {"image": Field(self.model.input_shape)}

    @property
    def encoder(self) -> str:
        """Where the encoder's parameters are."""
        return "encoder"

    @property
    def network(self) -> Any:
        """The tokenizer."""
        return self.whole

    @property
    def outputs_named(self) -> bool:
        """False: they are pixels."""
        return False

    @property
    def metric_modes(self) -> Mapping[str, str]:
        """The loss, the error of pixels alone, and how many codes are in use."""
        return {"loss": "min", "pixel_loss": "min", "perplexity": "max"}

    def init(self, key: jax.Array) -> tuple[Params, Buffers]:
        """Return fresh parameters of encoder and decoder, and the codebook."""
        return self.functions.init_state(key)

    def prepare(self, batch: Batch, key: jax.Array) -> Batch:
        """Normalise images and draw which patch of each may become which code, over the whole batch."""
        images, count = normalise(batch["image"], self.model.preprocessing), self.options.vocabulary
        slots = jax.random.permutation(fold(key, "slot"), max(count, len(images)))[: len(images)]
        token = jax.random.randint(fold(key, "token"), (len(images),), 0, self.model.num_patches)
        return {"image": images, "slot": jnp.minimum(slots, count), "token": token}

    def loss(
        self, params: Params, buffers: Buffers, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, LossOutput]:
        """Return the mean loss, and what the codebook follows."""
        pixels, distance, vectors, codes, _ = self._parts(params, buffers, batch["image"], key)
        loss = pixels.mean() + self.options.commitment * distance.mean()
        count = self.options.vocabulary
        vectors = jax.lax.stop_gradient(vectors)
        sums = usage(codes, vectors, count) | offered(vectors, batch["token"], batch["slot"], count)
        metrics = {
            "loss": loss,
            "pixel_loss": pixels.mean(),
            "perplexity": perplexity(buffers["codebook"]["uses"]),
        }
        return loss, LossOutput(metrics, {}, jnp.float32(len(pixels)), sums)

    def combine(self, buffers: Buffers, sums: Sums) -> Buffers:
        """Return the codebook after a step."""
        book, options = buffers["codebook"], self.options
        vectors, uses = followed(book["vectors"], book["uses"], sums, options.decay, options.revive_below)
        return buffers | {"codebook": {"vectors": vectors, "uses": uses}}

    def concerns(self, metrics: Mapping[str, float]) -> Mapping[str, str]:
        """Return that few codes are in use."""
        found, count = metrics["perplexity"], self.options.vocabulary
        if found >= max(2, FEW * count):
            return {}
        return {
            "codes": f"the images use {found:.3g} of {count} codes (perplexity): the codebook has collapsed; raise "
            "objective.revive_below or lower objective.vocabulary"
        }

    def evaluate(self, params: Params, buffers: Buffers, batch: Batch) -> Sums:
        """Return sums of each image's losses, and how often each code was used."""
        rows = batch["mask"]
        images = normalise(batch["image"], self.model.preprocessing)
        pixels, distance, _, codes, _ = self._parts(params, buffers, images, None)
        each = {"loss": pixels + self.options.commitment * distance, "pixel_loss": pixels}
        sums = {name: jnp.where(rows, values, 0).sum() for name, values in each.items()}
        weights = jnp.broadcast_to(rows[:, None], codes.shape).astype(jnp.float32)
        used = jnp.zeros(self.options.vocabulary).at[codes.reshape(-1)].add(weights.reshape(-1))
        return sums | {"used": used, "count": rows.sum().astype(jnp.float32)}

    def summarise(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Return mean losses, and the perplexity of the codes over the whole set."""
        return super().summarise(sums) | {"perplexity": float(perplexity(jnp.asarray(sums["used"])))}

    def illustrate(
        self, params: Params, buffers: Buffers, batch: HostBatch, records: Sequence[str]
    ) -> Illustration:
        """Return images, and what is made of their codes."""

        @jax.jit
        def made(params: Params, buffers: Buffers, images: jax.Array) -> tuple[jax.Array, jax.Array]:
            images = normalise(images, self.model.preprocessing)
            pixels, _, _, _, whole = self._parts(params, buffers, images, None)
            return pixels, whole

        losses, whole = on_host(made(params, buffers, batch["image"]))
        shown = zip(losses, records, batch["image"], denormalise(whole, self.model.preprocessing))
        examples = [Example(f"loss {loss:.3f}", pictures, record) for loss, record, *pictures in shown]
        title = f"Through {self.options.vocabulary} codes and back"
        return Illustration(title, ("image", "reconstructed"), examples)

    def _parts(
        self, params: Params, buffers: Buffers, images: jax.Array, key: jax.Array | None
    ) -> tuple[jax.Array, ...]:
        """Return of each image the error of its pixels and the distance to its codes; vectors, codes, images."""
        (whole, vectors, codes), _ = self.functions.apply_state(params, buffers, images, key)
        pixels = jnp.square(whole - images).mean(axis=(1, 2, 3))
        nearest = jax.lax.stop_gradient(buffers["codebook"]["vectors"])[codes]
        return pixels, jnp.square(vectors - nearest).sum(axis=-1).mean(axis=1), vectors, codes, whole


def build(model: Any, options: VqTokenizerOptions, data: DataInfo) -> VqTokenizerObjective:
    """Return the objective; see `objectives.registry`. Labels are not used."""
    return VqTokenizerObjective(patchwise_model(model, "a tokenizer"), options)
