"""Models by name."""

from functools import partial
from typing import Any

import jax
from flax import nnx

from vit_jax.models import names
from vit_jax.models.functional import ModelFunctions, functions
from vit_jax.models.vit import VisionTransformer
from vit_jax.models.vit_config import ViTConfig, replace


def model_config(name: str, **options: Any) -> ViTConfig:
    """Return the configuration of a named model with options changed.

    Args:
      name: for example `vit_base_patch16_224` or `ViT-B/16`; see `list_models`.
      **options: any field of `ViTConfig`.

    Raises:
      ConfigError: unknown name or option (the nearest are named), or a value that is not allowed.
    """
    return replace(names.resolve(name)[1], **options)


def create_model(name: str, *, seed: int = 0, **options: Any) -> VisionTransformer:
    """Return a named model with fresh parameters.

    Args:
      name: for example `vit_base_patch16_224` or `ViT-B/16`; see `list_models`.
      seed: seed of the parameters.
      **options: any field of `ViTConfig`, for example `num_classes`, `image_size`, `in_channels` or
        `drop_path_rate`.

    Returns:
      The model; `model(images)` takes `(b, h, w, c)`.

    Raises:
      ConfigError: unknown name or option (the nearest are named), or a value that is not allowed.
    """
    config = model_config(name, **options)
    build = jax.jit(lambda key: VisionTransformer(config, rngs=nnx.Rngs(key)))
    return build(jax.random.key(seed))


def model_functions(config: ViTConfig) -> ModelFunctions:
    """Return the pure functions of a Vision Transformer."""
    return functions(partial(VisionTransformer, config))
