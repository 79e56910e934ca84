"""The model that a configuration describes: by name, by a checkpoint, or as an earlier run resolved it."""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from vit_jax.errors import ConfigError
from vit_jax.models.config_json import config_from_json
from vit_jax.models.families import family_of, image_config, is_image_encoder
from vit_jax.models.layers.encoder_config import replace
from vit_jax.models.registry import model_config
from vit_jax.training.config.defaults import Config
from vit_jax.training.config.rules import CHECKPOINT_KEYS
from vit_jax.training.devices.hardware import compute_dtype

ALL = "all"  # as `model.weights`: what a run has learned beside its model, too, see `training.parts.stage`

if TYPE_CHECKING:
    from vit_jax.weights.head import Classes
    from vit_jax.weights.load import Pretrained


def resolve_model(
    section: Config,
    dtype: str = "auto",
    num_classes: int | None = None,
    earlier: Mapping[str, Any] | None = None,
    platform: str | None = None,
    classes: "Classes | None" = None,
) -> tuple[Any, "Pretrained | None"]:
    """Return the model of a configuration, with the compute dtype of these devices, and its pretrained weights.

    Args:
      section: `model` of a checked configuration; options that it says explicitly always hold.
      dtype: `compute_dtype` of the configuration.
      num_classes: of the data, for when nothing else says it; None leaves what there is.
      earlier: `config_to_json` of the model of the run that is continued or used. Nothing else is needed then: neither
        the checkpoint that the run started from, nor the name.
      platform: of the devices that it runs on; that of this machine by default.
      classes: of the data, which decide what becomes of a checkpoint's head; None keeps one of as many classes.

    Returns:
      The model's configuration, and the opened checkpoint; None without one.

    Raises:
      VitError: there is no such model or checkpoint, or it cannot be adapted like this.
    """
    options = {
        name: value for name, value in section.to_dict().items() if name not in ("name", *CHECKPOINT_KEYS)
    }
    options = {"dtype": compute_dtype(dtype, platform), **options}
    if earlier is not None:
        return replace(image_config(config_from_json(earlier)), **options), None
    if num_classes is not None:
        options.setdefault("num_classes", num_classes)
    checkpoint = section.get("checkpoint")
    if not checkpoint:
        return model_config(section.name, **options), None
    # Here because reading checkpoints takes imports that training from scratch can do without.
    from vit_jax.weights.load import open_pretrained

    options.update(which_weights(section), classifier=True, data_classes=classes)
    head_std = section.get("head_std", 0.0)
    pretrained = open_pretrained(checkpoint, **options, head_std=head_std)
    if not is_image_encoder(pretrained.config):
        raise ConfigError(
            f"model.checkpoint {checkpoint!r} holds a {type(pretrained.config).__name__.removesuffix('Config')}, "
            "not a single image encoder; give a checkpoint of a Vision Transformer."
        )
    heads = {f"{head}/kernel" for head in family_of(pretrained.config).head}
    if head_std and classes is not None and not heads & {*pretrained.report.new}:
        raise ConfigError(f"model.head_std is {head_std!r}, but no head is new in this run; leave it out.")
    return pretrained.config, pretrained


def which_weights(section: Config) -> dict[str, Any]:
    """Return what the `model` section says of the weights in its checkpoint, for `open_pretrained`."""
    weights = section.get("weights") or None
    return dict(ignore=section.get("ignore", ()), weights=None if weights == ALL else weights)


def open_as(
    source: str, wanted: Any, whose: str, which: Mapping[str, Any] = MappingProxyType({})
) -> "Pretrained":
    """Return a checkpoint opened as a given model; sizes that may change are adapted.

    Args:
      source: what `vit_jax.load` takes.
      wanted: the configuration of the model; None for that of the checkpoint.
      whose: what messages call it.
      which: what `open_pretrained` is to be told beside.

    Raises:
      ConfigError: the checkpoint holds a model of another kind.
      VitError: it cannot be read, or not be adapted.
    """
    from vit_jax.weights.load import open_pretrained

    image: dict[str, Any] = {"classifier": True} if wanted is not None and is_image_encoder(wanted) else {}
    opened = open_pretrained(source, **which, **image)
    if wanted is None or opened.config == wanted:
        return opened
    if type(opened.config) is not type(wanted):
        held, needed = (type(x).__name__.removesuffix("Config") for x in (opened.config, wanted))
        raise ConfigError(
            f"{whose}: checkpoint {source!r} holds a {held}, but a {needed} is needed; give another."
        )
    names = [field.name for field in dataclasses.fields(wanted) if field.init]
    changes = {
        name: getattr(wanted, name) for name in names if getattr(wanted, name) != getattr(opened.config, name)
    }
    return open_pretrained(source, **{**which, **image, **changes})


def problem_changed(pretrained: "Pretrained | None", model: Any) -> list[str]:
    """Return what to say where a head that is kept meant something else than it is trained for."""
    if pretrained is None or "head/kernel" in pretrained.report.new:
        return []
    before, now = pretrained.config.problem, model.problem
    if before == now:
        return []
    return [f"  the head's outputs were {before}; objective.loss trains them as {now}"]
