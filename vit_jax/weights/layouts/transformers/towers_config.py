"""What models transformers' `config.json` of CLIP, MetaCLIP 2, SigLIP, SigLIP 2 and their towers describes."""

import math
from collections.abc import Mapping
from typing import Any

from vit_jax.errors import CheckpointError, ConfigError
from vit_jax.models.layers.pixels.sizes import pair
from vit_jax.models.preprocessing import CLIP_MEAN, CLIP_STD, Preprocessing
from vit_jax.models.text.config import ImageTextConfig, TextConfig
from vit_jax.models.vit.config import ViTConfig
from vit_jax.weights.formats.tensors import RawCheckpoint, Tensor
from vit_jax.weights.layouts.problem_type import read_problem
from vit_jax.weights.layouts.transformers.config import activation, processed, settings
from vit_jax.weights.preprocessing_formats import Size, naflex_from_hf

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
_IMAGE, _TEXT = "vision_model.", "text_model."


def from_document(raw: RawCheckpoint) -> tuple[ImageTextConfig | ViTConfig | TextConfig, bool, Size | None]:
    """Return what a file holds, whether its images are sequences of patches, and the size of the images if known.

    That is both towers, or the one that is there.

    Raises:
      CheckpointError: `config.json` says something we do not know.
    """
    document = raw.documents["config.json"]
    model_type = document["model_type"]
    family = "siglip" if model_type.startswith("siglip") else "clip"
    kernel = _array(raw, _IMAGE, "embeddings.patch_embedding.weight")
    sequences = model_type.startswith("siglip2") and kernel is not None and len(kernel.shape) == 2
    both = any(name.startswith(_TEXT) for name in raw.tensors) and kernel is not None
    where = f"{raw.origin}: config.json"
    if (model_type == "chinese_clip" and both) or model_type == "chinese_clip_text_model":
        raise CheckpointError(
            f"{where} says model_type {model_type!r}, whose text encoder is a BERT, which this library does not "
            "have; save the image tower with transformers: "
            "ChineseCLIPVisionModel.from_pretrained(...).save_pretrained(...)."
        )
    try:
        about = settings(DEFAULTS[family][""], document, where)
        alone = model_type.endswith(("_vision_model", "_text_model"))
        words, vision = (about if alone else about.get(f"{part}_config", {}) for part in ("text", "vision"))
        text = image = size = None
        if both or kernel is None:
            read = settings(DEFAULTS[family]["text_config"], words, where)
            text = _text(family, model_type, read, raw)
        if kernel is not None:
            seen = settings(DEFAULTS[family]["vision_config"], vision, where)
            image, size = _image(family, seen, sequences, raw)
        if image is not None and text is not None:
            return ImageTextConfig(image, text, family == "siglip"), sequences, size
        found = image or text
        assert found is not None
        return found, sequences, size
    except ConfigError as error:
        raise CheckpointError(f"{raw.origin}: config.json describes no model: {error}") from None


def _image(
    family: str, about: dict[str, Any], sequences: bool, raw: RawCheckpoint
) -> tuple[ViTConfig, Size | None]:
    clip, otherwise = family == "clip", PREPROCESSING[family]
    fields: dict[str, Any] = dict(pool="cls" if clip else "map", num_classes=0, head_bias=not clip)
    if sequences:  # images of any shapes: the table alone says a size
        patch = pair(about["patch_size"], "patch_size")
        rows = math.isqrt(max(about["num_patches"], 0))
        preprocessing, image_size, input_size = otherwise, (rows * patch[0], rows * patch[1]), None
        processor = raw.documents.get("preprocessor_config.json")
        if processor is not None:
            preprocessing, fields["max_patches"] = naflex_from_hf(processor, about["num_patches"])
    else:
        preprocessing, image_size, input_size = processed(raw, about, otherwise)
    named = raw.documents["config.json"].get("architectures")
    if _array(raw, "", "classifier.weight") or (clip and named == ["CLIPForImageClassification"]):
        # Classifiers average patches, of CLIP without the last norm; what pooled them before stands idle.
        fields = dict(
            pool="mean", pool_norm="none" if clip else "before", num_classes=_rows(raw, "classifier.weight")
        )
        fields |= dict(problem=read_problem(raw.documents["config.json"], raw.origin))
    elif clip:
        fields |= dict(num_classes=_rows(raw, "visual_projection.weight"))
    elif not _array(raw, _IMAGE, "head.probe"):
        fields |= dict(pool="mean")
    config = ViTConfig(
        image_size=image_size,
        patch_size=about["patch_size"],
        in_channels=about["num_channels"],
        class_token=clip,
        patch_bias=not clip,
        pre_norm=clip,
        resample="bilinear" if sequences else "bicubic",
        resample_antialias=sequences,
        preprocessing=preprocessing,
        **fields,
        **_encoder(about, raw.origin),
    )
    return config, input_size


def _text(family: str, model_type: str, about: Mapping[str, Any], raw: RawCheckpoint) -> TextConfig:
    clip, end = family == "clip", about.get("eos_token_id", 0)
    # CLIP's first published files say end token 2, which is none of theirs; transformers takes the highest then.
    pool = "argmax" if end == 2 and not model_type.startswith("metaclip_2") else "eos"
    if end >= about["vocab_size"]:  # no text has it, and then transformers takes the first token
        pool, end = "first", 0
    head = _array(raw, "", "text_projection.weight") if clip else _array(raw, _TEXT, "head.weight")
    return TextConfig(
        vocab_size=about["vocab_size"],
        context_length=about["max_position_embeddings"],
        causal=clip,
        pool=pool if clip else "last",
        eos_token=end if clip else 0,
        num_classes=head.shape[0] if head is not None and head.shape else 0,
        head_bias=not clip,
        **_encoder(about, raw.origin),
    )


def _array(raw: RawCheckpoint, prefix: str, name: str) -> Tensor | None:
    """Return an array that has a prefix in a model of both towers and perhaps none in a tower alone."""
    return raw.tensors.get(prefix + name) or raw.tensors.get(name)


def _rows(raw: RawCheckpoint, name: str) -> int:
    shape = raw.tensors[name].shape if name in raw.tensors else ()
    return shape[0] if shape else 0


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
