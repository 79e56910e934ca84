"""Make cases of timm: `python make_timm_cases.py DIR [NAME ...]`, with torch and timm.

They are of its later plain ViTs, of Swin on images of another size than its own, and of ResNets.

Weights, images and cotangents are drawn by the rules of the parity cases' generator: from the seed, the case's name and
the array's name. Outputs and the gradient of `sum(logits * cot)` are of a float64 run, rounded; `noise_f32_vs_f64` is
how far the float32 run is from it. What can be drawn again is left out afterwards by `tests.reference.shrink`.
"""

import copy
import importlib.metadata
import json
import math
import re
import sys
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from timm.layers import HybridEmbed, LayerNorm, RmsNorm, SwiGLU
from timm.models.eva import Eva
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from timm.models.swin_transformer import SwinTransformer
from timm.models.swin_transformer_v2 import SwinTransformerV2
from timm.models.vision_transformer import (
    DiffParallelScalingBlock,
    ParallelScalingBlock,
    ResPostBlock,
    VisionTransformer,
)
from timm.models.vision_transformer_hybrid import ConvStem

SEED = 0
TINY = dict(img_size=(32, 48), patch_size=8, num_classes=7, embed_dim=32, depth=2, num_heads=4)
# The blocks of timm's own rotary attention, whose keys have a bias.
ROPE = dict(attn_type="rope", use_rot_pos_emb=True, rope_grid_indexing="xy", init_values=1e-5)
ENCODER = ROPE | dict(
    use_pre_transformer_norm=True, ref_feat_shape=(3, 5), rope_grid_offset=1.0, norm_layer=partial(LayerNorm, eps=1e-5)
)  # fmt: skip
RMS = partial(RmsNorm, eps=1e-5)
SBB = dict(
    class_token=False, no_embed_class=True, reg_tokens=1, global_pool="avg", init_values=1e-5, mlp_ratio=4.0
)  # fmt: skip
MCI = ConvStem(
    channels=(8, 8, 32), stride=(4, 2, 2), kernel_size=(4, 2, 2), padding=0, act_layer=torch.nn.GELU
)

SWIN = dict(
    img_size=(64, 64),
    patch_size=4,
    window_size=4,
    depths=(2, 2, 2),
    num_heads=(2, 4, 8),
    dynamic_img_size=True,
    depth=...,  # left out
)
# Images of another size: maps of 10x18, 5x9 and 3x5, for windows of 4.
SIZES = dict.fromkeys(("swin_timm_dynamic", "swinv2_timm_dynamic"), (40, 72))
RESNET = dict.fromkeys(("img_size", "patch_size", "embed_dim", "depth", "num_heads"), ...)
SIZES |= dict.fromkeys(("resnet_timm", "resnet_timm_basic", "resnet_timm_groups"), (37, 45))

# By name: the class, and what it is made with beside `TINY`.
CASES = {
    "vit_timm_aimv2": (VisionTransformer, dict(
        class_token=False, fc_norm=False, mlp_ratio=2.75, global_pool="avg", qkv_bias=False, proj_bias=False,
        act_layer="silu", norm_layer=RMS, embed_norm_layer=RMS, mlp_layer=SwiGLU,
    )),
    "vit_timm_regpos": (VisionTransformer, dict(reg_tokens=2, global_pool="map", init_values=1e-5)),
    "vit_timm_prefix": (VisionTransformer, dict(
        class_token=False, reg_tokens=2, global_pool="map", pool_include_prefix=True,
    )),
    "vit_timm_unnormed": (VisionTransformer, dict(
        reg_tokens=2, no_embed_class=True, init_values=0.1, final_norm=False,
    )),
    "vit_timm_respost": (VisionTransformer, dict(
        qkv_bias=False, class_token=False, global_pool="avg", block_fn=ResPostBlock,
    )),
    "vit_timm_diff": (VisionTransformer, SBB | dict(attn_layer="diff")),
    "vit_timm_parallel": (VisionTransformer, SBB | dict(block_fn=ParallelScalingBlock)),
    "vit_timm_diff_parallel": (VisionTransformer, SBB | dict(block_fn=DiffParallelScalingBlock)),
    "vit_timm_mci": (VisionTransformer, dict(
        patch_size=1, no_embed_class=True, embed_layer=partial(HybridEmbed, proj=False, backbone=MCI),
    )),
    "eva_timm_pe_core": (Eva, ENCODER | dict(
        init_values=None, global_pool="map", attn_pool_num_heads=2, attn_pool_mlp_ratio=1.5,
    )),
    "eva_timm_pe_lang": (Eva, ENCODER | dict(
        class_token=False, rope_grid_offset=0.0, use_post_transformer_norm=False, use_fc_norm=False,
    )),
    "eva_timm_rope_ape": (Eva, ROPE | dict(global_pool="token", no_embed_class=True, rope_temperature=100.0)),
    "eva_timm_rope_mixed": (Eva, ROPE | dict(
        global_pool="token", use_abs_pos_emb=False, rope_type="mixed", rope_temperature=10.0,
    )),
    "eva_timm_sapiens2": (Eva, dict(
        attn_type="rope", qkv_fused=False, qk_norm=True, global_pool="token", swiglu_mlp=True, init_values=1.0,
        attn_only_layer_scale=True, rope_type="dinov3", rope_temperature=100, rope_rotate_half=True,
        use_rot_pos_emb=True, use_abs_pos_emb=False, num_reg_tokens=2, use_fc_norm=False,
        norm_layer=partial(RmsNorm, eps=1e-6),
    )),
    "swin_timm_dynamic": (SwinTransformer, SWIN),
    "swinv2_timm_dynamic": (SwinTransformerV2, SWIN),
    "resnet_timm": (ResNet, RESNET | dict(block=Bottleneck, layers=(1, 2, 1, 1), channels=(8, 8, 16, 16))),
    "resnet_timm_basic": (ResNet, RESNET | dict(block=BasicBlock, layers=(2, 1, 1, 1), channels=(8, 16, 16, 32))),
    "resnet_timm_groups": (ResNet, RESNET | dict(
        block=Bottleneck, layers=(1, 1, 1, 1), channels=(8, 8, 16, 16), cardinality=4, base_width=32,
    )),
}  # fmt: skip


def main(folder, *names):
    torch.set_num_threads(1)
    folder = Path(folder)
    folder.mkdir(exist_ok=True)
    for name in names or CASES:
        kind, arguments = CASES[name]
        about = make(name, kind, TINY | arguments, folder / name)
        noise = max(out["noise_f32_vs_f64"] / out["absmax"] for out in about["outputs"].values())
        print(f"{name:<22} noise {noise:.1e}")


def make(name, kind, arguments, path):
    arguments = {key: value for key, value in arguments.items() if value is not ...}
    model = kind(**arguments).eval()
    randomise(model, name)
    size = SIZES.get(name) or arguments["img_size"]
    images = draw(name, "in.px", (2, 3, *size))
    with torch.no_grad():
        single = outputs(model, images)
    wide = images.double().requires_grad_(True)
    double = outputs(copy.deepcopy(model).double(), wide)
    cot = draw(name, "cot", double["logits"].shape)
    gradient = torch.autograd.grad((double["logits"] * cot.double()).sum(), wide)[0]
    arrays = {"in.pixel_values": images, "cot": cot, "grad.pixel_values": gradient}
    arrays |= {f"out.{key}": value for key, value in double.items()}
    np.savez_compressed(
        path.with_suffix(".npz"), **{k: v.detach().float().numpy() for k, v in arrays.items()}
    )
    weights = {key: value.contiguous() for key, value in model.state_dict().items()}
    save_file(weights, path.with_suffix(".safetensors"), {"format": "pt"})
    about = dict(
        name=name,
        family=next((family for family in ("swin", "resnet") if name.startswith(family)), "vit"),
        source=f"{kind.__module__}.{kind.__name__}",
        seed=SEED,
        size="tiny",
        versions={package: importlib.metadata.version(package) for package in ("torch", "timm")},
        config={key: str(value) if callable(value) else value for key, value in arguments.items()},
        inputs={"pixel_values": [list(images.shape), "float32"]},
        f64=True,
        outputs={key: described(value, double[key]) for key, value in single.items()},
        primary="logits",
    )
    path.with_suffix(".json").write_text(json.dumps(about, separators=(",", ":")))
    return about


def outputs(model, images):
    features = model.forward_features(images)
    found = {"forward_features": features, "pre_logits": model.forward_head(features, pre_logits=True)}
    found["logits"] = model(images)
    maps = model.forward_intermediates(images, intermediates_only=True)
    for layer, blocks in enumerate(maps[isinstance(model, ResNet) :]):  # not of its stem
        found[f"intermediates.{layer}"] = blocks
    return found


def described(single, double):
    single, double = single.detach(), double.detach()
    noise = (single.double() - double).abs().max()
    return dict(shape=list(single.shape), absmax=float(single.abs().max()), noise_f32_vs_f64=float(noise))


def randomise(model, case):
    """Give every parameter a random value, those too that start at 0 or 1."""
    modules = dict(model.named_modules())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            owner, _, leaf = name.rpartition(".")
            shape = tuple(parameter.shape)
            if re.search(r"gamma|lambda", name) and len(shape) < 2:
                value = draw(case, name, shape, 0.3, 1.3, uniform=True)
            elif "norm" in type(modules[owner]).__name__.lower() and leaf == "weight":
                value = draw(case, name, shape, 1.0, 0.25)
            elif isinstance(modules[owner], torch.nn.Linear | torch.nn.Conv2d) and leaf == "weight":
                value = draw(case, name, shape, 0.0, 1 / math.sqrt(math.prod(shape[1:])))
            else:
                value = draw(case, name, shape, 0.0, 0.2 if leaf.endswith("bias") else 0.7)
            parameter.copy_(value)
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(draw(case, name, tuple(buffer.shape), 0.0, 0.3))
            elif name.endswith("running_var"):
                buffer.copy_(draw(case, name, tuple(buffer.shape), 0.5, 1.5, uniform=True))


def draw(case, name, shape, first=0.0, second=1.0, uniform=False):
    seed = [SEED, zlib.crc32(case.encode()), zlib.crc32(name.encode())]
    generator = np.random.default_rng(seed)
    values = (
        generator.uniform(first, second, shape)
        if uniform
        else first + second * generator.standard_normal(shape)
    )
    return torch.from_numpy(np.asarray(values, np.float32))


if __name__ == "__main__":
    main(*sys.argv[1:])
