"""Names in Google's files: vision_transformer's and big_vision's, their hybrids and SigLIP.

The blocks' modules were numbered together (`LayerNorm_0`, `MultiHeadDotProductAttention_1`, `LayerNorm_2`,
`MlpBlock_3`) before Flax's Linen, and each kind by itself since; files of both are about. Blocks are one by one, or
stacked with a leading axis. Kernels are stored as ours.
"""

import dataclasses
import math
import re
from collections.abc import Container, Mapping
from typing import Any

from vit_jax.errors import CheckpointError
from vit_jax.models.layers.encoder_config import EncoderConfig
from vit_jax.models.preprocessing import Preprocessing
from vit_jax.models.text.config import ImageTextConfig, TextConfig
from vit_jax.models.vit.config import ViTConfig
from vit_jax.models.vit.resnet_config import ResNetConfig
from vit_jax.weights.formats.tensors import RawCheckpoint, Tensor
from vit_jax.weights.layouts.timm.vit import units
from vit_jax.weights.rules import ONE, ROW, SAME, Rule, rule

PREFIXES = ("params/", "opt/target/", "target/", "")
COMPUTED = ("opt/*", "state/*", "step", "extra/*", "chrono/*")
# Resized without a crop, as both evaluate.
PREPROCESSING = Preprocessing(interpolation="bilinear", crop=1.0, crop_mode="squash")
# How FlexiViT's positions and kernels go to other patches; only the name of its files tells them from other ViT/32.
FLEXIVIT: dict[str, Any] = {"load_resample": "bilinear", "load_antialias": False}
# Modules of a block: before Linen, and since.
OLD = ("LayerNorm_0", "MultiHeadDotProductAttention_1", "LayerNorm_2", "MlpBlock_3")
NEW = ("LayerNorm_0", "MultiHeadDotProductAttention_0", "LayerNorm_1", "MlpBlock_0")


def rules(config: ViTConfig, names: Container[str] | None = None, prefix: str = "") -> list[Rule]:
    """Return the rules of an image model.

    Args:
      config: the model.
      names: those in the file, to tell versions apart; None to write, in big_vision's way if `prefix` is.
      prefix: what all names begin with.
    """
    modern = (
        prefix != ""
        if names is None
        else f"{prefix}Transformer/encoderblock_0/{OLD[1]}/out/kernel" not in names
    )
    found = _blocks(config, "blocks", f"{prefix}Transformer/", names, modern)
    found += _affine("patch_embed", f"{prefix}embedding", config.patch_bias)
    if config.class_token:
        found.append(rule("class_token", f"{prefix}cls", form=ROW))
    if config.position == "learned":
        places = ("pos_embedding", "Transformer/pos_embedding", "Transformer/posembed_input/pos_embedding")
        known = [f"{prefix}{place}" for place in places if names is not None and f"{prefix}{place}" in names]
        found.append(
            rule("pos_embed", known[0] if known else f"{prefix}{places[0 if modern else 2]}", form=ROW)
        )
    if config.pool_norm != "none":
        found += _norm("norm", f"{prefix}Transformer/encoder_norm")
    if config.pool == "map":
        pool, attention = f"{prefix}MAPHead_0", f"{prefix}MAPHead_0/{NEW[1]}"
        found += [
            rule("pool/probe", f"{pool}/probe", form=ROW),
            *_affine("pool/q", f"{attention}/query"),
            rule("pool/kv/kernel", f"{attention}/key/kernel", f"{attention}/value/kernel", axis=1),
            rule("pool/kv/bias", f"{attention}/key/bias", f"{attention}/value/bias"),
            *_affine("pool/out", f"{attention}/out"),
            *_norm("pool/norm", f"{pool}/LayerNorm_0"),
            *_affine("pool/mlp/fc1", f"{pool}/{NEW[3]}/Dense_0"),
            *_affine("pool/mlp/fc2", f"{pool}/{NEW[3]}/Dense_1"),
        ]
    if config.representation_size:
        found += _affine("pre_logits", f"{prefix}pre_logits")
    if config.num_classes:
        found += _affine("head", f"{prefix}head", config.head_bias)
    return found + (_backbone(config, prefix) if config.backbone else [])


def image_text_rules(
    config: ImageTextConfig, names: Container[str] | None = None, prefix: str = "params/"
) -> list[Rule]:
    """Return the rules of SigLIP; arguments as of `rules`."""
    text = f"{prefix}txt/"
    return [
        *(item.prefixed("image/") for item in rules(config.image, names, f"{prefix}img/")),
        *_blocks(config.text, "text/blocks", f"{text}Encoder_0/", names, True),
        rule("text/token_embed", f"{text}Embed_0/embedding"),
        rule("text/pos_embed", f"{text}pos_embedding", form=ROW),
        *_norm("text/norm", f"{text}Encoder_0/encoder_norm"),
        *(_affine("text/head", f"{text}head", config.text.head_bias) if config.text.num_classes else []),
        rule("logit_scale", f"{prefix}t", form=ONE),
        rule("logit_bias", f"{prefix}b", form=ONE),
    ]


def describe(raw: RawCheckpoint, prefix: str) -> ViTConfig | ImageTextConfig:
    """Return the model of a file, from the shapes of its arrays.

    Raises:
      CheckpointError: arrays are missing or do not go together.
    """
    shapes = {
        name.removeprefix(prefix): tensor.shape
        for name, tensor in raw.tensors.items()
        if name.startswith(prefix)
    }
    try:
        if "img/embedding/kernel" not in shapes:
            return _image(shapes, raw.origin)
        image = _image(
            {n.removeprefix("img/"): s for n, s in shapes.items() if n.startswith("img/")}, raw.origin
        )
        text = _text({n.removeprefix("txt/"): s for n, s in shapes.items() if n.startswith("txt/")})
        return ImageTextConfig(image, text, logit_bias="b" in shapes)
    except (KeyError, IndexError, ValueError, StopIteration, ZeroDivisionError) as error:
        missing = error.args[0] if isinstance(error, KeyError) else "an array of the right shape"
        raise CheckpointError(
            f"{raw.origin} looks like one of Google's files but lacks {missing!r}; it is damaged or of a "
            "different model."
        ) from None


def merged(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the arrays of a file; text positions that old files keep in two tables are added."""
    first, second = f"{prefix}txt/pos_embedding", f"{prefix}txt/Encoder_0/pos_embedding"
    if first not in tensors or second not in tensors:
        return dict(tensors)
    one, other = tensors[first], tensors[second]
    both = dataclasses.replace(one, read=lambda: one.read() + other.read())
    return {**{name: tensor for name, tensor in tensors.items() if name != second}, first: both}


def _image(shapes: Mapping[str, tuple[int, ...]], origin: str) -> ViTConfig:
    p, q, channels, _ = shapes["embedding/kernel"]
    fields = _encoder(shapes, "Transformer/")
    class_token = "cls" in shapes
    places = ("Transformer/posembed_input/pos_embedding", "Transformer/pos_embedding", "pos_embedding")
    rows = next((shapes[place][-2] for place in places if place in shapes), 0)
    slot = class_token and bool(rows) and math.isqrt(rows) ** 2 != rows
    backbone = _backbone_config(shapes) if "conv_root/kernel" in shapes else None
    stride = (backbone.stride if backbone else 1) * p
    side = math.isqrt(rows - slot) * stride if rows else _side_of(origin, stride)
    pre_logits, head = shapes.get("pre_logits/kernel"), shapes.get("head/kernel")
    return ViTConfig(
        image_size=(side, side),
        patch_size=(p, q),
        in_channels=shapes["conv_root/kernel"][2] if backbone else channels,
        backbone=backbone,
        class_token=class_token,
        class_position=slot or not class_token,
        position="learned" if rows else "sincos2d_big_vision",
        pool="map" if "MAPHead_0/probe" in shapes else "cls" if class_token else "mean",
        representation_size=pre_logits[1] if pre_logits else 0,
        num_classes=head[1] if head else 0,
        resample="zoom",
        **(FLEXIVIT if "flexivit" in origin.lower() else {}),
        preprocessing=PREPROCESSING,
        **fields,
    )


def _text(shapes: Mapping[str, tuple[int, ...]]) -> TextConfig:
    head = shapes.get("head/kernel")
    return TextConfig(
        vocab_size=shapes["Embed_0/embedding"][0],
        context_length=shapes["pos_embedding"][-2],
        causal=False,
        pool="last",
        num_classes=head[1] if head else 0,
        head_bias=True,
        **_encoder(shapes, "Encoder_0/"),
    )


def _encoder(shapes: Mapping[str, tuple[int, ...]], prefix: str) -> dict[str, Any]:
    """Return the fields that every encoder has."""
    stacked = f"{prefix}encoderblock/{NEW[1]}/query/kernel" in shapes
    first = "encoderblock" if stacked else "encoderblock_0"
    query = next(s for n, s in shapes.items() if re.fullmatch(rf"{prefix}{first}/\w+/query/kernel", n))
    hidden = next(s for n, s in shapes.items() if re.fullmatch(rf"{prefix}{first}/\w+/Dense_0/kernel", n))
    numbers = {match[1] for name in shapes if (match := re.match(rf"{prefix}encoderblock_(\d+)/", name))}
    width, heads, _ = query[-3:]
    depth = query[0] if stacked else len(numbers)
    return dict(
        width=width, depth=depth, heads=heads, mlp_dim=hidden[-1], activation="gelu_tanh", norm_epsilon=1e-6
    )


def _backbone_config(shapes: Mapping[str, tuple[int, ...]]) -> ResNetConfig:
    counts: dict[int, set[str]] = {}
    for name in shapes:
        if match := re.match(r"block(\d+)/unit(\d+)/", name):
            counts.setdefault(int(match[1]), set()).add(match[2])
    stages = sorted(counts)
    channels = tuple(shapes[f"block{stage}/unit1/conv3/kernel"][-1] for stage in stages)
    return ResNetConfig(
        tuple(len(counts[s]) for s in stages), channels, shapes["conv_root/kernel"][-1], "google"
    )


def _side_of(origin: str, stride: int) -> int:
    """Return the image size of a model whose arrays do not say it: that in the name of the file, or 224."""
    found = re.search(r"(?:res[_-]?|[_-])(\d{3})(?:px)?(?:\.npz|_|$)", origin)
    side = int(found[1]) if found else 224
    return side if side % stride == 0 else 224 // stride * stride


def _blocks(
    config: EncoderConfig, ours: str, prefix: str, names: Container[str] | None, modern: bool
) -> list[Rule]:
    norm1, attention, norm2, mlp = NEW if modern else OLD
    stacked = names is not None and f"{prefix}encoderblock/{NEW[1]}/out/kernel" in names
    block = f"{prefix}encoderblock/" if stacked else f"{prefix}encoderblock_{{l}}/"
    parts = [f"{block}{attention}/{name}" for name in ("query", "key", "value")]
    found = [
        *_norm(f"{ours}/norm1", f"{block}{norm1}"),
        *_norm(f"{ours}/norm2", f"{block}{norm2}"),
        rule(f"{ours}/attn/qkv/kernel", *(f"{part}/kernel" for part in parts), axis=1),
        *_affine(f"{ours}/attn/out", f"{block}{attention}/out"),
        *_affine(f"{ours}/mlp/fc1", f"{block}{mlp}/Dense_0"),
        *_affine(f"{ours}/mlp/fc2", f"{block}{mlp}/Dense_1"),
    ]
    if config.qkv_bias:
        found.append(rule(f"{ours}/attn/qkv/bias", *(f"{part}/bias" for part in parts)))
    return found


def _backbone(config: ViTConfig, prefix: str) -> list[Rule]:
    found = [
        rule("backbone/conv_root/kernel", f"{prefix}conv_root/kernel"),
        *_norm("backbone/norm_root", f"{prefix}gn_root"),
    ]
    for stage, unit, name, _ in units(config):
        ours, theirs = (
            f"backbone/stages/{stage}/{unit}/{name}",
            f"{prefix}block{stage + 1}/unit{unit + 1}/{name}",
        )
        found.append(rule(f"{ours}/kernel", f"{theirs}/kernel"))
        found += _norm(ours.replace("/conv", "/norm"), theirs.replace("/conv", "/gn"))
    return found


def _norm(ours: str, theirs: str) -> list[Rule]:
    return [rule(f"{ours}/{name}", f"{theirs}/{name}") for name in ("scale", "bias")]


def _affine(ours: str, theirs: str, bias: bool = True) -> list[Rule]:
    found = [rule(f"{ours}/kernel", f"{theirs}/kernel", form=SAME)]
    return found + [rule(f"{ours}/bias", f"{theirs}/bias")] * bias
