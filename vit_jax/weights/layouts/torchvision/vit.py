"""Names of torchvision's VisionTransformer."""

from vit_jax.errors import CheckpointError
from vit_jax.models.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from vit_jax.models.registry import ModelConfig
from vit_jax.models.vit.config import ViTConfig
from vit_jax.weights.formats.tensors import RawCheckpoint
from vit_jax.weights.layouts.blocks import FROM_HEADS, TO_HEADS, norms
from vit_jax.weights.layouts.layout import Layout, Reading, check_model
from vit_jax.weights.layouts.timm.shapes import heads_of
from vit_jax.weights.rules import CONV, FLAT, ROW, Rule, affine, norm, rule

PREPROCESSING = Preprocessing(IMAGENET_MEAN, IMAGENET_STD, "bilinear", 224 / 256)


def rules(config: ViTConfig) -> list[Rule]:
    """Return the rules of a model."""
    layer = "encoder.layers.encoder_layer_{l}"
    found = [
        rule("class_token", "class_token", form=ROW),
        rule("pos_embed", "encoder.pos_embedding", form=ROW),
        *affine("patch_embed", "conv_proj", CONV),
        *norms("blocks", {"norm1": f"{layer}.ln_1", "norm2": f"{layer}.ln_2"}),
        rule("blocks/attn/qkv/kernel", f"{layer}.self_attention.in_proj_weight", form=TO_HEADS),
        rule("blocks/attn/qkv/bias", f"{layer}.self_attention.in_proj_bias", form=FLAT),
        *affine("blocks/attn/out", f"{layer}.self_attention.out_proj", FROM_HEADS),
        *affine("blocks/mlp/fc1", f"{layer}.mlp.0"),
        *affine("blocks/mlp/fc2", f"{layer}.mlp.3"),
        *norm("norm", "encoder.ln"),
    ]
    return found + (affine("head", "heads.head") if config.num_classes else [])


def describe(raw: RawCheckpoint) -> ViTConfig:
    """Return the model of a file, from the shapes of its arrays; heads are as wide as torchvision's.

    Raises:
      CheckpointError: arrays are missing.
    """
    try:
        width, channels, p, q = raw.tensors["conv_proj.weight"].shape
        rows = raw.tensors["encoder.pos_embedding"].shape[1] - 1
        hidden = raw.tensors["encoder.layers.encoder_layer_0.mlp.0.weight"].shape[0]
    except (KeyError, ValueError, IndexError):
        raise CheckpointError(
            f"{raw.origin} lacks arrays of torchvision's VisionTransformer; it is damaged."
        ) from None
    side = int(rows**0.5)
    head = raw.tensors.get("heads.head.weight")
    return ViTConfig(
        image_size=(side * p, side * q),
        patch_size=(p, q),
        in_channels=channels,
        width=width,
        depth=sum(name.endswith(".ln_1.weight") for name in raw.tensors),
        heads=heads_of(width),
        mlp_dim=hidden,
        num_classes=head.shape[0] if head else 0,
        init="trunc_normal",
        preprocessing=PREPROCESSING,
    )


def _read(raw: RawCheckpoint, model: ModelConfig | None) -> tuple[RawCheckpoint, Layout]:
    check_model(raw, model, "an image model", "vit")
    config = describe(raw) if model is None else model
    return raw, Layout(config, rules(config))


READING = Reading("torchvision", lambda raw: "conv_proj.weight" in raw.tensors, _read)
