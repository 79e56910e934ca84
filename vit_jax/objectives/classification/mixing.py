"""Mixup and cutmix, inside the jitted step and over the whole global batch.

Every image is mixed with a partner: the one before it in the batch (`roll`, as big_vision), or the one as far from the
end as it is from the start (`flip`, as timm). What is drawn depends on the key and the shape of the global batch
alone, so the result does not depend on the number of devices or of microbatches.

Whatever is drawn becomes one weight for each pixel, of the image's own content, and one for its target:

    mixed = weight * image + (1 - weight) * partner

With `mode` the strength, the kind and the box are drawn once for the `batch`, for each `pair` of images that are each
other's partners, or for each element (`elem`). Sources: Zhang et al. 2017 (arXiv 1710.09412) for mixup; Yun et al. 2019
(arXiv 1905.04899) for cutmix; timm's `Mixup` for the modes, the switching and `cutmix_minmax`; big_vision's `mixup`
for strengths that leave the image the larger share (`dominant`).
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax.random import fold


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Mixture:
    """How a batch is mixed; `g` is the number of images, or 1 for all alike.

    Attributes:
      share: `(g,)` float32, weight of the image's own content where images are blended.
      target: `(g,)` float32, weight of its own target.
      cut: `(g,)` bool, paste a box instead of blending.
      box: `(g, 4)` int32, top, bottom, left and right of it; bottom and right are outside.
    """

    share: jax.Array
    target: jax.Array
    cut: jax.Array
    box: jax.Array


def mix(
    images: jax.Array,
    targets: jax.Array,
    key: jax.Array,
    *,
    mixup_alpha: float = 0.0,
    cutmix_alpha: float = 0.0,
    cutmix_minmax: tuple[float, float] | None = None,
    probability: float = 1.0,
    cutmix_probability: float = 0.5,
    mode: str = "batch",
    partner: str = "roll",
    dominant: bool = False,
    corrected: bool = True,
    others: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Return the batch mixed by mixup, by cutmix, or not at all, as drawn from `key`.

    Args:
      images: `(b, h, w, c)` float32.
      targets: `(b, c)` float32; smoothed before, if at all.
      key: a typed key.
      mixup_alpha, cutmix_alpha: parameters of the symmetric Beta distribution of the strength; 0 is off.
      cutmix_minmax: smallest and largest side of boxes, as shares of the image's; turns cutmix on, without alpha.
      probability: of mixing at all, each time that is drawn.
      cutmix_probability: of cutmix, when both are on.
      mode: `batch`, `pair` or `elem`: what shares a draw.
      partner: `roll` or `flip`; `pair` needs `flip`.
      dominant: the image keeps the larger of the two shares; boxes of `cutmix_minmax` are as large as they are.
      corrected: targets of cutmix follow the area that the box, clipped at the border, really has; else the strength.
      others: each image's partner, if the caller has a cheaper way to them than `partners` of `images`.
    """
    use_cutmix = bool(cutmix_alpha) or cutmix_minmax is not None
    if not mixup_alpha and not use_cutmix:
        return images, targets
    size, (height, width) = len(images), images.shape[1:3]
    count = {"batch": 1, "pair": (size + 1) // 2, "elem": size}[mode]
    if mixup_alpha and use_cutmix:
        cut = jax.random.bernoulli(fold(key, "kind"), cutmix_probability, (count,))
    else:
        cut = jnp.full(count, use_cutmix)
    alpha = jnp.where(cut, jnp.float32(cutmix_alpha or 1.0), jnp.float32(mixup_alpha or 1.0))
    share = symmetric_beta(fold(key, "strength"), alpha)
    if dominant:
        share = jnp.maximum(share, 1 - share)
    if cutmix_minmax is None:
        box = box_of_area(fold(key, "box"), 1 - share, (height, width))
    else:
        box = box_of_sides(fold(key, "box"), cutmix_minmax, (height, width), count)
    area = ((box[:, 1] - box[:, 0]) * (box[:, 3] - box[:, 2])).astype(jnp.float32)
    left = 1 - area / (height * width)
    target = jnp.where(cut, left, share) if corrected or cutmix_minmax is not None else share
    chosen = jax.random.bernoulli(fold(key, "mix"), probability, (count,))
    mixture = Mixture(jnp.where(chosen, share, 1.0), jnp.where(chosen, target, 1.0), cut & chosen, box)
    if mode == "pair":
        row = jnp.arange(size)
        mixture = jax.tree.map(lambda x: x[jnp.minimum(row, size - 1 - row)], mixture)
    others = partners(images, partner) if others is None else others
    return blend((images, others), (targets, partners(targets, partner)), mixture)


def partners(rows: jax.Array, partner: str) -> jax.Array:
    """Return the partner of each row of a batch, by `roll` or `flip`."""
    return jnp.roll(rows, 1, axis=0) if partner == "roll" else jnp.flip(rows, axis=0)


def blend(
    images: tuple[jax.Array, jax.Array], targets: tuple[jax.Array, jax.Array], mixture: Mixture
) -> tuple[jax.Array, jax.Array]:
    """Return images `(b, h, w, c)` and targets `(b, c)`, each mixed with its partner, which comes second."""
    (image, other), (target, other_target) = images, targets
    height, width = image.shape[1:3]
    top, bottom, left, right = (edge[:, None] for edge in mixture.box.T)
    row, column = jnp.arange(height), jnp.arange(width)
    inside = ((row >= top) & (row < bottom))[:, :, None] & ((column >= left) & (column < right))[:, None, :]
    cut, share = mixture.cut[:, None, None], mixture.share[:, None, None]
    pixels = jnp.where(cut, jnp.where(inside, 0.0, 1.0), share)[..., None].astype(image.dtype)
    own = mixture.target[:, None].astype(target.dtype)
    return pixels * image + (1 - pixels) * other, own * target + (1 - own) * other_target


def symmetric_beta(key: jax.Array, alpha: jax.Array) -> jax.Array:
    """Return draws from Beta(alpha, alpha), one for each element of `alpha` (float32, above 0).

    A Student's t variate with `2 alpha` degrees of freedom, made of two uniform ones by the polar method (Bailey 1994,
    Mathematics of Computation 62), becomes a Beta variate (Devroye 1996, Random variate generation in one line of
    code). `jax.random.beta` draws by rejection, in loops that take seconds to compile.
    """
    uniform = jax.random.uniform(fold(key, "radius"), alpha.shape, minval=jnp.finfo(jnp.float32).tiny)
    cosine = jnp.cos(2 * jnp.pi * jax.random.uniform(fold(key, "angle"), alpha.shape))
    squared = jnp.expm1(-jnp.log(uniform) / alpha) * jnp.square(cosine)
    return 0.5 + 0.5 * jnp.sign(cosine) * jax.lax.rsqrt(1 + 1 / squared)


def box_of_area(key: jax.Array, area: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Return boxes `(g, 4)` of the image's proportions around a random pixel each, clipped at the border.

    Args:
      key: places the boxes.
      area: `(g,)` float32, share of the image aimed at.
      size: height and width of the image.
    """
    place = jax.random.uniform(key, (len(area), 2))
    return boxes_around(_integer(place, np.asarray(size)), area, size)


def boxes_around(centre: jax.Array, area: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Return boxes `(g, 4)` of the image's proportions around pixels `(g, 2)`, clipped at the border."""
    edges = []
    for axis, pixels in enumerate(size):
        side = jnp.floor(pixels * jnp.sqrt(area)).astype(jnp.int32)
        ends = centre[:, axis] - side // 2, centre[:, axis] + (side + 1) // 2
        edges += [jnp.clip(end, 0, pixels) for end in ends]
    return jnp.stack(edges, axis=1)


def box_of_sides(key: jax.Array, minmax: tuple[float, float], size: tuple[int, int], count: int) -> jax.Array:
    """Return boxes `(count, 4)` inside the image with sides uniform between two shares of the image's."""
    draws = jax.random.uniform(key, (count, 4))
    edges = []
    for axis, pixels in enumerate(size):
        low, high = (int(pixels * share) for share in minmax)
        side = low + _integer(draws[:, axis], max(high - low, 1))
        start = _integer(draws[:, 2 + axis], pixels - side + 1)
        edges += [start, start + side]
    return jnp.stack(edges, axis=1)


def _integer(uniform: jax.Array, count: int | np.ndarray | jax.Array) -> jax.Array:
    """Return integers below `count` of numbers uniform in [0, 1)."""
    return jnp.floor(uniform * jnp.asarray(count, jnp.float32)).astype(jnp.int32)
