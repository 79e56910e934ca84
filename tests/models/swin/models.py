"""Tiny Swin Transformers of both versions, and what tests do with them."""

from vit_jax.models.swin.config import VERSION_2, SwinConfig, replace

# Maps of 8x8 and 4x4 places in windows of 2; three blocks leave one without a partner. Rolled: a pair to compile.
FIRST = SwinConfig(
    image_size=16, patch_size=2, num_classes=5, width=8, depths=(2, 3), heads=(2, 4), window_size=2, unroll=1
)
SECOND = replace(FIRST, **VERSION_2)
VERSIONS = {"first": FIRST, "second": SECOND}
