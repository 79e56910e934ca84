"""Files of Google's vision_transformer and big_vision: which they are, and what they hold."""

import dataclasses
from collections.abc import Container

from vit_jax.models.registry import ModelConfig
from vit_jax.models.text.config import ImageTextConfig
from vit_jax.weights.formats.tensors import RawCheckpoint
from vit_jax.weights.layouts.google import vit as google
from vit_jax.weights.layouts.layout import Layout, Reading, check_model


def prefix_of(names: Container[str]) -> str | None:
    """Return what comes before the names of the model in a file, or None if the file is none of Google's."""
    for prefix in google.PREFIXES:
        if f"{prefix}embedding/kernel" in names or f"{prefix}img/embedding/kernel" in names:
            return prefix
    return None


def _claims(raw: RawCheckpoint) -> bool:
    return prefix_of(raw.tensors) is not None


def _read(raw: RawCheckpoint, model: ModelConfig | None) -> tuple[RawCheckpoint, Layout]:
    prefix = prefix_of(raw.tensors)
    assert prefix is not None
    pair = f"{prefix}img/embedding/kernel" in raw.tensors
    check_model(raw, model, *(("a pair of towers", "image_text") if pair else ("an image model", "vit")))
    raw = dataclasses.replace(raw, tensors=google.merged(raw.tensors, prefix))
    config = google.describe(raw, prefix) if model is None else model
    if isinstance(config, ImageTextConfig):
        rules = google.image_text_rules(config, raw.tensors, prefix)
    else:
        rules = google.rules(config, raw.tensors, prefix)
    return raw, Layout(config, rules, google.COMPUTED)


READING = Reading("Google's vision_transformer and big_vision", _claims, _read)
