"""One model's parameters in another's: other image size, patches, channels, classes."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from vit_jax.errors import CheckpointError, ConfigError
from vit_jax.models.preprocessing import Preprocessing
from vit_jax.models.relative import RelativePositions
from vit_jax.models.resample import resample_patch_kernel, resample_positions
from vit_jax.models.vit_config import ViTConfig, replace

Change = tuple[Callable[[np.ndarray], np.ndarray], str]


def adapted(
    config: ViTConfig,
    *,
    num_classes: int | None = None,
    image_size: Any = None,
    in_channels: int | None = None,
    drop_path_rate: float | None = None,
    **options: Any,
) -> ViTConfig:
    """Return the configuration of a checkpoint's model with other sizes.

    Args:
      config: the model in the file.
      num_classes: size of the head; another than the file's also leaves out the layer before the head.
      image_size: in pixels.
      in_channels: channels of the images.
      drop_path_rate: for training.
      **options: any field of `ViTConfig`.

    Raises:
      ConfigError: a value is not allowed.
    """
    given = dict(
        num_classes=num_classes, image_size=image_size, in_channels=in_channels, drop_path_rate=drop_path_rate
    )
    changes = {**options, **{name: value for name, value in given.items() if value is not None}}
    if num_classes and num_classes != config.num_classes:
        changes = {"representation_size": 0, "head_bias": True, **changes}
        if config.pool in ("patches", "none"):
            changes = {"pool": "cls" if config.class_token else "mean", **changes}
    if in_channels and in_channels != config.in_channels:
        changes.setdefault("preprocessing", _other_channels(config.preprocessing, config.in_channels))
    return replace(config, **changes)


def changes(config: ViTConfig, target: ViTConfig, patch_resample: str = "flexi") -> dict[str, Change]:
    """Return what must happen to parameters of one model in another, by path, and in words.

    Args:
      config: the model in the file.
      target: the model that is wanted.
      patch_resample: how patch kernels are resized, see `models.resample.resample_patch_kernel`.

    Raises:
      CheckpointError: the models differ in more than sizes.
    """
    for field in (
        "width",
        "depth",
        "heads",
        "mlp_dim",
        "mlp",
        "backbone",
        "position",
        "position_bias",
        "qkv_bias",
        "k_bias",
    ):
        if getattr(config, field) != getattr(target, field):
            raise CheckpointError(
                f"{field} is {getattr(target, field)!r}, but {getattr(config, field)!r} in the checkpoint; its weights "
                "do not fit another."
            )
    found: dict[str, Change] = {}
    if config.grid != target.grid:
        moved = f"{_by(config.grid)} -> {_by(target.grid)}"
        if config.position == "learned":
            resample = _positions(config, target)
            found["pos_embed"] = (resample, f"{moved}, {config.resample}")
        tables = {"shared": "position_bias", "blocks": "blocks/attn/position_bias"}
        if config.position_bias in tables:
            found[tables[config.position_bias]] = (
                _relative(config, target),
                f"{moved}, {config.bias_resample}",
            )
    elif config.position_slots != target.position_slots and config.position == "learned":
        raise CheckpointError("class_position cannot change: the checkpoint's positions have other slots.")
    first = (
        "backbone/conv_root/kernel"
        if config.backbone
        else "stem/0/kernel"
        if config.stem
        else "patch_embed/kernel"
    )
    kernels: list[Change] = []
    if config.patch_size != target.patch_size:
        if config.stem or config.backbone:
            raise CheckpointError("patch_size cannot change behind a stem or a backbone; leave it.")
        resized = lambda kernel: resample_patch_kernel(kernel, target.patch_size, patch_resample)  # noqa: E731
        kernels.append(
            (resized, f"patches {_by(config.patch_size)} -> {_by(target.patch_size)}, {patch_resample}")
        )
    if config.in_channels != target.in_channels:
        spread = lambda kernel: adapt_channels(kernel, target.in_channels)  # noqa: E731
        kernels.append((spread, f"channels {config.in_channels} -> {target.in_channels}"))
    if kernels:
        found[first] = (_chain([change for change, _ in kernels]), ", ".join(text for _, text in kernels))
    return found


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


def heads_differ(config: ViTConfig, target: ViTConfig) -> bool:
    """Return whether the target needs a head that the file does not have."""
    same = ("num_classes", "feature_width", "representation_size", "head_bias")
    return any(getattr(config, field) != getattr(target, field) for field in same)


def _positions(config: ViTConfig, target: ViTConfig) -> Callable[[np.ndarray], np.ndarray]:
    if (config.class_position, config.class_token) != (target.class_position, target.class_token):
        raise CheckpointError(
            "class_token and class_position cannot change: the checkpoint's positions have other slots."
        )
    prefix = config.position_slots - config.num_patches

    def resample(table: np.ndarray) -> np.ndarray:
        moved = resample_positions(
            jnp.asarray(table), config.grid, target.grid, config.resample, config.resample_antialias, prefix,
            config.resample_offset,
        )  # fmt: skip
        return np.asarray(moved)

    return resample


def _relative(config: ViTConfig, target: ViTConfig) -> Callable[[np.ndarray], np.ndarray]:
    own = RelativePositions(config.grid, config.bias_resample)

    def resample(tables: np.ndarray) -> np.ndarray:
        stacked = tables if tables.ndim == 3 else tables[None]
        moved = np.stack([np.asarray(own.resized(jnp.asarray(table), target.grid)) for table in stacked])
        return moved if tables.ndim == 3 else moved[0]

    return resample


def _chain(steps: list[Callable[[np.ndarray], np.ndarray]]) -> Callable[[np.ndarray], np.ndarray]:
    def run(array: np.ndarray) -> np.ndarray:
        for step in steps:
            array = step(array)
        return array

    return run


def _other_channels(preprocessing: Preprocessing, channels: int) -> Preprocessing:
    """Return preprocessing that serves any number of channels: mean and std averaged over the old ones."""
    if len(preprocessing.mean) != channels:
        return preprocessing
    mean, std = (sum(values) / len(values) for values in (preprocessing.mean, preprocessing.std))
    return dataclasses.replace(preprocessing, mean=(mean,), std=(std,))


def _by(pair: tuple[int, int]) -> str:
    return f"{pair[0]}x{pair[1]}"


def part_of(config: Any, part: str | None, classifier: bool) -> tuple[str, ViTConfig | Any]:
    """Return the path and configuration of the part of a model that is wanted.

    Args:
      config: the model in the file.
      part: `image`, `text`, `encoder`, or None for the whole model.
      classifier: whether a head of classes, or none, is asked for; only the image tower or encoder has one.

    Raises:
      ConfigError: the model has no such part.
    """
    towers: Mapping[str, Any] = {
        name: getattr(config, name)
        for name in ("image", "text", "encoder")
        if dataclasses.is_dataclass(getattr(config, name, None))
    }
    if part is None and classifier and towers:
        part = "encoder" if "encoder" in towers else "image"
    if part is None:
        return "", config
    if part not in towers:
        allowed = ", ".join(towers) or "none"
        raise ConfigError(f"part is {part!r}; the checkpoint's model has the parts: {allowed}.")
    return f"{part}/", towers[part]
