"""AugMix as timm defines it."""

import functools
import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from vit_jax.data.fields.table import PLANE
from vit_jax.data.transforms.base import ImageTransform
from vit_jax.data.transforms.policies import photometric as p
from vit_jax.data.transforms.policies.geometric import Fill
from vit_jax.data.transforms.policies.operations import check_moving, check_pixels, timm_operations
from vit_jax.data.transforms.policies.policy_strings import check_text, integer, noisy, number, read_policy
from vit_jax.data.transforms.policies.rand_augment import TIMM_INTERPOLATIONS
from vit_jax.errors import ConfigError

_OPERATIONS = timm_operations(translation=0.3)
_NAMES = (
    *(
        "autocontrast",
        "color_increasing",
        "contrast_increasing",
        "brightness_increasing",
        "sharpness_increasing",
    ),
    *("equalize", "rotate", "posterize_increasing", "solarize_increasing", "shear_x", "shear_y"),
    *("translate_x_rel", "translate_y_rel"),
)


class MixPolicy(NamedTuple):
    """What a text such as `augmix-m5-w4-d2` says.

    Attributes:
      magnitude: the level.
      width: how many chains are mixed.
      depth: how many operations a chain has; 0 for 1 to 3, drawn for each.
      alpha: of the mixture's distributions; 1 is uniform.
      deviation: of the level; infinite for levels uniform from 0.
    """

    magnitude: int
    width: int
    depth: int
    alpha: float
    deviation: float


@functools.lru_cache(maxsize=64)
def mix_policy(text: str) -> MixPolicy:
    """Return what a policy says.

    Args:
      text: `augmix`, and any of `m` (magnitude, 3), `w` (chains, 3), `d` (operations in a chain; 0, the default,
        draws from 1 to 3), `a` (alpha of the mixture, 1), `mstd` (deviation of the magnitude; without it, levels
        are uniform from 0 to the magnitude), joined by `-`.

    Raises:
      ConfigError: not such a text.
    """
    options = {"m": integer(0), "w": integer(1), "d": integer(0), "a": number(), "mstd": number()}
    head, values = read_policy(text, "aug_mix", options)
    if head != "augmix":
        raise ConfigError(
            f"aug_mix: the policy is {text!r}; it must begin with 'augmix', as in 'augmix-m5-w4-d2'."
        )
    if values.get("a", 1.0) == 0:
        raise ConfigError(f"aug_mix: {text!r} has alpha 0; it must be above 0.")
    return MixPolicy(
        values.get("m", 3),
        values.get("w", 3),
        values.get("d", 0),
        values.get("a", 1.0),
        values.get("mstd", math.inf),
    )


@dataclass(frozen=True)
class AugMix(ImageTransform):
    """Mix the image with a mixture of itself after several random chains of operations.

    `policy` is timm's text, see `mix_policy`; `interpolation` and `fill` are as for `rand_augment`.

    References: Hendrycks et al. 2019, AugMix, arXiv 1912.02781; timm 1.0.31.
    """

    policy: str = "augmix-m3"
    interpolation: str = "random"
    fill: Fill = 128

    def __post_init__(self) -> None:
        check_text(self.policy, "aug_mix")
        mix_policy(self.policy)
        check_moving(self.interpolation, self.fill, "aug_mix", TIMM_INTERPOLATIONS)

    def refusal(self, fields: Collection[str]) -> str:
        """Return that something lies in the plane of the image, which is mixed of several moved ones."""
        odd = ", ".join(sorted(PLANE.intersection(fields)))
        return odd and (
            f"aug_mix mixes copies of an image that are moved differently, which {odd} cannot follow; leave it out, or "
            "take rand_augment."
        )

    def image(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the augmented image."""
        check_pixels(image, "aug_mix", self.fill)
        policy = mix_policy(self.policy)
        weights = rng.dirichlet([policy.alpha] * policy.width).astype(np.float32)
        share = rng.beta(policy.alpha, policy.alpha)
        mixed = np.zeros(image.shape, np.float32)
        for weight in weights:
            mixed += weight * self._chain(image, policy, rng)
        return p.blend(image, np.minimum(mixed, 255).astype(np.uint8), share)

    def _chain(self, image: np.ndarray, policy: MixPolicy, rng: np.random.Generator) -> np.ndarray:
        """Return the image after several operations."""
        for _ in range(policy.depth or 1 + int(3 * rng.random())):
            operation = _OPERATIONS[_NAMES[int(rng.random() * len(_NAMES))]]
            level = noisy(policy.magnitude, policy.deviation, 10, rng)
            image = operation.apply(image, level, rng, self.interpolation, self.fill)
        return image
