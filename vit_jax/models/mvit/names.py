"""Names of Multiscale Vision Transformers: timm's and the paper's. Needs no jax.

`mvitv2_tiny[.fb_in1k]`, `mvitv2_huge_cls.fb_inw21k`   timm's, with or without a tag
`MViTv2-T`, `MViTv2-L`                                 the paper's (Li et al. 2021, arXiv 2112.01526)
"""

from vit_jax.models.mvit.config import SIZES, MvitConfig

TAGS = {
    **{f"mvitv2_{size}": ("fb_in1k",) for size in ("tiny", "small", "base", "large")},
    **{f"mvitv2_{size}_cls": ("fb_inw21k",) for size in ("base", "large", "huge")},
}
CLASSES = {"fb_inw21k": 19168}
_LETTERS = {f"MViTv2-{size[0].upper()}": f"mvitv2_{size}" for size in ("tiny", "small", "base", "large")}


def resolve(name: str) -> tuple[str, MvitConfig] | None:
    """Return the canonical name and the configuration of an MViT; None if there is no such name."""
    canonical = _LETTERS.get(name, name)
    architecture, _, tag = canonical.partition(".")
    size = architecture.removeprefix("mvitv2_")
    known = (
        size in SIZES
        and architecture != size
        and (tag in TAGS.get(architecture, ()) or canonical == architecture)
    )
    if not known:
        return None
    classes = CLASSES.get(tag, 1000)
    return canonical, MvitConfig(num_classes=classes, **SIZES[size])


def architectures() -> list[str]:
    """Return the listed names, without tags."""
    return [f"mvitv2_{size}" for size in SIZES]


def aliases() -> list[str]:
    """Return the paper's names."""
    return list(_LETTERS)
