"""What models transformers' `config.json` of CLIP, SigLIP and SigLIP 2 describes."""

from collections.abc import Mapping
from typing import Any

from vit_jax.errors import CheckpointError, ConfigError
from vit_jax.models.preprocessing import CLIP_MEAN, CLIP_STD, Preprocessing
from vit_jax.models.text_config import ImageTextConfig, TextConfig
from vit_jax.models.vit_config import ViTConfig
from vit_jax.weights.layouts.transformers_config import activation
from vit_jax.weights.preprocessing_formats import from_hf
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
    },
}  # fmt: skip
PREPROCESSING = {
    "clip": Preprocessing(CLIP_MEAN, CLIP_STD, "bicubic", 1.0),
    "siglip": Preprocessing(interpolation="bicubic", crop=1.0, crop_mode="squash"),
}


def from_document(raw: RawCheckpoint) -> tuple[ImageTextConfig | ViTConfig, bool]:
    """Return both towers, or the image tower where the file has no other, and whether images are sequences.

    Raises:
      CheckpointError: `config.json` says something we do not know.
    """
    document = raw.documents["config.json"]
    family = "clip" if document["model_type"].startswith("clip") else "siglip"
    sequences = document["model_type"].startswith("siglip2") and (
        len(raw.tensors["vision_model.embeddings.patch_embedding.weight"].shape) == 2
    )
    both = "text_model.final_layer_norm.weight" in raw.tensors
    defaults = DEFAULTS[family]
    vision = {**defaults["vision_config"], **(document.get("vision_config") or ({} if both else document))}
    text = {**defaults["text_config"], **(document.get("text_config") or {})}
    try:
        projection = document.get("projection_dim", 512) if family == "clip" and both else 0
        image = _image(family, vision, projection, sequences, raw)
        if not both:
            return image, sequences
        return ImageTextConfig(
            image, _text(family, text, projection, raw.origin), family == "siglip"
        ), sequences
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{raw.origin}: config.json does not describe {family}: {error}.") from None
    except ConfigError as error:
        raise CheckpointError(f"{raw.origin}: config.json describes no model: {error}") from None


def _image(
    family: str, about: Mapping[str, Any], projection: int, sequences: bool, raw: RawCheckpoint
) -> ViTConfig:
    clip, patch = family == "clip", about["patch_size"]
    side = int(about["num_patches"] ** 0.5) * patch if sequences else about["image_size"]
    known = raw.documents.get("preprocessor_config.json")
    readable = known is not None and not sequences
    return ViTConfig(
        image_size=(side, side),
        patch_size=(patch, patch),
        in_channels=about["num_channels"],
        class_token=clip,
        pool="cls" if clip else "map",
        num_classes=projection,
        head_bias=not clip,
        patch_bias=not clip,
        pre_norm=clip,
        resample="bilinear" if sequences else "bicubic",
        resample_antialias=sequences,
        preprocessing=from_hf(known, (side, side))[0] if readable else PREPROCESSING[family],
        **_encoder(about, raw.origin),
    )


def _text(family: str, about: Mapping[str, Any], projection: int, origin: str) -> TextConfig:
    clip, end = family == "clip", about.get("eos_token_id", 0)
    return TextConfig(
        vocab_size=about["vocab_size"],
        context_length=about["max_position_embeddings"],
        causal=clip,
        # The first published files say end token 2, which is none of theirs; transformers takes the highest then.
        pool=("argmax" if end == 2 else "eos") if clip else "last",
        eos_token=end if clip else 0,
        num_classes=projection or about.get("projection_size") or about["hidden_size"],
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
