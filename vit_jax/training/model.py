"""The model that a configuration describes: by name, by a checkpoint, or as an earlier run resolved it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vit_jax.errors import ConfigError
from vit_jax.models.config_json import config_from_json
from vit_jax.models.registry import model_config
from vit_jax.models.towers import image_config
from vit_jax.models.vit_config import ViTConfig, replace
from vit_jax.training.config_rules import CHECKPOINT_KEYS
from vit_jax.training.defaults import Config
from vit_jax.training.hardware import compute_dtype

if TYPE_CHECKING:
    from vit_jax.weights.load import Pretrained


def resolve_model(
    config: Config,
    num_classes: int | None = None,
    earlier: Mapping[str, Any] | None = None,
    platform: str | None = None,
) -> tuple[ViTConfig, "Pretrained | None"]:
    """Return the model of a configuration, with the compute dtype of these devices, and its pretrained weights.

    Args:
      config: a checked configuration; options that its `model` section says explicitly always hold.
      num_classes: of the data, for when nothing else says it; None leaves what there is.
      earlier: `config_to_json` of the model of the run that is continued or used. Nothing else is needed then: neither
        the checkpoint that the run started from, nor the name.
      platform: of the devices that it runs on; that of this machine by default.

    Returns:
      The model's configuration, and the opened checkpoint; None without one.

    Raises:
      VitError: there is no such model or checkpoint, or it cannot be adapted like this.
    """
    options = {
        name: value
        for name, value in config.model.to_dict().items()
        if name not in ("name", *CHECKPOINT_KEYS)
    }
    options = {"dtype": compute_dtype(config.compute_dtype, platform), **options}
    if earlier is not None:
        return replace(image_config(config_from_json(earlier)), **options), None
    if num_classes is not None:
        options.setdefault("num_classes", num_classes)
    checkpoint = config.model.get("checkpoint")
    if not checkpoint:
        return model_config(config.model.name, **options), None
    # Here because reading checkpoints takes imports that training from scratch can do without.
    from vit_jax.weights.load import open_pretrained

    pretrained = open_pretrained(checkpoint, ignore=config.model.get("ignore", ()), **options)
    if not isinstance(pretrained.config, ViTConfig):
        raise ConfigError(
            f"model.checkpoint {checkpoint!r} holds a {type(pretrained.config).__name__.removesuffix('Config')}, not "
            "one image encoder; give a checkpoint of a Vision Transformer."
        )
    return pretrained.config, pretrained
