"""Anybody's checkpoint as a model of ours."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vit_jax.errors import ConfigError
from vit_jax.models import names as model_names
from vit_jax.models.encoder_config import EncoderConfig, replace
from vit_jax.models.registry import ModelConfig, model_functions
from vit_jax.models.text_config import TextConfig
from vit_jax.models.vit_config import ViTConfig
from vit_jax.weights import adapt
from vit_jax.weights.fetch import fetch
from vit_jax.weights.files import open_checkpoint
from vit_jax.weights.layouts.layout import Layout
from vit_jax.weights.native import is_native, open_native
from vit_jax.weights.pretrained import Pretrained, matched
from vit_jax.weights.tensors import RawCheckpoint
from vit_jax.weights.understand import understand


def load(
    source: str | Path,
    *,
    num_classes: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    in_channels: int | None = None,
    drop_path_rate: float | None = None,
    ignore: Sequence[str] = (),
    verbose: bool = True,
    seed: int = 0,
    **options: Any,
) -> Any:
    """Return the model of a checkpoint, computing what the library that published it computes.

    Args:
      source: a file or folder; a repository of the Hugging Face hub (`timm/vit_base_patch16_224.augreg_in21k_ft_in1k`,
        `hf-hub:google/vit-base-patch16-224`, `facebook/dinov2-base`); `gs://vit_models/...npz` or an https URL.
      num_classes: size of a new head, 0 for none; None keeps the checkpoint's.
      image_size: in pixels; positions are resampled by the rule of the model's family.
      in_channels: channels of the images; the first kernel is adapted.
      drop_path_rate: for training.
      ignore: patterns of arrays in the file, or of our parameters, that may be unknown or missing.
      verbose: whether to print what was changed, dropped or is new, if anything.
      seed: of new parameters.
      **options: see `open_pretrained`.

    Returns:
      A `VisionTransformer`, `MaskedAutoencoder`, `ImageTextModel` or `TextTransformer`; its `config.preprocessing`
      is that of the source.

    Raises:
      CheckpointError: there is no such checkpoint, it is damaged, or it holds what the model does not have.
      ConfigError: an option is wrong.
    """
    pretrained = open_pretrained(
        source,
        num_classes=num_classes,
        image_size=image_size,
        in_channels=in_channels,
        drop_path_rate=drop_path_rate,
        ignore=ignore,
        **options,
    )
    report = pretrained.report
    if verbose and (report.changed or report.new or report.dropped):
        print(report)
    return model_functions(pretrained.config).bind(pretrained.params(seed=seed))


def open_pretrained(
    source: str | Path,
    *,
    num_classes: int | None = None,
    image_size: Any = None,
    in_channels: int | None = None,
    drop_path_rate: float | None = None,
    ignore: Sequence[str] = (),
    model: str | ModelConfig | None = None,
    part: str | None = None,
    patch_resample: str = "flexi",
    head_std: float = 0.0,
    native_size: bool = False,
    **options: Any,
) -> Pretrained:
    """Return a checkpoint understood and checked, from its headers alone.

    Args:
      source, num_classes, image_size, in_channels, drop_path_rate, ignore: see `load`.
      model: name or configuration of the model, for files that do not say it.
      part: `image`, `text` or `encoder` of a model of several parts; None for all, or for the part that can have
        classes when `num_classes` is given, be it 0.
      patch_resample: how patch kernels go to another `patch_size`, `flexi` or `bilinear`.
      head_std: deviation of a new head's weights; 0 starts it at zero.
      native_size: keep the size of the checkpoint's positions even if its preprocessing makes smaller images.
      **options: any field of `ViTConfig`, for example `patch_size`, `pool` or `dtype`.

    Raises:
      CheckpointError, ConfigError: see `load`.
    """
    raw, layout = open_layout(source, model)
    prefix, config = adapt.part_of(layout.config, part, num_classes is not None)
    if isinstance(config, ViTConfig):
        if image_size is None and not native_size:
            image_size = layout.input_size
        target = adapt.adapted(
            config,
            num_classes=num_classes,
            image_size=image_size,
            in_channels=in_channels,
            drop_path_rate=drop_path_rate,
            **options,
        )
        changes = adapt.changes(config, target, patch_resample)
    else:
        sizes = dict(num_classes=num_classes, image_size=image_size, in_channels=in_channels)
        asked = {name: value for name, value in {**sizes, **options}.items() if value is not None}
        target, changes = _whole(config, asked, drop_path_rate), {}
    return matched(raw, layout, prefix, config, target, changes, ignore, head_std, str(source))


def open_layout(source: str | Path, model: str | ModelConfig | None = None) -> tuple[RawCheckpoint, Layout]:
    """Return a checkpoint, fetched if need be, and what it is; see `open_pretrained`."""
    path = fetch(str(source))
    if is_native(path):
        return open_native(path)
    raw = open_checkpoint(path)
    if isinstance(model, str):
        model = model_names.resolve(model)[1]
    return understand(raw, model)


def _whole(config: ModelConfig, asked: Mapping[str, Any], drop_path_rate: float | None) -> ModelConfig:
    """Return a model of several parts with options that concern how it runs; others would not fit its weights."""
    if drop_path_rate is not None:
        asked = {**asked, "drop_path_rate": drop_path_rate}
    for name in asked:
        if name not in ("dtype", "attention", "remat", "unroll"):
            raise ConfigError(
                f"{name} cannot change in a model of several parts; load one of them, with part='image', 'text' or "
                "'encoder'."
            )
    if isinstance(config, TextConfig):
        return replace(config, **asked)
    parts = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    towers = {name: replace(part, **asked) for name, part in parts.items() if isinstance(part, EncoderConfig)}
    return dataclasses.replace(config, **towers)
