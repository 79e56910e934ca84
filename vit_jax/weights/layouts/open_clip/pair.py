"""Names in OpenAI's and OpenCLIP's files of CLIP."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from vit_jax.errors import CheckpointError, ConfigError
from vit_jax.models.preprocessing import CLIP, Preprocessing
from vit_jax.models.registry import ModelConfig
from vit_jax.models.text.config import ImageTextConfig, TextConfig
from vit_jax.models.vit.config import ViTConfig
from vit_jax.weights.formats.tensors import RawCheckpoint
from vit_jax.weights.layouts.blocks import FROM_HEADS, TO_HEADS, norms
from vit_jax.weights.layouts.layout import Layout, Reading, check_model
from vit_jax.weights.layouts.transformers.config import settings
from vit_jax.weights.preprocessing_formats import from_open_clip
from vit_jax.weights.rules import CONV, FLAT, Rule, affine, norm, plain_matrix, rule

COMPUTED = ("attn_mask", "input_resolution", "context_length", "vocab_size")


def rules(config: ImageTextConfig) -> list[Rule]:
    """Return the rules of a model."""
    return [
        rule("image/class_token", "visual.class_embedding", form=FLAT),
        rule("image/pos_embed", "visual.positional_embedding"),
        rule("image/patch_embed/kernel", "visual.conv1.weight", form=CONV),
        *norm("image/norm_pre", "visual.ln_pre"),
        *_blocks("image/blocks", "visual.transformer.resblocks.{l}"),
        *norm("image/norm", "visual.ln_post"),
        rule("image/head/kernel", "visual.proj", form=plain_matrix()),
        rule("text/token_embed", "token_embedding.weight"),
        rule("text/pos_embed", "positional_embedding"),
        *_blocks("text/blocks", "transformer.resblocks.{l}"),
        *norm("text/norm", "ln_final"),
        rule("text/head/kernel", "text_projection", form=plain_matrix()),
        rule("logit_scale", "logit_scale"),
        *([rule("logit_bias", "logit_bias")] if config.logit_bias else []),
    ]


def describe(raw: RawCheckpoint) -> ImageTextConfig:
    """Return the model of a file, from `open_clip_config.json` if it is there, else from the shapes of its arrays.

    Raises:
      CheckpointError: the model is none that we have.
    """
    where = f"{raw.origin}: open_clip_config.json"
    try:
        document = settings({"model_cfg": {}}, raw.documents.get("open_clip_config.json", {}), where)
        parts: dict[str, Any] = {"vision_cfg": {}, "text_cfg": {}, "quick_gelu": not document["model_cfg"]}
        about = settings(parts, document["model_cfg"], where)
        shapes = {name: tensor.shape for name, tensor in raw.tensors.items()}
        seen = settings({"head_width": 64}, about["vision_cfg"], where)
        image = _image(shapes, seen["head_width"] or 64, about["quick_gelu"])
        width = shapes["token_embedding.weight"][1]
        heads = settings({"heads": max(1, width // 64)}, about["text_cfg"], where)["heads"]
        text = _text(shapes, heads, image.activation)
        known = document.get("preprocess_cfg")
        preprocessing = from_open_clip(known)[0] if known else CLIP_CROP
        image = dataclasses.replace(image, preprocessing=preprocessing)
        return ImageTextConfig(image, text, logit_bias="logit_bias" in shapes)
    except (KeyError, IndexError, ValueError) as error:
        raise CheckpointError(
            f"{raw.origin} lacks {error.args[0]!r} of CLIP; it is damaged or of a different model."
        ) from None
    except ConfigError as error:
        raise CheckpointError(f"{raw.origin}: open_clip_config.json describes no model: {error}") from None


CLIP_CROP = Preprocessing(CLIP.mean, CLIP.std, "bicubic", 1.0)


def _image(shapes: Mapping[str, tuple[int, ...]], head_width: int, quick: bool) -> ViTConfig:
    width, channels, p, q = shapes["visual.conv1.weight"]
    side = int((shapes["visual.positional_embedding"][0] - 1) ** 0.5)
    return ViTConfig(
        image_size=(side * p, side * q),
        patch_size=(p, q),
        in_channels=channels,
        heads=width // head_width,
        num_classes=shapes["visual.proj"][1],
        head_bias=False,
        patch_bias=False,
        pre_norm=True,
        resample_antialias=True,
        **_encoder(shapes, "visual.transformer.", quick),
    )


def _text(shapes: Mapping[str, tuple[int, ...]], heads: int, activation: str) -> TextConfig:
    vocab_size, _ = shapes["token_embedding.weight"]
    return TextConfig(
        heads=heads,
        vocab_size=vocab_size,
        context_length=shapes["positional_embedding"][0],
        num_classes=shapes["text_projection"][1],
        eos_token=vocab_size - 1,
        **_encoder(shapes, "transformer.", activation == "quick_gelu"),
    )


def _encoder(shapes: Mapping[str, tuple[int, ...]], prefix: str, quick: bool) -> dict[str, Any]:
    hidden, width = shapes[f"{prefix}resblocks.0.mlp.c_fc.weight"]
    depth = sum(name.startswith(prefix) and name.endswith(".ln_1.weight") for name in shapes)
    activation = "quick_gelu" if quick else "gelu"
    return dict(
        width=width,
        depth=depth,
        mlp_dim=hidden,
        activation=activation,
        norm_epsilon=1e-5,
        init="trunc_normal",
    )


def _blocks(ours: str, theirs: str) -> list[Rule]:
    return [
        *norms(ours, {"norm1": f"{theirs}.ln_1", "norm2": f"{theirs}.ln_2"}),
        rule(f"{ours}/attn/qkv/kernel", f"{theirs}.attn.in_proj_weight", form=TO_HEADS),
        rule(f"{ours}/attn/qkv/bias", f"{theirs}.attn.in_proj_bias", form=FLAT),
        *affine(f"{ours}/attn/out", f"{theirs}.attn.out_proj", FROM_HEADS),
        *affine(f"{ours}/mlp/fc1", f"{theirs}.mlp.c_fc"),
        *affine(f"{ours}/mlp/fc2", f"{theirs}.mlp.c_proj"),
    ]


def _read(raw: RawCheckpoint, model: ModelConfig | None) -> tuple[RawCheckpoint, Layout]:
    check_model(raw, model, "a pair of towers")
    config = describe(raw)
    return raw, Layout(config, rules(config), COMPUTED)


READING = Reading("OpenCLIP", lambda raw: "visual.conv1.weight" in raw.tensors, _read)
