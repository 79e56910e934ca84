"""What may change of a model when weights are loaded into it: other classes, sizes, patches, channels.

A family says it by an `Adaptation` of its own; the record of the family names it, and it is imported when weights are.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from vit_jax.errors import CheckpointError
from vit_jax.models.family import Config
from vit_jax.models.layers.encoder_config import replace
from vit_jax.models.layers.pixels.sizes import pair
from vit_jax.models.preprocessing import Preprocessing

# What makes of a parameter the one that is wanted, and what to say of it.
Change = tuple[Callable[[np.ndarray], np.ndarray], str]


class Adaptation:
    """Of an image encoder: other classes, channels, and whatever is in `ImageConfig`'s fields and no weight depends on.

    Attributes:
      fixed: fields that the file's weights fit with one value only.
      head_fields: fields that belong to the head, and stay where it is kept for some of its classes.
    """

    fixed: tuple[str, ...] = ()
    head_fields: tuple[str, ...] = ("problem",)

    def adapted(self, config: Config, options: Mapping[str, Any], new_head: bool = False) -> Config:
        """Return the configuration of a checkpoint's model with other fields.

        Args:
          config: the model in the file.
          options: fields of the configuration. Another number of classes also leaves out what the outputs meant.
          new_head: whether the head is new though it has the file's size.

        Raises:
          ConfigError: a value is not allowed.
        """
        classes = options.get("num_classes")
        changes = dict(options)
        if classes is not None and (new_head or classes != config.num_classes):
            changes = {**self.other_head(config, classes), **changes}
        size = options.get("image_size")
        if size is not None and pair(size, "image_size") != config.image_size:
            changes.setdefault("preprocessing", self.resized_preprocessing(config))
        channels = options.get("in_channels")
        if channels and channels != config.in_channels:
            changes.setdefault("preprocessing", _any_channels(config.preprocessing, config.in_channels))
        return replace(config, **changes)

    def changes(self, config: Config, target: Config, patch_resample: str = "flexi") -> dict[str, Change]:
        """Return what must happen to parameters of one model in another, by path, and in words.

        Args:
          config: the model in the file.
          target: the model that is wanted.
          patch_resample: how patch kernels are resized, `flexi` or `bilinear`.

        Raises:
          CheckpointError: the models differ in more than may change.
        """
        for field in self.fixed:
            if getattr(config, field) != getattr(target, field):
                raise CheckpointError(
                    f"{field} is {getattr(target, field)!r}, but {getattr(config, field)!r} in the checkpoint; "
                    "its weights do not fit any other value."
                )
        steps = self.first_kernel_steps(config, target, patch_resample)
        if config.in_channels != target.in_channels:
            spread = lambda kernel: adapt_channels(kernel, target.in_channels)  # noqa: E731
            steps.append((spread, f"channels {config.in_channels} -> {target.in_channels}"))
        if not steps:
            return {}
        chain = [change for change, _ in steps]
        return {self.first_kernel(config): (_chained(chain), ", ".join(text for _, text in steps))}

    def first_kernel(self, config: Config) -> str:
        """Return the path of the kernel that sees the pixels, `(p, q, c, d)`."""
        return "patch_embed/kernel"

    def first_kernel_steps(self, config: Config, target: Config, patch_resample: str) -> list[Change]:
        """Return what must happen to that kernel before its channels change."""
        return []

    def other_head(self, config: Config, num_classes: int) -> dict[str, Any]:
        """Return fields of a model with another head, unless others are asked for."""
        return {"problem": "single_label"}

    def resized_preprocessing(self, config: Config) -> Preprocessing:
        """Return the preprocessing for images of another size."""
        return config.preprocessing


def adapt_channels(kernel: np.ndarray, channels: int) -> np.ndarray:
    """Return a first kernel for another number of input channels, as timm does.

    One channel gets the sum over the old ones, so that grey images give what they gave as colour; more repeat the old
    ones in turn, scaled so that the output keeps its size.

    Args:
      kernel: (p q c d).
      channels: the new c.
    """
    old = kernel.shape[2]
    if channels == 1:
        return kernel.sum(axis=2, keepdims=True)
    repeated = np.take(kernel, np.arange(channels) % old, axis=2)
    return (repeated * (old / channels)).astype(kernel.dtype)


def _chained(steps: list[Callable[[np.ndarray], np.ndarray]]) -> Callable[[np.ndarray], np.ndarray]:
    def run(array: np.ndarray) -> np.ndarray:
        for step in steps:
            array = step(array)
        return array

    return run


def _any_channels(preprocessing: Preprocessing, channels: int) -> Preprocessing:
    """Return preprocessing that serves any number of channels: mean and std averaged over the old ones."""
    if len(preprocessing.mean) != channels:
        return preprocessing
    mean, std = (sum(values) / len(values) for values in (preprocessing.mean, preprocessing.std))
    return dataclasses.replace(preprocessing, mean=(mean,), std=(std,))
