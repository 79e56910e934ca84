"""Which library wrote a checkpoint, and what model it holds."""

import dataclasses
import re
from collections.abc import Callable
from typing import Any

from vit_jax.errors import CheckpointError, ConfigError
from vit_jax.models.preprocessing import IMAGENET, INCEPTION
from vit_jax.models.registry import ModelConfig
from vit_jax.models.text_config import ImageTextConfig, TextConfig
from vit_jax.models.vit_config import MaeConfig, ViTConfig
from vit_jax.weights.layouts import (
    dino_head,
    google,
    meta,
    open_clip,
    timm,
    timm_config,
    timm_shapes,
    torchvision,
    transformers,
    transformers_config,
    transformers_towers,
    transformers_towers_config,
    transformers_upernet,
)
from vit_jax.weights.layouts.layout import Layout
from vit_jax.weights.tensors import RawCheckpoint

KINDS = (
    "timm, transformers, Google's vision_transformer and big_vision, OpenCLIP, torchvision, "
    "Meta's and Microsoft's code"
)


def understand(raw: RawCheckpoint, model: ModelConfig | None = None) -> tuple[RawCheckpoint, Layout]:
    """Return a checkpoint, its arrays under their library's current names, and what they are.

    Args:
      raw: the checkpoint.
      model: the model, for files that do not say what they hold; None to find out.

    Raises:
      CheckpointError: no library that we know writes such files, or the file does not say what model it holds.
    """
    document = raw.documents.get("config.json", {})
    prefix = google.prefix_of(raw.tensors)
    if model is not None:
        _check_kind(raw, model)
    if prefix is not None:
        return _google(raw, prefix, model)
    if "model_type" in document:
        return raw, _transformers(raw)
    if "visual.conv1.weight" in raw.tensors:
        return raw, Layout(config := open_clip.describe(raw), open_clip.rules(config), open_clip.COMPUTED)
    if "conv_proj.weight" in raw.tensors:
        config = model if isinstance(model, ViTConfig) else torchvision.describe(raw)
        return raw, Layout(config, torchvision.rules(config))
    if (head := dino_head.prefix_of(raw)) is not None:
        return raw, Layout(dino_head.describe(raw, head), dino_head.rules(head))
    if _is_transformers(raw):
        raise CheckpointError(
            f"{raw.origin} has transformers' names but no config.json beside it; put that of its repository there."
        )
    raw = meta.renamed(raw)
    if not any(name.startswith(("blocks.0.", "patch_embed.", "embeds.")) for name in raw.tensors):
        raise CheckpointError(
            f"{raw.origin} holds arrays that no known library names like this, such as "
            f"{next(iter(raw.tensors), 'none')!r}; known are {KINDS}."
        )
    return raw, _timm(raw, model)


def _check_kind(raw: RawCheckpoint, model: ModelConfig) -> None:
    """Raise ConfigError for a model that a file of its kind cannot hold, or where the file says its own."""
    if "model_type" in raw.documents.get("config.json", {}) or "visual.conv1.weight" in raw.tensors:
        raise ConfigError(f"{raw.origin} says itself what model it holds; leave model out.")
    pair = any(name.startswith(("img/", "params/img/", "visual.")) for name in raw.tensors)
    if isinstance(model, TextConfig) or isinstance(model, ImageTextConfig) != pair:
        raise ConfigError(
            f"model is a {type(model).__name__}, but {raw.origin} holds "
            f"{'a pair of towers' if pair else 'an image model'}; leave model out to find out which."
        )


def _timm(raw: RawCheckpoint, model: ModelConfig | None) -> Layout:
    if isinstance(model, ViTConfig | MaeConfig):
        config: ViTConfig | MaeConfig = model
    elif "architecture" in raw.documents.get("config.json", {}):
        config = timm_config.from_document(raw)
    else:
        # Without timm's own description, these names come from the authors' code; BEiT's pixels are in [-1, 1].
        beit = any(name.endswith("relative_position_bias_table") for name in raw.tensors)
        config = timm_shapes.from_shapes(raw.tensors, raw.origin, INCEPTION if beit else IMAGENET)
        config = meta.refined(config, raw)
    if isinstance(config, MaeConfig):
        return Layout(config, meta.mae_rules(config, raw.tensors), timm.COMPUTED)
    config = dataclasses.replace(config, mask_token=config.mask_token or "mask_token" in raw.tensors)
    names = timm_config.class_names(raw.documents.get("config.json", {}))
    return Layout(
        config,
        timm.rules(config, raw.tensors),
        timm.COMPUTED,
        class_names=names,
        others=dino_head.BESIDE_BACKBONE,
    )


def _google(raw: RawCheckpoint, prefix: str, model: ModelConfig | None) -> tuple[RawCheckpoint, Layout]:
    raw = dataclasses.replace(raw, tensors=google.merged(raw.tensors, prefix))
    config = model or google.describe(raw, prefix)
    make: Callable[..., Any] = (
        google.image_text_rules if isinstance(config, ImageTextConfig) else google.rules
    )
    return raw, Layout(config, make(config, raw.tensors, prefix), google.COMPUTED)


def _transformers(raw: RawCheckpoint) -> Layout:
    document = raw.documents["config.json"]
    model_type = document["model_type"]
    if model_type in transformers_config.TOWERS:
        config, sequences, size = transformers_towers_config.from_document(raw)
        if isinstance(config, ViTConfig):
            found = transformers_towers.siglip_image_rules(config, sequences)
            if model_type.startswith("clip"):
                found = transformers_towers.clip_image_rules(config)
        elif model_type == "clip":
            found = transformers_towers.clip_rules(config)
        else:
            found = transformers_towers.siglip_rules(config, sequences)
        return Layout(config, found, transformers_towers.COMPUTED, size)
    config, prefix, size = transformers_config.from_document(raw)
    if isinstance(config, MaeConfig):
        return Layout(config, transformers.mae_rules(config, raw.tensors), transformers.COMPUTED, size)
    names = transformers_config.class_names(document)
    if model_type == "beit" and transformers_upernet.HEAD in raw.tensors:
        pixels = transformers_upernet.describe(raw, config)
        names = names if len(names) == pixels.num_classes else ()
        found, computed = transformers_upernet.rules(pixels), transformers_upernet.COMPUTED
        return Layout(pixels, found, computed, size, names, transformers_upernet.UNUSED)
    names = names if len(names) == config.num_classes else ()
    return Layout(config, transformers.rules(config, model_type, prefix), transformers.COMPUTED, size, names)


def _is_transformers(raw: RawCheckpoint) -> bool:
    pattern = re.compile(r"(\w+\.)?(embeddings\.patch_embeddings|vision_model\.|layer\.0\.attention\.)")
    return any(pattern.match(name) for name in raw.tensors)
