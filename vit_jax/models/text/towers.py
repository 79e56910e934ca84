"""Pairs of towers as published: CLIP (Radford et al. 2021, arXiv 2103.00020; Cherti et al. 2022, arXiv 2212.07143)
and SigLIP (Zhai et al. 2023, arXiv 2303.15343; Tschannen et al. 2025, arXiv 2502.14786). Needs no jax.
"""

from collections.abc import Mapping
from typing import Any

from vit_jax.models.names.timm_kinds import EMBEDDING
from vit_jax.models.text.config import ImageTextConfig, TextConfig
from vit_jax.models.vit.config import SIZES, ViTConfig

# Width, depth and heads of CLIP's text tower, by the size of its image tower.
_CLIP_TEXT = {
    "base": (512, 12, 8),
    "large": (768, 12, 12),
    "huge": (1024, 24, 16),
    "giant": (1024, 24, 16),
    "gigantic": (1280, 32, 20),
}


def clip_config(
    size: str,
    patch: int,
    resolution: int,
    activation: str = "gelu",
    text_pool: str = "eos",
    image_fields: Mapping[str, Any] | None = None,
) -> ImageTextConfig:
    """Return CLIP's configuration.

    Args:
      size: of the image tower, `base` to `gigantic`.
      patch, resolution: of the image tower.
      activation: of both towers.
      text_pool: of the text tower.
      image_fields: fields of the image tower that depend on the source.
    """
    width, depth, heads = _CLIP_TEXT[size]
    shared: dict[str, Any] = dict(
        num_classes=EMBEDDING[size],
        head_bias=False,
        activation=activation,
        norm_epsilon=1e-5,
        init="trunc_normal",
    )
    image = ViTConfig(
        image_size=(resolution, resolution),
        patch_size=(patch, patch),
        pre_norm=True,
        patch_bias=False,
        **SIZES[size],
        **shared,
        **(image_fields or {}),
    )
    text = TextConfig(width=width, depth=depth, heads=heads, mlp_dim=4 * width, pool=text_pool, **shared)
    return ImageTextConfig(image, text)


def siglip_config(
    size: str,
    patch: int,
    resolution: int,
    vocabulary: int,
    context: int = 64,
    image_fields: Mapping[str, Any] | None = None,
) -> ImageTextConfig:
    """Return SigLIP's configuration; both towers compute the tanh approximation of GELU.

    Args:
      size: of the image tower; the text tower has the same, but that of `giantopt` is of size `so400m`.
      patch, resolution: of the image tower.
      vocabulary: number of tokens: 32,000 in English, 250,000 multilingual, 256,000 in SigLIP 2.
      context: number of tokens of a text.
      image_fields: fields of the image tower that depend on the source.
    """
    shared: dict[str, Any] = dict(activation="gelu_tanh")
    image = ViTConfig(
        image_size=(resolution, resolution),
        patch_size=(patch, patch),
        class_token=False,
        pool="map",
        num_classes=0,
        **SIZES[size],
        **shared,
        **(image_fields or {}),
    )
    text = TextConfig(
        vocab_size=vocabulary,
        context_length=context,
        causal=False,
        pool="last",
        eos_token=0,
        num_classes=image.width,
        head_bias=True,
        **SIZES["so400m" if size == "giantopt" else size],
        **shared,
    )
    return ImageTextConfig(image, text, logit_bias=True)
