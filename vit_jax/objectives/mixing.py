"""Mixup and cutmix, inside the jitted step and over the whole global batch.

Every image is mixed with the one before it in the batch (`roll` by one), with one strength per batch, so
the result does not depend on the number of devices.
"""

import jax
import jax.numpy as jnp

from vit_jax.random import fold


def mixup(images: jax.Array, targets: jax.Array, strength: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return convex combinations of images and of targets (Zhang et al. 2017, arXiv 1710.09412).

    Args:
      images: `(b, h, w, c)` float.
      targets: `(b, c)` float.
      strength: weight of the image's own content, a float32 scalar in [0, 1].
    """
    own = strength.astype(images.dtype)
    mixed = own * images + (1 - own) * jnp.roll(images, 1, axis=0)
    return mixed, strength * targets + (1 - strength) * jnp.roll(targets, 1, axis=0)


def cutmix(
    images: jax.Array, targets: jax.Array, strength: jax.Array, key: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return images with a box from another image, targets in proportion (Yun et al. 2019, arXiv 1905.04899).

    Args:
      images: `(b, h, w, c)` float.
      targets: `(b, c)` float.
      strength: share of the image's own content aimed at; the target uses the share that the box, clipped
        at the border, really left.
      key: places the box.
    """
    height, width = images.shape[1:3]
    side = jnp.sqrt(1 - strength)
    centre = jax.random.uniform(key, (2,), jnp.float32)
    rows = _inside(height, centre[0], side)
    columns = _inside(width, centre[1], side)
    box = rows[:, None] & columns[None, :]
    own = 1 - jnp.mean(box.astype(jnp.float32))
    mixed = jnp.where(box[None, :, :, None], jnp.roll(images, 1, axis=0), images)
    return mixed, own * targets + (1 - own) * jnp.roll(targets, 1, axis=0)


def _inside(size: int, centre: jax.Array, side: jax.Array) -> jax.Array:
    middle = jnp.floor(centre * size)
    half = jnp.floor(size * side) / 2
    index = jnp.arange(size, dtype=jnp.float32)
    return (index >= jnp.floor(middle - half)) & (index < jnp.floor(middle + half))


def mix(
    images: jax.Array,
    targets: jax.Array,
    key: jax.Array,
    *,
    mixup_alpha: float,
    cutmix_alpha: float,
    probability: float = 1.0,
    cutmix_probability: float = 0.5,
) -> tuple[jax.Array, jax.Array]:
    """Return the batch mixed by mixup, by cutmix, or not at all, as drawn from `key` once per batch.

    Args:
      images: `(b, h, w, c)` float.
      targets: `(b, c)` float.
      key: a typed key.
      mixup_alpha, cutmix_alpha: parameters of the Beta distribution of the strength; 0 is off.
      probability: of mixing at all.
      cutmix_probability: of cutmix, when both are on.
    """
    if not mixup_alpha and not cutmix_alpha:
        return images, targets
    both = bool(mixup_alpha and cutmix_alpha)
    use_cutmix = jax.random.bernoulli(fold(key, "kind"), cutmix_probability)
    # Drawn once for whichever is used: compiling the Beta distribution takes seconds.
    alpha = jnp.where(use_cutmix, cutmix_alpha, mixup_alpha) if both else mixup_alpha or cutmix_alpha
    strength = jax.random.beta(fold(key, "strength"), alpha, alpha, dtype=jnp.float32)

    def with_mixup() -> tuple[jax.Array, jax.Array]:
        return mixup(images, targets, strength)

    def with_cutmix() -> tuple[jax.Array, jax.Array]:
        return cutmix(images, targets, strength, fold(key, "box"))

    if both:
        mixed = jax.lax.cond(use_cutmix, with_cutmix, with_mixup)
    else:
        mixed = with_mixup() if mixup_alpha else with_cutmix()
    chosen = jax.random.bernoulli(fold(key, "mix"), probability)
    return jnp.where(chosen, mixed[0], images), jnp.where(chosen, mixed[1], targets)
