"""RandAugment as timm defines it, and so DeiT and most recipes in PyTorch."""

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from vit_jax.data.transforms.policies.geometric import Fill
from vit_jax.data.transforms.policies.operations import (
    Operation,
    PolicyTransform,
    check_moving,
    check_pixels,
    timm_operations,
)
from vit_jax.data.transforms.policies.policy_strings import (
    check_text,
    choice,
    integer,
    noisy,
    number,
    read_policy,
)
from vit_jax.errors import ConfigError

TIMM_INTERPOLATIONS = ("random", "bilinear", "bicubic", "nearest")
_OPERATIONS = timm_operations()
_BASIC = (
    *(
        "autocontrast",
        "equalize",
        "invert",
        "rotate",
        "posterize",
        "solarize",
        "solarize_add",
        "color",
        "contrast",
    ),
    *("brightness", "sharpness", "shear_x", "shear_y", "translate_x_rel", "translate_y_rel"),
)
_INCREASING = tuple(f"{name}_increasing" if f"{name}_increasing" in _OPERATIONS else name for name in _BASIC)
# Sets with weights are drawn from without replacement.
_SETS: dict[str, dict[str, float] | tuple[str, ...]] = {
    "weights": {
        "rotate": 3,
        "shear_x": 2,
        "shear_y": 2,
        "translate_x_rel": 1,
        "translate_y_rel": 1,
        "color_increasing": 0.25,
        "sharpness_increasing": 0.25,
        "autocontrast": 0.25,
        "solarize_increasing": 0.05,
        "solarize_add": 0.05,
        "contrast_increasing": 0.05,
        "brightness_increasing": 0.05,
        "equalize": 0.05,
        "posterize_increasing": 0.05,
        "invert": 0.05,
    },
    "3a": ("solarize_increasing", "desaturate", "gaussian_blur"),
    "3aw": {
        "solarize_increasing": 6,
        "desaturate": 6,
        "gaussian_blur": 6,
        "rotate": 3,
        "shear_x": 2,
        "shear_y": 2,
        "posterize_increasing": 1,
        "autocontrast": 1,
        "color_increasing": 1,
        "sharpness_increasing": 1,
        "contrast_increasing": 1,
        "brightness_increasing": 1,
        "equalize": 1,
        "invert": 1,
    },
}


class RandPolicy(NamedTuple):
    """What a text such as `rand-m9-mstd0.5-inc1` says.

    Attributes:
      names: the operations to draw from.
      weights: their probabilities; None if all are equal and each may be drawn again.
      number: how many are drawn.
      probability: of applying one that was drawn.
      magnitude: the level.
      deviation: of the level; infinite for levels uniform from 0.
      most: the highest level.
    """

    names: tuple[str, ...]
    weights: tuple[float, ...] | None
    number: int
    probability: float
    magnitude: int
    deviation: float
    most: float


@functools.lru_cache(maxsize=64)
def rand_policy(text: str) -> RandPolicy:
    """Return what a policy says.

    Args:
      text: `rand`, and any of `m` (magnitude, 10), `n` (how many operations, 2), `p` (probability of each, 0.5),
        `mstd` (deviation of the magnitude, 0; over 100: uniform from 0 to it), `mmax` (highest magnitude, 10),
        `inc1` (all operations grow stronger with the magnitude), `t` (set: weights, 3a, 3aw), joined by `-`.

    Raises:
      ConfigError: not such a text.
    """
    options = {
        "m": integer(0),
        "n": integer(1),
        "p": number(1),
        "mstd": number(),
        "mmax": integer(1),
        "inc": integer(0, 1),
        "t": choice(_SETS),
    }
    head, values = read_policy(text, "rand_augment", options)
    if head != "rand":
        raise ConfigError(
            f"rand_augment: the policy is {text!r}; it must begin with 'rand', as in 'rand-m9-mstd0.5-inc1'."
        )
    names = _SETS[values["t"]] if "t" in values else _INCREASING if values.get("inc") else _BASIC
    weights = None
    if isinstance(names, dict):
        total = sum(names.values())
        weights = tuple(weight / total for weight in names.values())
    count, deviation = values.get("n", 2), values.get("mstd", 0.0)
    if weights is not None and count > len(weights):
        raise ConfigError(
            f"rand_augment: {text!r} draws {count} of {len(weights)} operations without replacement; "
            "lower n, or leave out t."
        )
    return RandPolicy(
        tuple(names),
        weights,
        count,
        values.get("p", 0.5),
        values.get("m", 10),
        math.inf if deviation > 100 else deviation,
        values.get("mmax", 10),
    )


@dataclass(frozen=True)
class RandAugment(PolicyTransform):
    """Apply a few operations drawn at random, all at one magnitude.

    `policy` is timm's text, see `rand_policy`; `interpolation` is `random` (bilinear or bicubic), `bilinear`,
    `bicubic` or `nearest`; `fill` is the value of pixels that come from outside, which timm's training script sets
    to the model's mean, (124, 116, 104) for ImageNet.

    References: Cubuk et al. 2019, RandAugment, arXiv 1909.13719; timm 1.0.31.
    """

    policy: str = "rand-m9-mstd0.5-inc1"
    interpolation: str = "random"
    fill: Fill = 128

    def __post_init__(self) -> None:
        check_text(self.policy, "rand_augment")
        rand_policy(self.policy)
        check_moving(self.interpolation, self.fill, "rand_augment", TIMM_INTERPOLATIONS)

    def chosen(self, image: np.ndarray, rng: np.random.Generator) -> Iterator[tuple[Operation, float]]:
        """Yield the operations of an image."""
        check_pixels(image, "rand_augment", self.fill)
        policy = rand_policy(self.policy)
        for name in _drawn(policy, rng):
            if rng.random() < policy.probability:
                yield _OPERATIONS[name], noisy(policy.magnitude, policy.deviation, policy.most, rng)


def _drawn(policy: RandPolicy, rng: np.random.Generator) -> list[str]:
    """Return the names of the operations of one image."""
    choices = len(policy.names)
    if policy.weights is None:
        return [policy.names[int(rng.random() * choices)] for _ in range(policy.number)]
    drawn = rng.choice(choices, policy.number, replace=False, p=policy.weights)
    return [policy.names[index] for index in drawn]
