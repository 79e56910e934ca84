"""Names in the files of the authors' own code, which are timm's or once were.

Sources: facebookresearch's deit, mae, dino, dinov2, dinov3 and ijepa, Microsoft's unilm (BEiT), and EVA.
"""

import dataclasses
import re
from collections.abc import Container, Mapping, Sequence
from typing import Any

from vit_jax.errors import ConfigError
from vit_jax.models.mae.config import MaeConfig
from vit_jax.models.names import timm_names
from vit_jax.models.vit.config import ViTConfig, replace
from vit_jax.weights.differences import differences
from vit_jax.weights.formats.tensors import RawCheckpoint, Tensor
from vit_jax.weights.layouts.blocks import FROM_HEADS, TO_HEADS, norms
from vit_jax.weights.layouts.layout import Written
from vit_jax.weights.layouts.timm import vit as timm
from vit_jax.weights.rules import FLAT, ROW, Rule, affine, norm, rule

# Their names -> timm's.
RENAMED = (
    (r"^register_tokens$|^storage_tokens$", "reg_token"),
    (r"^blocks\.\d+\.(\d+)\.", r"blocks.\1."),  # DINOv2 cuts its blocks into chunks
    (r"\.mlp\.w12\.", ".mlp.fc1."),
    (r"\.mlp\.w1\.", ".mlp.fc1_g."),
    (r"\.mlp\.w2\.", ".mlp.fc1_x."),
    (r"\.mlp\.w3\.", ".mlp.fc2."),
    (r"\.mlp\.ffn_ln\.", ".mlp.norm."),
    (r"\.attn\.inner_attn_ln\.", ".attn.norm."),
    (r"^pre_logits\.(?!fc\.)", "pre_logits.fc."),
    (r"^head\.fc\.", "head."),
)


# In what models may differ from DeiT-B and still be of the same code.
_FREE = (
    "image_size", "patch_size", "in_channels", "num_classes", "problem", "width", "depth", "heads", "mlp_dim",
    "qkv_bias", "distillation_token", "pool", "pool_norm", "resample", "resample_antialias", "resample_offset",
    "preprocessing",
)  # fmt: skip


def write(config: ViTConfig | MaeConfig, params: Mapping[str, Any], class_names: Sequence[str]) -> Written:
    """Return a Vision Transformer as DeiT's authors have it, or a masked autoencoder as MAE's have it.

    Raises:
      ConfigError: their code has no such model.
    """
    mae = isinstance(config, MaeConfig)
    image, base = config.encoder if mae else config, timm_names.resolve("deit_base_patch16_224")
    assert base is not None
    plain = replace(base, **{name: getattr(image, name) for name in _FREE})
    for name, value, _ in differences(image, plain):
        raise ConfigError(
            f"DeiT's and MAE's code, whose files 'pth' is for, have no {name} {value}; choose 'timm', 'hf' or 'orbax'."
        )
    if image.image_size[0] != image.image_size[1]:
        raise ConfigError(
            f"image_size is {image.image_size}, and the authors' file says nothing of images that are not square; "
            "choose 'timm' or 'hf'."
        )
    return Written(config, params, mae_rules(config) if mae else timm.rules(config))


def renamed(raw: RawCheckpoint) -> RawCheckpoint:
    """Return a checkpoint with timm's names for the authors'."""
    tensors: dict[str, Tensor] = {}
    for name, tensor in raw.tensors.items():
        new = name
        for pattern, replacement in RENAMED:
            new = re.sub(pattern, replacement, new)
        tensors[new] = tensor
    for name in [
        name for name in tensors if name.endswith(".attn.qkv.bias_mask")
    ]:  # DINOv3: keys have no bias
        del tensors[name]
        bias = tensors.pop(name.removesuffix("_mask"), None)
        if bias is not None and len(bias.shape) == 1:
            parts = {
                f"{name.removesuffix('qkv.bias_mask')}{part}_bias": (bias, i)
                for i, part in ((0, "q"), (2, "v"))
            }
            tensors |= {own: _third(*which) for own, which in parts.items()}
    return dataclasses.replace(raw, tensors=tensors)


def _third(tensor: Tensor, index: int) -> Tensor:
    width = tensor.shape[0] // 3
    return dataclasses.replace(
        tensor, shape=(width,), read=lambda: tensor.read()[index * width : (index + 1) * width]
    )


def refined(config: ViTConfig, raw: RawCheckpoint) -> ViTConfig | MaeConfig:
    """Return what arrays alone do not say and their names do: a masked autoencoder, or how DINO resizes positions."""
    if "decoder_embed.weight" in raw.tensors:
        return MaeConfig(dataclasses.replace(config, mask_token=False), _decoder(config, raw.tensors))
    dino = config.layer_scale is not None or any(name.startswith("projection_head.") for name in raw.tensors)
    if dino and config.class_position and config.position == "learned":
        return dataclasses.replace(
            config,
            resample_antialias=bool(config.register_tokens),
            resample_offset=0.0 if config.register_tokens else 0.1,
        )
    return config


def mae_rules(config: MaeConfig, names: Container[str] | None = None) -> list[Rule]:
    """Return the rules of a masked autoencoder in MAE's own code."""
    layer = "decoder_blocks.{l}"
    return [
        *(item.prefixed("encoder/") for item in timm.rules(config.encoder, names)),
        *affine("decoder/embed", "decoder_embed"),
        rule("decoder/mask_token", "mask_token", form=ROW),
        rule("decoder/pos_embed", "decoder_pos_embed", form=ROW),
        *norms("decoder/blocks", {"norm1": f"{layer}.norm1", "norm2": f"{layer}.norm2"}),
        rule("decoder/blocks/attn/qkv/kernel", f"{layer}.attn.qkv.weight", form=TO_HEADS),
        rule("decoder/blocks/attn/qkv/bias", f"{layer}.attn.qkv.bias", form=FLAT),
        *affine("decoder/blocks/attn/out", f"{layer}.attn.proj", FROM_HEADS),
        *affine("decoder/blocks/mlp/fc1", f"{layer}.mlp.fc1"),
        *affine("decoder/blocks/mlp/fc2", f"{layer}.mlp.fc2"),
        *norm("decoder/norm", "decoder_norm"),
        *affine("decoder/head", "decoder_pred"),
    ]


def _decoder(encoder: ViTConfig, tensors: Mapping[str, Tensor]) -> ViTConfig:
    width = tensors["decoder_embed.weight"].shape[0]
    depth = len({m[1] for name in tensors if (m := re.match(r"decoder_blocks\.(\d+)\.", name))})
    return dataclasses.replace(
        encoder,
        width=width,
        depth=depth,
        heads=16 if width == 512 else max(1, width // 32),
        mlp_dim=tensors["decoder_blocks.0.mlp.fc1.weight"].shape[0],
        num_classes=tensors["decoder_pred.weight"].shape[0],
        pool="patches",
        layer_scale=None,
        mask_token=False,
    )
