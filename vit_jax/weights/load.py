"""Anybody's checkpoint as a model of ours."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vit_jax.errors import ConfigError
from vit_jax.models.families import family_of, is_image_encoder
from vit_jax.models.layers.encoder_config import replace
from vit_jax.models.maps import Chosen
from vit_jax.models.names import resolve as model_names
from vit_jax.models.pyramid.config import PyramidConfig
from vit_jax.models.registry import Model, ModelConfig, model_functions
from vit_jax.weights import adapt
from vit_jax.weights.formats.files import open_checkpoint
from vit_jax.weights.formats.tensors import RawCheckpoint
from vit_jax.weights.head import Classes, Head, choose_head, class_axes, head_changes
from vit_jax.weights.layouts.layout import Layout
from vit_jax.weights.native import is_native, open_native
from vit_jax.weights.pretrained import Ignored, Pretrained, matched, names_of
from vit_jax.weights.remote.fetch import fetch
from vit_jax.weights.understand import understand


def load(
    source: str | Path,
    *,
    num_classes: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    in_channels: int | None = None,
    drop_path_rate: float | None = None,
    ignore: Sequence[str] = (),
    weights: str | None = None,
    levels: Chosen | None = None,
    resample: bool = False,
    verbose: bool = True,
    seed: int = 0,
    **options: Any,
) -> Model:
    """Return the model of a checkpoint, computing what the library that published it computes.

    Args:
      source: a file or folder; a repository of the Hugging Face hub (`timm/vit_base_patch16_224.augreg_in21k_ft_in1k`,
        `hf-hub:google/vit-base-patch16-224`, `facebook/dinov2-base`); `gs://vit_models/...npz` or an https URL.
      num_classes: size of a new head, 0 for none; None keeps the checkpoint's.
      image_size: in pixels; positions are resampled by the rule of the model's family.
      in_channels: channels of the images; the first kernel is adapted.
      drop_path_rate: for training.
      ignore: patterns of arrays in the file, or of our parameters, that may be unknown or missing.
      weights: which set of a file that holds several, by its name there, for example `student` or `state_dict`; None
        for the one that the program that wrote it evaluates, see `weights.formats.which`.
      levels: take the image encoder without its head, and give maps of features instead of logits: strides in pixels
        such as `(4, 8, 16, 32)`, names such as `stages/1` or `blocks/-1`, or both, see `models.maps.named_levels`.
        Where the family can, images of other sizes than the model's own are taken, too.
      resample: take of a stride that no map has the map of the nearest, bilinear.
      verbose: whether to print what was changed, dropped or is new, and which of several sets of weights this is.
      seed: of new parameters.
      **options: see `open_pretrained`.

    Returns:
      A `VisionTransformer`, `MaskedAutoencoder`, `ImageTextModel` or `TextTransformer`; its `config.preprocessing`
      is that of the source. With `levels` a `Pyramid`: `model(images)` is a tuple of maps `(b, h, w, c)`, of which
      `model.levels` says name, stride, channels and grid.

    Raises:
      CheckpointError: there is no such checkpoint, it is damaged, or it holds what the model does not have.
      ConfigError: an option is wrong.
    """
    if levels is None and resample:
        raise ConfigError("resample applies to levels; give levels, or leave it out.")
    if levels is not None and num_classes:
        raise ConfigError(
            f"num_classes is {num_classes}, but maps are taken before the head; leave out num_classes or levels."
        )
    pretrained = open_pretrained(
        source,
        num_classes=num_classes if levels is None else 0,
        image_size=image_size,
        in_channels=in_channels,
        drop_path_rate=drop_path_rate,
        ignore=ignore,
        weights=weights,
        **options,
    )
    config = pretrained.config
    if levels is not None:
        if "dynamic_image_size" in {field.name for field in dataclasses.fields(config)} - options.keys():
            config = replace(config, dynamic_image_size=True)
        config = PyramidConfig.of(config, levels, resample)
    report = pretrained.report
    if verbose and (report.changed or report.new or report.dropped or report.other_weights):
        print(report)
    params = pretrained.params(seed=seed)
    return model_functions(config).bind(params if levels is None else {"encoder": params})


def open_pretrained(
    source: str | Path,
    *,
    num_classes: int | None = None,
    image_size: Any = None,
    in_channels: int | None = None,
    drop_path_rate: float | None = None,
    ignore: Sequence[str] | Ignored = (),
    weights: str | None = None,
    model: str | ModelConfig | None = None,
    part: str | None = None,
    classifier: bool = False,
    patch_resample: str = "flexi",
    head_std: float = 0.0,
    native_size: bool = False,
    data_classes: Classes | None = None,
    **options: Any,
) -> Pretrained:
    """Return a checkpoint understood and checked, from its headers alone.

    Args:
      source, num_classes, image_size, in_channels, drop_path_rate, ignore, weights: see `load`.
      model: name or configuration of the model, for files that do not say it.
      part: `image`, `text` or `encoder` of a model of several parts; None for all, or for the part that can have
        classes when `num_classes` is given, be it 0.
      classifier: take that part without `num_classes` too.
      patch_resample: how patch kernels go to another `patch_size`, `flexi` or `bilinear`.
      head_std: deviation of a new head's weights; 0 starts it at zero.
      native_size: keep the size of the checkpoint's positions even if its preprocessing makes smaller images.
      data_classes: of the data that `num_classes` counts, which decide what becomes of the head, see `weights.head`;
        None keeps a head of as many classes.
      **options: any field of the configuration, for example `patch_size`, `pool` or `dtype`.

    Raises:
      CheckpointError, ConfigError: see `load`.
      DataError: see `weights.head`.
    """
    raw, layout = open_layout(source, model, weights)
    prefix, config = adapt.part_of(layout.config, part, classifier or num_classes is not None)
    if is_image_encoder(config) and image_size is None and not native_size:
        image_size = layout.input_size
    head = _head(layout, config, data_classes)
    adaptation = adapt.adaptation_of(config)
    if (
        adaptation is not None and head is not None and head.rows is not None
    ):  # another size, but the same head
        options = {name: getattr(config, name) for name in adaptation.head_fields} | options
    target = adapt.adapted(
        config,
        new_head=head is not None and head.new,
        num_classes=num_classes,
        image_size=image_size,
        in_channels=in_channels,
        drop_path_rate=drop_path_rate,
        **options,
    )
    changes = adapt.changes(config, target, patch_resample)
    if head is not None and head.rows is not None:
        changes |= head_changes(config, head.rows)
    fresh = class_axes(config) if head is not None and head.new else ()
    headless = num_classes is not None and (not num_classes or num_classes != config.num_classes)
    names = (
        None
        if head is None or head.rows is None or data_classes is None
        else (data_classes.names, data_classes.named)
    )
    found = matched(
        raw, layout, prefix, config, target, changes, ignore, head_std, str(source), headless, fresh, names
    )
    found.report.head = "" if head is None else head.told
    return found


def _head(layout: Layout, config: ModelConfig, classes: Classes | None) -> Head | None:
    """Return what becomes of the head, if there is one of classes and it is known what the new ones are."""
    if classes is None or not is_image_encoder(config) or not config.num_classes:
        return None
    if not family_of(config).per_image(config):
        return None
    if classes.values or config.problem == "regression":
        now = "values are learned on a scale of their own" if classes.values else "classes are learned"
        return Head(None, True, f"new: its outputs were {config.problem} and {now}")
    names, named = names_of(layout)
    whole = len(names) == config.num_classes
    return choose_head(names if whole else (), named, config.num_classes, classes)


def open_layout(
    source: str | Path, model: str | ModelConfig | None = None, weights: str | None = None
) -> tuple[RawCheckpoint, Layout]:
    """Return a checkpoint, fetched if need be, and what it is; see `open_pretrained`."""
    path = fetch(str(source))
    if is_native(path):
        return open_native(path, weights)
    raw = open_checkpoint(path, weights)
    if isinstance(model, str):
        model = model_names.resolve(model)[1]
    return understand(raw, model)
