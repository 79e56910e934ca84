"""A reference case as the checkpoint that a user would have, and what to say to `load` beside its name."""

import json
import re
import shutil

from vit_jax.models.heads.setr.config import SetrConfig
from vit_jax.models.vit.config import ViTConfig
from vit_jax.models.vit.resnet_config import ResNetConfig

# A published architecture of timm's class; its arguments stand in the case.
ARCHITECTURES = {
    "beit_timm": "beit_base_patch16_224",
    "dinov3_timm": "vit_base_patch16_dinov3",
    "eva02_timm": "eva02_base_patch14_224",
    "eva02_timm_postnorm": "eva02_enormous_patch14_clip_224",
    "deit_timm_distilled": "deit_base_distilled_patch16_224",
    "hiera_timm": "hiera_base_224",
    "hiera_timm_abswin": "hiera_base_abswin_256",
    "vit_timm_reg4_swiglu": "vit_giant_patch14_reg4_dinov2",
    "vit_timm_aimv2": "aimv2_large_patch14_224",
    "vit_timm_respost": "vit_base_patch16_rpn_224",
    "vit_timm_diff": "vit_dwee_patch16_reg1_gap_256",
    "vit_timm_parallel": "vit_pwee_patch16_reg1_gap_256",
    "vit_timm_diff_parallel": "vit_dpwee_patch16_reg1_gap_256",
    "eva_timm_pe_core": "vit_pe_core_large_patch14_336",
    "eva_timm_pe_lang": "vit_pe_lang_large_patch14_448",
    "eva_timm_rope_ape": "vit_base_patch16_rope_ape_224",
    "eva_timm_rope_mixed": "vit_base_patch16_rope_mixed_224",
    "eva_timm_sapiens2": "vit_base_patch16_sapiens2",
    **dict.fromkeys(
        ("swin_timm", "swin_timm_rect", "swin_timm_dynamic", "gradcam_swin"), "swin_tiny_patch4_window7_224"
    ),
    **dict.fromkeys(("swinv2_timm", "swinv2_timm_prewin", "swinv2_timm_dynamic"), "swinv2_tiny_window8_256"),
}
# Arguments that are classes and functions in Python, or of no model of timm, and so never stand in a config.json.
OBJECTS = (
    "r", "norm_layer", "act_layer", "mlp_layer", "embed_layer", "embed_norm_layer", "block_fn", "backbone",
)  # fmt: skip


def prepare(about, weights, folder):
    """Put a case into a folder as its library publishes it; return what `load` is called with."""
    name, config = about["name"], about["config"]
    target = folder / ("open_clip_model.safetensors" if "openclip" in name else "model.safetensors")
    shutil.copy(weights, target)
    if "hf_config_json" in about:
        (folder / "config.json").write_text(json.dumps(about["hf_config_json"]))
        return folder, {}
    if name.endswith("_openclip"):
        (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
        return folder, {}
    if name in ("swin_torchvision", "swinv2_torchvision"):
        return target, {}
    if name.startswith(
        ("mvitv2_timm", "resnet_timm")
    ):  # its arguments are an object, and no architecture of timm has them
        return target, {}
    if name == "vit_torchvision":
        return target, dict(model=torchvision(config))
    if name.startswith("hybrid_"):
        return target, dict(model=hybrid(config))
    if name == "vit_timm_mci":
        return target, dict(model=mobile(config))
    if name.startswith("setr_"):
        return target, dict(model=setr(config))
    if name == "naflexvit_timm":
        return target, dict(model=naflex(config, about))
    arguments = {key: value for key, value in config.items() if key not in OBJECTS and value is not None}
    document = dict(architecture=ARCHITECTURES.get(name, "vit_base_patch16_224"), model_args=arguments)
    (folder / "config.json").write_text(json.dumps(document))
    return folder, objects(config)


def objects(config):
    """Return our options for arguments that were objects."""
    options = {}
    epsilon = re.search(r"eps=([\d.e-]+)", config.get("norm_layer") or "")
    if epsilon:
        options["norm_epsilon"] = float(epsilon[1])
    activation = config.get("act_layer") or ""
    if "Quick" in activation:
        options["activation"] = "quick_gelu"
    elif "tanh" in activation:
        options["activation"] = "gelu_tanh"
    return options


def torchvision(config):
    return ViTConfig(
        image_size=config["image_size"],
        patch_size=config["patch_size"],
        width=config["hidden_dim"],
        depth=config["num_layers"],
        heads=config["num_heads"],
        mlp_dim=config["mlp_dim"],
        num_classes=config["num_classes"],
    )


def hybrid(config):
    backbone, google = config["backbone"], "std+1e-5" in config["backbone"]["conv"]
    return ViTConfig(
        image_size=config["img_size"],
        patch_size=config["patch_size"],
        width=config["embed_dim"],
        depth=config["depth"],
        heads=config["num_heads"],
        mlp_dim=4 * config["embed_dim"],
        num_classes=config["num_classes"],
        activation="gelu_tanh" if google else "gelu",
        backbone=ResNetConfig(
            depths=backbone["layers"],
            channels=backbone["channels"],
            stem_channels=backbone["stem_chs"],
            numerics="google" if google else "timm",
        ),
    )


def setr(config):
    kind, head = config["kind"], config["head"]
    encoder = ViTConfig(
        image_size=48,
        patch_size=8,
        width=32,
        depth=4,
        heads=4,
        mlp_dim=128,
        num_classes=0,
        class_token=kind != "mla",
        patch_bias=False,
        pool="patches",
        pool_norm="none",
        resample="bilinear",
        resample_antialias=False,
        dynamic_image_size=True,
    )
    if kind == "mla":
        sizes = dict(decoder="mla", channels=16, branch_channels=head["mla_channels"])
    else:
        sizes = dict(channels=16, convs=head["num_convs"], kernel=head["kernel_size"], scale=head["up_scale"])
    return SetrConfig(
        encoder, num_classes=7, taps=(1, 2, 3, 4), auxiliary=(0,) if kind == "pup" else (), **sizes
    )


def mobile(config):
    return ViTConfig(
        image_size=tuple(config["img_size"]),
        patch_size=2,
        width=config["embed_dim"],
        depth=config["depth"],
        heads=config["num_heads"],
        mlp_dim=4 * config["embed_dim"],
        num_classes=config["num_classes"],
        stem=(8, 8),
        stem_strides=(4, 2),
        stem_kind="mci",
        class_position=False,
    )


def naflex(config, about):
    patch, grid = config["patch_size"], config["pos_embed_grid_size"]
    return ViTConfig(
        image_size=(grid[0] * patch, grid[1] * patch),
        patch_size=patch,
        width=config["embed_dim"],
        depth=config["depth"],
        heads=config["num_heads"],
        mlp_dim=4 * config["embed_dim"],
        num_classes=about["outputs"]["logits"]["shape"][1],
        class_token=False,
        pool="map",
        activation="gelu_tanh",
    )
