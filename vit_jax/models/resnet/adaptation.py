"""What may change of a ResNet when weights are loaded: size, classes, channels."""

from vit_jax.models.adaptation import Adaptation
from vit_jax.models.resnet.config import ResNetConfig


class ResNetAdaptation(Adaptation):
    """Nothing depends on the size of images."""

    fixed = ("block", "depths", "widths", "stem_width", "width_factor", "groups")

    def first_kernel(self, config: ResNetConfig) -> str:
        """Return the path of the kernel that sees the pixels."""
        return "stem/kernel"


ADAPTATION = ResNetAdaptation()
