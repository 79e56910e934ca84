"""Models by name."""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import jax
from flax import nnx

from vit_jax.errors import ConfigError
from vit_jax.models import names
from vit_jax.models.dino_head import DinoHead
from vit_jax.models.dino_head_config import DinoHeadConfig
from vit_jax.models.functional import ModelFunctions, functions
from vit_jax.models.mae import MaskedAutoencoder
from vit_jax.models.text import ImageTextModel, TextTransformer
from vit_jax.models.text_config import ImageTextConfig, TextConfig
from vit_jax.models.upernet import UperNet
from vit_jax.models.upernet_config import UperNetConfig
from vit_jax.models.vit import VisionTransformer
from vit_jax.models.vit_config import MaeConfig, ViTConfig, replace

ModelConfig = ViTConfig | MaeConfig | TextConfig | ImageTextConfig | DinoHeadConfig | UperNetConfig


def model_config(name: str, **options: Any) -> ViTConfig:
    """Return the configuration of a named image model with options changed.

    Args:
      name: for example `vit_base_patch16_224` or `ViT-B/16`; see `list_models`.
      **options: any field of `ViTConfig`.

    Raises:
      ConfigError: unknown name or option (the nearest are named), or a value that is not allowed; or a model of
        several parts.
    """
    config = names.resolve(name)[1]
    if not isinstance(config, ViTConfig):
        raise ConfigError(f"model {name!r} is not one image encoder; name one, or load it with vit_jax.load.")
    return replace(config, **options)


def create_model(name: str, *, seed: int = 0, **options: Any) -> Any:
    """Return a named model with fresh parameters.

    Args:
      name: for example `vit_base_patch16_224`, `ViT-B/16` or `openai/clip-vit-base-patch32`; see `list_models`.
      seed: seed of the parameters.
      **options: any field of the configuration, for example `num_classes`, `image_size`, `in_channels` or
        `drop_path_rate`.

    Returns:
      The model; `model(images)` takes `(b, h, w, c)`.

    Raises:
      ConfigError: unknown name or option (the nearest are named), or a value that is not allowed.
    """
    config = replace(names.resolve(name)[1], **options)
    return jax.jit(builder(config))(jax.random.key(seed))


@lru_cache(maxsize=16)
def model_functions(config: ModelConfig) -> ModelFunctions:
    """Return the pure functions of a model; tracing them takes time, so the last few are kept."""
    return functions(partial(_class_of(config), config))


def builder(config: ModelConfig) -> Callable[[jax.Array], nnx.Module]:
    """Return the function that makes a model of a key."""
    return lambda key: _class_of(config)(config, rngs=nnx.Rngs(key))


def _class_of(config: ModelConfig) -> Callable[..., nnx.Module]:
    return {
        ViTConfig: VisionTransformer,
        MaeConfig: MaskedAutoencoder,
        TextConfig: TextTransformer,
        ImageTextConfig: ImageTextModel,
        DinoHeadConfig: DinoHead,
        UperNetConfig: UperNet,
    }[type(config)]
