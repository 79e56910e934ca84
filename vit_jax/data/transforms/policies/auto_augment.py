"""AutoAugment and TrivialAugment."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from vit_jax.data.transforms.policies import geometric as g
from vit_jax.data.transforms.policies import photometric as p
from vit_jax.data.transforms.policies.auto_augment_policies import CIFAR10, ORIGINAL, SVHN, V0, Pair
from vit_jax.data.transforms.policies.geometric import Fill
from vit_jax.data.transforms.policies.operations import (
    MIXTURES,
    Operation,
    PolicyTransform,
    check_moving,
    check_pixels,
    random_sign,
    timm_operations,
)
from vit_jax.data.transforms.policies.policy_strings import check_text, noisy, number, read_policy
from vit_jax.data.transforms.policies.rand_augment import TIMM_INTERPOLATIONS
from vit_jax.errors import choose

Policy = tuple[tuple[tuple[str, float, int], ...], ...]


def _replaced(policy: tuple[Pair, ...], old: str, new: str) -> Policy:
    """Return a policy with another operation in the place of one."""
    return tuple(
        tuple((new if name == old else name, chance, level) for name, chance, level in pair)
        for pair in policy
    )


_POLICIES: dict[str, Policy] = {
    "v0": V0,
    "v0r": _replaced(V0, "posterize", "posterize_increasing"),
    "original": ORIGINAL,
    "originalr": _replaced(ORIGINAL, "posterize_original", "posterize_increasing"),
    "3a": ((("solarize", 1.0, 5),), (("desaturate", 1.0, 10),), (("gaussian_blur_random", 1.0, 10),)),
    "cifar10": CIFAR10,
    "svhn": SVHN,
}


def _spaces(
    count: int, shear: float, pixels: float | None, degrees: float, mixture: float, bits: int
) -> dict[str, Operation]:
    """Return operations whose levels reach from 0 to `count - 1`, as torchvision's do.

    Args:
      count: of levels.
      shear: largest factor.
      pixels: largest shift; None for 150 / 331 of the image's size.
      degrees: largest rotation.
      mixture: largest change of the factor 1, down or up.
      bits: how many bits `posterize` takes away at most.
    """
    last = count - 1

    def spread(most: float):
        return lambda level, rng: random_sign(rng) * (level / last * most)

    def shifted(axis: int) -> Operation:
        function, moves = ((g.translate_y, g.shifted_y), (g.translate_x, g.shifted_x))[axis]

        def shift(share: float, size: int) -> int:
            return int(share * pixels if pixels is not None else share * 150 / 331 * size)

        return Operation(
            lambda image, share, *options: function(image, shift(share, image.shape[axis]), *options),
            spread(1),
            lambda height, width, share: moves(height, width, shift(share, (height, width)[axis])),
        )

    return {
        "identity": Operation(lambda image: image),
        "shear_x": Operation(g.shear_x, spread(shear), g.sheared_x),
        "shear_y": Operation(g.shear_y, spread(shear), g.sheared_y),
        "translate_x": shifted(1),
        "translate_y": shifted(0),
        "rotate": Operation(g.rotate, spread(degrees), g.rotated),
        **{
            name: Operation(function, lambda level, rng: 1 + random_sign(rng) * (level / last * mixture))
            for name, function in MIXTURES.items()
        },
        "posterize": Operation(p.posterize, lambda level, rng: 8 - round(level / last * bits)),
        "solarize": Operation(p.solarize, lambda level, rng: 255 - level / last * 255),
        "autocontrast": Operation(p.autocontrast),
        "equalize": Operation(p.equalize),
        "invert": Operation(p.invert),
    }


_TIMM = timm_operations()
# Of the paper's policies for small images.
_PAPER = _spaces(10, shear=0.3, pixels=None, degrees=30, mixture=0.9, bits=4)
_WIDE = _spaces(31, shear=0.99, pixels=32, degrees=135, mixture=0.99, bits=6)
_WIDE_NAMES = tuple(name for name in _WIDE if name != "invert")


class AutoPolicy(NamedTuple):
    """What a text such as `original-mstd0.5` says: a name of a policy, and the deviation of its levels."""

    name: str
    deviation: float


@functools.lru_cache(maxsize=64)
def auto_policy(text: str) -> AutoPolicy:
    """Return what a policy says.

    Args:
      text: a name (v0, v0r, original, originalr, 3a, cifar10, svhn), and maybe `-mstd` with the deviation of
        the levels.

    Raises:
      ConfigError: not such a text.
    """
    name, values = read_policy(text, "auto_augment", {"mstd": number()})
    choose(name, _POLICIES, "auto_augment: the policy")
    return AutoPolicy(name, values.get("mstd", 0.0))


@dataclass(frozen=True)
class AutoAugment(PolicyTransform):
    """Apply one of the pairs of operations that a search found.

    `policy` is timm's text: `v0` (of TensorFlow's EfficientNet) or `original` (the paper's for ImageNet), with an
    `r` where posterising grows stronger with the level; `3a`; also the paper's `cifar10` and `svhn`, with
    torchvision's strengths; `-mstd0.5` adds noise to levels. `interpolation` and `fill` are as for `rand_augment`.

    References: Cubuk et al. 2018, AutoAugment, arXiv 1805.09501; timm 1.0.31, torchvision 0.28.
    """

    policy: str = "v0"
    interpolation: str = "random"
    fill: Fill = 128

    def __post_init__(self) -> None:
        check_text(self.policy, "auto_augment")
        auto_policy(self.policy)
        check_moving(self.interpolation, self.fill, "auto_augment", TIMM_INTERPOLATIONS)

    def chosen(self, image: np.ndarray, rng: np.random.Generator) -> Iterator[tuple[Operation, float]]:
        """Yield the operations of a pair."""
        check_pixels(image, "auto_augment", self.fill)
        name, deviation = auto_policy(self.policy)
        pairs = _POLICIES[name]
        operations, most = (_PAPER, 9) if name in ("cifar10", "svhn") else (_TIMM, 10)
        for operation, probability, level in pairs[int(rng.random() * len(pairs))]:
            if rng.random() < probability:
                yield operations[operation], noisy(level, deviation, most, rng)


@dataclass(frozen=True)
class TrivialAugment(PolicyTransform):
    """Apply one operation, both it and its strength uniformly drawn: TrivialAugmentWide, with nothing to tune.

    Strengths, interpolation and fill are torchvision's.

    Reference: Müller, Hutter 2021, TrivialAugment, arXiv 2103.10158.
    """

    interpolation: str = "nearest"
    fill: Fill = 0

    def __post_init__(self) -> None:
        check_moving(self.interpolation, self.fill, "trivial_augment", TIMM_INTERPOLATIONS)

    def chosen(self, image: np.ndarray, rng: np.random.Generator) -> Iterator[tuple[Operation, float]]:
        """Yield one operation."""
        check_pixels(image, "trivial_augment", self.fill)
        name = _WIDE_NAMES[int(rng.random() * len(_WIDE_NAMES))]
        yield _WIDE[name], int(rng.random() * 31)
