"""Models by name or configuration."""

import importlib
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import jax
from flax import nnx

from vit_jax.errors import ConfigError
from vit_jax.models.families import family_of, is_image_encoder
from vit_jax.models.functional import ModelFunctions, functions
from vit_jax.models.layers.encoder_config import replace
from vit_jax.models.layers.module import Module
from vit_jax.models.names import resolve as names

Model = Module  # of some family
ModelConfig = Any  # the configuration of some family


def model_config(name: str, **options: Any) -> ModelConfig:
    """Return the configuration of a named image model with options changed.

    Args:
      name: for example `vit_base_patch16_224` or `ViT-B/16`; see `list_models`.
      **options: any field of the configuration, for example of `ViTConfig`.

    Raises:
      ConfigError: unknown name or option (the nearest are named), or a value that is not allowed; or a model of
        several parts.
    """
    config = names.resolve(name)[1]
    if not is_image_encoder(config):
        raise ConfigError(f"model {name!r} is not an image encoder; name one, or load it with vit_jax.load.")
    return replace(config, **options)


def create_model(name: str, *, seed: int = 0, pretrained: bool = False, **options: Any) -> Model:
    """Return a named model with fresh parameters.

    Args:
      name: for example `vit_base_patch16_224`, `ViT-B/16` or `openai/clip-vit-base-patch32`; see `list_models`.
      seed: seed of the parameters.
      pretrained: False: this makes fresh parameters, and True is an error that says what to call.
      **options: any field of the configuration, for example `num_classes`, `image_size`, `in_channels` or
        `drop_path_rate`.

    Returns:
      The model; `model(images)` takes `(b, h, w, c)`.

    Raises:
      ConfigError: unknown name or option (the nearest are named), or a value that is not allowed.
    """
    architecture, config = names.resolve(name)
    if pretrained:
        raise ConfigError(
            f"create_model makes fresh parameters, not pretrained ones; call vit_jax.load{_weights(architecture)}."
        )
    config = replace(config, **options)
    return jax.jit(builder(config))(jax.random.key(seed))


@lru_cache(maxsize=16)
def model_functions(config: ModelConfig) -> ModelFunctions:
    """Return the pure functions of a model; tracing them takes time, so the last few are kept."""
    return functions(partial(_class_of(config), config))


def builder(config: ModelConfig) -> Callable[[jax.Array], nnx.Module]:
    """Return the function that makes a model of a key."""
    return lambda key: _class_of(config)(config, rngs=nnx.Rngs(key))


def _weights(name: str) -> str:
    """Return what `vit_jax.load` takes for published weights of a model."""
    if "/" in name:
        return f"({name!r})"
    architecture, _, tag = name.partition(".")
    known = names.published_tags(architecture)
    if not known:
        return f" with a file or folder (no published weights of {name} are known)"
    return f"({f'timm/{architecture}.{tag or known[0]}'!r})"


def _class_of(config: ModelConfig) -> Callable[..., nnx.Module]:
    module, _, name = family_of(config).module.partition(":")
    return getattr(importlib.import_module(module), name)
