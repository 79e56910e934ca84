"""Models as Hugging Face transformers has them."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vit_jax.models.families import part_config
from vit_jax.models.mae.config import MaeConfig
from vit_jax.models.registry import ModelConfig
from vit_jax.models.vit.config import ViTConfig
from vit_jax.weights.layouts.layout import Written
from vit_jax.weights.layouts.transformers import document, towers_document
from vit_jax.weights.preprocessing_formats import naflex_to_hf, to_hf
from vit_jax.weights.rules import Rule


def write_vit(config: ViTConfig, params: Mapping[str, Any], class_names: Sequence[str]) -> Written:
    """Return a Vision Transformer in transformers' words; its position tables have a slot for the class token."""
    if config.class_token and config.position == "learned" and not config.class_position:
        table = np.asarray(params["pos_embed"])
        slots = np.zeros_like(table[: 1 + int(config.distillation_token)])
        params = {**params, "pos_embed": np.concatenate([slots, table])}
        config = dataclasses.replace(config, class_position=True)
    return written(config, params, *document.vit(config, class_names))


def write_mae(config: MaeConfig, params: Mapping[str, Any], class_names: Sequence[str]) -> Written:
    """Return a masked autoencoder in transformers' words."""
    return written(config, params, *document.mae(config))


def write_upernet(config: ModelConfig, params: Mapping[str, Any], class_names: Sequence[str]) -> Written:
    """Return a segmentation model in transformers' words."""
    return written(config, params, *document.upernet(config, class_names))


def write_towers(config: ModelConfig, params: Mapping[str, Any], class_names: Sequence[str]) -> Written:
    """Return a pair of towers, or a text tower, in transformers' words."""
    return written(config, params, *towers_document.document(config))


def written(
    config: ModelConfig, params: Mapping[str, Any], about: dict[str, Any], rules: list[Rule]
) -> Written:
    """Return a model in transformers' words, with the processor of its images and the arrays nothing is made of."""
    documents, constants = {"config.json": about}, document.constants(about, rules, params)
    processor, image = document.PROCESSORS.get(about["model_type"]), part_config(config, "image")
    if about["model_type"].startswith("siglip2") and image is not None and image.max_patches:
        known = naflex_to_hf(image.preprocessing, image.max_patches, image.patch_size[0], image.in_channels)
        documents["preprocessor_config.json"] = known
    elif processor is not None and image is not None:
        known = to_hf(image.preprocessing, image.image_size, processor, image.in_channels)
        documents["preprocessor_config.json"] = known
    return Written(config, params, rules, documents, constants)
