"""What model the shapes of arrays with timm's names say, where no description is beside them."""

import math
import re
from collections.abc import Mapping

from vit_jax.errors import CheckpointError
from vit_jax.models.preprocessing import IMAGENET, Preprocessing
from vit_jax.models.vit.config import ViTConfig
from vit_jax.weights.formats.tensors import Tensor

_TABLES = ("rel_pos_bias.relative_position_bias_table", "blocks.0.attn.relative_position_bias_table")


def from_shapes(
    tensors: Mapping[str, Tensor], origin: str, preprocessing: Preprocessing = IMAGENET
) -> ViTConfig:
    """Return the model that arrays with timm's names belong to.

    Heads are 64 wide except where a published size says otherwise, and images square.

    Raises:
      CheckpointError: the arrays do not say enough.
    """

    def shape(name: str) -> tuple[int, ...]:
        return tensors[name].shape if name in tensors else ()

    patch = shape("patch_embed.proj.weight")
    depth = len({m[1] for name in tensors if (m := re.match(r"blocks\.(\d+)\.", name))})
    fc1, fc2 = shape("blocks.0.mlp.fc1.weight"), shape("blocks.0.mlp.fc2.weight")
    # DINOv3 alone has rotary positions that no array shows, and registers with them.
    placed = ("pos_embed", *_TABLES, "reg_token")
    known = len(patch) == 4 and len(fc2) == 2 and any(name in tensors for name in placed)
    # Attention pooling, or no norm at the end, behind a norm before the blocks are the Perception Encoder's, whose
    # rotations no array shows; nor does one show RoPE-ViT's grid, or the epsilon of norms without bias.
    normed = "norm.weight" in tensors or "fc_norm.weight" in tensors
    known = known and not ("norm_pre.weight" in tensors and ("attn_pool.latent" in tensors or not normed))
    known = (
        known
        and not {"rope.freqs", "blocks.0.attn.lambda_q1"} & tensors.keys()
        and "blocks.0.norm1.bias" in tensors
    )
    if not known or not depth or ("cls_token" not in tensors and "pos_embed" not in tensors):
        raise CheckpointError(
            f"{origin} does not tell what model it is; give its name, for example "
            "load(..., model='vit_base_patch16_224')."
        )
    width = patch[0]
    class_token, distilled = "cls_token" in tensors, "dist_token" in tensors
    rows = shape("pos_embed")[1] if "pos_embed" in tensors else 0
    table = shape(_TABLES[0]) or shape(_TABLES[1])
    registers, register_position = shape("reg_token")[1] if "reg_token" in tensors else 0, False
    n, class_position = rows, True
    if rows:
        own = int(class_token) + int(distilled)
        class_position = bool(own) and math.isqrt(rows - own) ** 2 == rows - own
        n = rows - own * class_position
        if registers and math.isqrt(n) ** 2 != n:
            register_position, class_position = True, bool(own)
            n = rows - own - registers
    elif table:
        n = ((math.isqrt(table[0] - 3) + 1) // 2) ** 2
    side = math.isqrt(n) or 224 // patch[2]
    split = "blocks.0.mlp.fc1_g.weight" in tensors
    gated = split or (bool(fc1) and fc1[0] != fc2[1])
    # EVA-02 alone has queries, keys and values apart; its rotary positions are as on the grid it was trained on first.
    rope = (
        "eva" if rows and "blocks.0.attn.q_proj.weight" in tensors else "none" if rows or table else "dinov3"
    )
    scaled = "blocks.0.ls1.gamma" in tensors or "blocks.0.gamma_1" in tensors
    head = shape("head.weight")
    k_bias = "blocks.0.attn.q_bias" not in tensors
    pool = (
        "map"
        if "attn_pool.latent" in tensors
        else "mean"
        if "fc_norm.weight" in tensors or not class_token
        else "cls"
    )
    return ViTConfig(
        image_size=(side * patch[2], side * patch[3]),
        patch_size=(patch[2], patch[3]),
        in_channels=patch[1],
        width=width,
        depth=depth,
        heads=heads_of(width, gated, rope),
        mlp_dim=fc2[1],
        num_classes=head[0] if head else 0,
        class_token=class_token,
        distillation_token=distilled,
        register_tokens=registers,
        register_position=register_position,
        mask_token="mask_token" in tensors,
        dynamic_image_size=rope == "dinov3",
        position="learned" if rows else "none",
        class_position=class_position or not class_token,
        position_bias="none" if not table else "shared" if _TABLES[0] in tensors else "blocks",
        rope=rope,
        rope_theta=10000.0 if rope == "eva" else 100.0,
        rope_grid=(16, 16) if rope == "eva" else None,
        pool=pool,
        pool_norm="after" if "fc_norm.weight" in tensors else "before" if normed else "none",
        qkv_bias="blocks.0.attn.qkv.bias" in tensors or "blocks.0.attn.q_bias" in tensors,
        k_bias=k_bias,
        branch_norm="before" if k_bias or width != 1792 else "after",  # the enormous EVA-02
        patch_bias="patch_embed.proj.bias" in tensors,
        pre_norm="norm_pre.weight" in tensors,
        qk_norm="blocks.0.attn.q_norm.weight" in tensors,
        layer_scale=1e-5 if scaled else None,
        mlp="swiglu" if gated else "mlp",
        mlp_norm="blocks.0.mlp.norm.weight" in tensors,
        attention_norm="blocks.0.attn.norm.weight" in tensors,
        norm_epsilon=1e-5 if rope == "dinov3" else 1e-6,
        init="trunc_normal",
        preprocessing=preprocessing,
    )


def heads_of(width: int, gated: bool = False, rope: str = "none") -> int:
    """Return the number of heads that published models of a width have."""
    special = {1152: 16, 1280: 16, 1408: 16, 1664: 16, 1792: 16, 32: 2}
    if rope == "dinov3":
        special = {1280: 20, 4096: 32, 32: 2}
    if width == 1536:
        return 24 if gated else 16  # DINOv2's giant, and big_vision's
    return special.get(width, max(1, width // 64))
