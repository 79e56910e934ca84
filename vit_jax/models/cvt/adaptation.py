"""What may change of a CvT when weights are loaded: size, classes, channels."""

from typing import Any

from vit_jax.models.adaptation import Adaptation
from vit_jax.models.cvt.config import CvtConfig


class CvtAdaptation(Adaptation):
    """There are no positions, so that nothing depends on the size of images."""

    fixed = (
        "widths",
        "depths",
        "kernels",
        "strides",
        "pads",
        "projection_kernel",
        "kv_stride",
        "mlp_ratio",
        "qkv_bias",
    )
    head_fields = ("problem", "final_norm")

    def first_kernel(self, config: CvtConfig) -> str:
        """Return the path of the kernel that sees the pixels."""
        return "stages/0/embed/kernel"

    def other_head(self, config: CvtConfig, num_classes: int) -> dict[str, Any]:
        """Return fields of a model with another head, which reads a normalised token."""
        normed = {"final_norm": True} if num_classes else {}
        return super().other_head(config, num_classes) | normed


ADAPTATION = CvtAdaptation()
