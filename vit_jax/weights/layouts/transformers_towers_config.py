"""What models transformers' `config.json` of CLIP, SigLIP and SigLIP 2 describes."""

import math
from collections.abc import Mapping
from typing import Any

from vit_jax.errors import CheckpointError, ConfigError
from vit_jax.models.preprocessing import CLIP_MEAN, CLIP_STD, Preprocessing
from vit_jax.models.text_config import ImageTextConfig, TextConfig
from vit_jax.models.vit_config import ViTConfig, pair
from vit_jax.weights.layouts.transformers_config import activation, processed, settings
from vit_jax.weights.preprocessing_formats import Size
from vit_jax.weights.tensors import RawCheckpoint

# What transformers assumes when a `config.json` does not say.
DEFAULTS: dict[str, dict[str, dict[str, Any]]] = {
    "clip": {
        "vision_config": dict(
            hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, num_channels=3,
            image_size=224, patch_size=32, hidden_act="quick_gelu", layer_norm_eps=1e-5,
        ),
        "text_config": dict(
            hidden_size=512, intermediate_size=2048, num_hidden_layers=12, num_attention_heads=8, vocab_size=49408,
            max_position_embeddings=77, hidden_act="quick_gelu", layer_norm_eps=1e-5, eos_token_id=49407,
        ),
        "": dict(projection_dim=512),
    },
    "siglip": {
        "vision_config": dict(
            hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, num_channels=3,
            image_size=224, patch_size=16, hidden_act="gelu_pytorch_tanh", layer_norm_eps=1e-6, num_patches=256,
        ),
        "text_config": dict(
            hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, vocab_size=32000,
            max_position_embeddings=64, hidden_act="gelu_pytorch_tanh", layer_norm_eps=1e-6,
        ),
        "": {},
    },
}  # fmt: skip
PREPROCESSING = {
    "clip": Preprocessing(CLIP_MEAN, CLIP_STD, "bicubic", 1.0),
    "siglip": Preprocessing(interpolation="bicubic", crop=1.0, crop_mode="squash"),
}


def from_document(raw: RawCheckpoint) -> tuple[ImageTextConfig | ViTConfig, bool, Size | None]:
    """Return what a file holds, whether its images are sequences of patches, and the size of the images if known.

    That is both towers, or the image tower where there is no other.

    Raises:
      CheckpointError: `config.json` says something we do not know.
    """
    document = raw.documents["config.json"]
    family = "clip" if document["model_type"].startswith("clip") else "siglip"
    kernel = raw.tensors.get("vision_model.embeddings.patch_embedding.weight")
    sequences = document["model_type"].startswith("siglip2") and kernel is not None and len(kernel.shape) == 2
    both = "text_model.final_layer_norm.weight" in raw.tensors
    where = f"{raw.origin}: config.json"
    try:
        about = settings(DEFAULTS[family][""], document, where)
        words, vision = about.get("text_config", {}), about.get("vision_config", {} if both else about)
        projection = about["projection_dim"] if family == "clip" and both else 0
        seen = settings(DEFAULTS[family]["vision_config"], vision, where)
        image, size = _image(family, seen, projection, sequences, raw)
        if not both:
            return image, sequences, size
        read = settings(DEFAULTS[family]["text_config"], words, where)
        text = _text(family, read, projection, raw.origin)
        return ImageTextConfig(image, text, family == "siglip"), sequences, size
    except ConfigError as error:
        raise CheckpointError(f"{raw.origin}: config.json describes no model: {error}") from None


def _image(
    family: str, about: dict[str, Any], projection: int, sequences: bool, raw: RawCheckpoint
) -> tuple[ViTConfig, Size | None]:
    clip, otherwise = family == "clip", PREPROCESSING[family]
    if sequences:  # images of any shapes: the table alone says a size
        patch = pair(about["patch_size"], "patch_size")
        rows = math.isqrt(max(about["num_patches"], 0))
        preprocessing, image_size, input_size = otherwise, (rows * patch[0], rows * patch[1]), None
    else:
        preprocessing, image_size, input_size = processed(raw, about, otherwise)
    config = ViTConfig(
        image_size=image_size,
        patch_size=about["patch_size"],
        in_channels=about["num_channels"],
        class_token=clip,
        pool="cls" if clip else "map",
        num_classes=projection,
        head_bias=not clip,
        patch_bias=not clip,
        pre_norm=clip,
        resample="bilinear" if sequences else "bicubic",
        resample_antialias=sequences,
        preprocessing=preprocessing,
        **_encoder(about, raw.origin),
    )
    return config, input_size


def _text(family: str, about: Mapping[str, Any], projection: int, origin: str) -> TextConfig:
    clip, end = family == "clip", about.get("eos_token_id", 0)
    size = projection or about.get("projection_size") or about["hidden_size"]
    return TextConfig(
        vocab_size=about["vocab_size"],
        context_length=about["max_position_embeddings"],
        causal=clip,
        # The first published files say end token 2, which is none of theirs; transformers takes the highest then.
        pool=("argmax" if end == 2 else "eos") if clip else "last",
        eos_token=end if clip else 0,
        num_classes=size,
        head_bias=not clip,
        **_encoder(about, origin),
    )


def _encoder(about: Mapping[str, Any], origin: str) -> dict[str, Any]:
    return dict(
        width=about["hidden_size"],
        depth=about["num_hidden_layers"],
        heads=about["num_attention_heads"],
        mlp_dim=about["intermediate_size"],
        activation=activation(about["hidden_act"], origin),
        norm_epsilon=about["layer_norm_eps"],
        init="trunc_normal",
    )
