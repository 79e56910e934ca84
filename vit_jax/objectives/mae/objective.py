"""Masked autoencoding (He et al. 2021, arXiv 2111.06377): predict the pixels of hidden patches."""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from vit_jax.errors import ConfigError
from vit_jax.models.families import families, family_of
from vit_jax.models.family import Autoencoder
from vit_jax.models.flops import forward_macs
from vit_jax.models.functional import ModelFunctions
from vit_jax.models.layers.pixels.patches import patchify, unpatchify
from vit_jax.models.mae.masking import visible_patches
from vit_jax.models.registry import model_functions
from vit_jax.objectives.base import Objective
from vit_jax.objectives.images import denormalise, normalise, on_host
from vit_jax.objectives.mae.options import MaeOptions
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
from vit_jax.random import fold, root


def patch_targets(images: jax.Array, patch_size: tuple[int, int], normalise_pixels: bool) -> jax.Array:
    """Return what the decoder should predict.

    Args:
      images: normalised images `(b, h, w, c)`.
      patch_size: height `p` and width `q` of a patch.
      normalise_pixels: remove each patch's own mean and deviation (unbiased variance, epsilon 1e-6).

    Returns:
      `(b, n, p*q*c)`.
    """
    target = patchify(images, patch_size)
    if not normalise_pixels:
        return target
    variance = target.var(axis=-1, keepdims=True, ddof=1)
    return (target - target.mean(axis=-1, keepdims=True)) * jax.lax.rsqrt(variance + 1e-6)


def hidden_patch_losses(predicted: jax.Array, target: jax.Array) -> jax.Array:
    """Return the mean squared error of each patch, `(b, n)`, for patches `(b, n, p*q*c)`."""
    return jnp.square(predicted - target).mean(axis=-1)


@dataclass(frozen=True)
class Mae(Objective):
    """Mean squared error of hidden patches, in plain or normalised pixels.

    Attributes:
      model: configuration of the encoder.
      options: masking, target and decoder.
    """

    model: Any
    options: MaeOptions
    whole: Any = field(init=False)
    functions: ModelFunctions = field(init=False, compare=False)

    def __post_init__(self) -> None:
        options = self.options
        if getattr(self.model, "patch_drop_rate", 0):
            raise ConfigError(
                f"model.patch_drop_rate is {self.model.patch_drop_rate}; masked autoencoding drops patches "
                "itself; set it to 0 and choose objective.mask_ratio."
            )
        network = autoencoder_of(self.model).whole(
            self.model,
            width=options.decoder_width,
            depth=options.decoder_depth,
            heads=options.decoder_heads,
            mlp_dim=options.decoder_mlp_dim or 4 * options.decoder_width,
        )
        if visible_patches(network.units, options.mask_ratio) == network.units:
            raise ConfigError(
                f"objective.mask_ratio is {options.mask_ratio}, which hides none of the {network.units} patches; "
                "choose a larger ratio, or smaller patches."
            )
        object.__setattr__(self, "whole", network)
        object.__setattr__(self, "functions", model_functions(network))

    @property
    def fields(self) -> Mapping[str, Field]:
        """An image of the model's size."""
        return {"image": Field((*self.model.image_size, self.model.in_channels))}

    @property
    def encoder(self) -> str:
        """Where the encoder's parameters are."""
        return "encoder"

    @property
    def network(self) -> Any:
        """The configuration of all parameters: encoder and decoder."""
        return self.whole

    @property
    def train_flops(self) -> float:
        """Floating-point operations of forward and backward for one image."""
        return 6.0 * forward_macs(self.network, 1 - self.options.mask_ratio)

    def init(self, key: jax.Array) -> tuple[Params, Buffers]:
        """Return fresh parameters, `{"encoder": ..., "decoder": ...}`, and no buffers."""
        return self.functions.init(key), {}

    def prepare(self, batch: Batch, key: jax.Array) -> Batch:
        """Normalise images and draw each image's mask, over the whole batch."""
        images = normalise(batch["image"], self.model.preprocessing)
        noise = jax.random.uniform(key, (images.shape[0], self.network.units))
        return {"image": images, "noise": noise}

    def loss(
        self, params: Params, buffers: Buffers, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, LossOutput]:
        """Return the mean loss over all hidden patches."""
        losses, mask, _ = self._losses(params, batch["image"], batch["noise"], key)
        hidden = mask.sum()
        loss = (losses * mask).sum() / hidden
        return loss, LossOutput({"loss": loss}, {}, hidden)

    def evaluate(self, params: Params, buffers: Buffers, batch: Batch) -> Sums:
        """Return the sum of each image's mean loss over its hidden patches; masks are the same every time."""
        batch = dict(batch)
        rows = batch.pop("mask").astype(jnp.float32)
        prepared = self.prepare(batch, fold(root(0), "evaluation"))
        losses, mask, _ = self._losses(params, prepared["image"], prepared["noise"], None)
        per_image = (losses * mask).sum(axis=1) / mask.sum(axis=1)
        return {"loss": jnp.sum(jnp.where(rows > 0, per_image, 0)), "count": rows.sum()}

    def illustrate(
        self, params: Params, buffers: Buffers, batch: HostBatch, records: Sequence[str]
    ) -> Illustration:
        """Return images, what the encoder saw of them, and what the decoder made of it."""

        @jax.jit
        def reconstruct(params: Params, images: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
            prepared = self.prepare({"image": images}, fold(root(0), "illustration"))
            images = prepared["image"]
            losses, mask, predicted = self._losses(params, images, prepared["noise"], None)
            patches = patchify(images, self.network.patch_size)
            if self.options.normalise_pixels:  # put each patch's own mean and deviation back
                deviation = jnp.sqrt(patches.var(axis=-1, keepdims=True, ddof=1) + 1e-6)
                predicted = predicted * deviation + patches.mean(axis=-1, keepdims=True)
            hidden = mask[..., None] > 0
            seen = jnp.where(hidden, jnp.zeros_like(patches), patches)
            whole = jnp.where(hidden, predicted, patches)
            shape = (self.network.patch_size, self.network.grid)
            return unpatchify(seen, *shape), unpatchify(whole, *shape), (losses * mask).sum(1) / mask.sum(1)

        images = batch["image"]
        seen, whole, losses = on_host(reconstruct(params, images))
        seen, whole = (denormalise(pixels, self.model.preprocessing) for pixels in (seen, whole))
        examples = [
            Example(f"loss {loss:.3f}", pictures, record)
            for loss, record, *pictures in zip(losses, records, images, seen, whole)
        ]
        title = f"Reconstruction with {self.options.mask_ratio:.0%} of the patches hidden"
        return Illustration(title, ("image", "seen", "reconstructed"), examples)

    def _losses(
        self, params: Params, images: jax.Array, noise: jax.Array, key: jax.Array | None
    ) -> tuple[Any, Any, Any]:
        predicted, mask = self.functions.apply(params, images, noise, self.options.mask_ratio, key)
        target = patch_targets(images, self.network.patch_size, self.options.normalise_pixels)
        return hidden_patch_losses(predicted, target), mask, predicted


def autoencoder_of(model: Any) -> Autoencoder:
    """Return how masked autoencoders are made of a model's family.

    Raises:
      ConfigError: there is none.
    """
    family = family_of(model)
    module, _, name = family.autoencoder.partition(":")
    if not module:
        able = ", ".join(other.name for other in families() if other.autoencoder)
        raise ConfigError(
            f"a model of family {family.name!r} cannot be trained as a masked autoencoder; choose one of {able}, or "
            "another objective."
        )
    return getattr(importlib.import_module(module), name)


def build(model: Any, options: MaeOptions, data: DataInfo) -> Mae:
    """Return the objective; see `objectives.registry`. Labels are not used."""
    return Mae(autoencoder_of(model).encoder(model), options)
