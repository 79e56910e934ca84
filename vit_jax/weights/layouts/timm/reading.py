"""Files of timm's plain Vision Transformers, and of the authors' own code, whose names are timm's or once were."""

import dataclasses
import re

from vit_jax.errors import CheckpointError
from vit_jax.models.mae.config import MaeConfig
from vit_jax.models.preprocessing import IMAGENET, INCEPTION
from vit_jax.models.registry import ModelConfig
from vit_jax.weights.formats.tensors import RawCheckpoint
from vit_jax.weights.layouts.layout import Layout, Reading, check_model
from vit_jax.weights.layouts.meta import dino_head
from vit_jax.weights.layouts.meta import vit as meta
from vit_jax.weights.layouts.timm import config as timm_config
from vit_jax.weights.layouts.timm import shapes as timm_shapes
from vit_jax.weights.layouts.timm import vit as timm

# Of DeiT III as its authors' files have it, in their `model` or `model_ema`.
_THIRD = {"pos_embed", "blocks.0.gamma_1", "blocks.0.attn.qkv.bias"}
# What a model has whose blocks stand in stages.
_STAGED = re.compile(r"(layers|stages)\.\d+\.")


def _claims(raw: RawCheckpoint) -> bool:
    tensors = meta.renamed(raw).tensors
    if not any(name.startswith(("blocks.0.", "patch_embed.", "embeds.")) for name in tensors):
        return False
    # In other families the blocks of one list are of several widths.
    widths = {t.shape for name, t in tensors.items() if re.fullmatch(r"blocks\.\d+\.norm[12]\.weight", name)}
    return len(widths) < 2 and not any(map(_STAGED.match, tensors))


def _read(raw: RawCheckpoint, model: ModelConfig | None) -> tuple[RawCheckpoint, Layout]:
    check_model(raw, model, "an image model", "vit", "mae")
    raw = meta.renamed(raw)
    if model is not None:
        config = model
    elif "architecture" in raw.documents.get("config.json", {}):
        config = timm_config.from_document(raw)
    else:
        # Without timm's own description, these names come from the authors' code; BEiT's pixels are in [-1, 1]. But
        # RoPE-ViT with absolute positions, whose rotations no array shows, is called as DeiT III by its authors.
        if raw.weights not in ("model", "model_ema") and raw.tensors.keys() >= _THIRD:
            raise CheckpointError(
                f"{raw.origin} holds a DeiT III or a RoPE-ViT, and its arrays do not tell which; give its name, for "
                "example load(..., model='deit3_small_patch16_224')."
            )
        beit = any(name.endswith("relative_position_bias_table") for name in raw.tensors)
        config = timm_shapes.from_shapes(raw.tensors, raw.origin, INCEPTION if beit else IMAGENET)
        config = meta.refined(config, raw)
    if isinstance(config, MaeConfig):
        return raw, Layout(config, meta.mae_rules(config, raw.tensors), timm.COMPUTED)
    config = dataclasses.replace(config, mask_token=config.mask_token or "mask_token" in raw.tensors)
    names = timm_config.class_names(raw.documents.get("config.json", {}))
    rules = timm.rules(config, raw.tensors)
    others = dino_head.BESIDE_BACKBONE
    return raw, Layout(config, rules, timm.COMPUTED, class_names=names, others=others)


READING = Reading("timm, Meta's and Microsoft's code", _claims, _read)
