"""Random erasing of normalised images, inside the jitted step (Zhong et al. 2017, arXiv 1708.04896)."""

import math

import jax
import jax.numpy as jnp

from vit_jax.random import fold

# Boxes that do not fit into the image are drawn again this often.
_ATTEMPTS = 10


def erase(
    images: jax.Array,
    key: jax.Array,
    *,
    probability: float,
    mode: str = "pixel",
    area: tuple[float, float] = (0.02, 1 / 3),
    aspect: float = 0.3,
    count: tuple[int, int] = (1, 1),
) -> jax.Array:
    """Return images some of which have boxes filled with noise or zeros, as timm's `RandomErasing`.

    Each image has its own draws. Pixels outside the boxes stay bitwise the same.

    Args:
      images: `(b, h, w, c)` float32 of mean 0 and deviation 1.
      key: a typed key.
      probability: of erasing anything in an image; 0 is off.
      mode: what boxes are filled with: `const` (zeros), `rand` (one normal draw for each box and channel) or `pixel`
        (one for each pixel and channel).
      area: smallest and largest area of all boxes of an image together, as shares of the image; uniform.
      aspect: smallest height over width; the largest is its inverse, and the logarithm is uniform.
      count: smallest and largest number of boxes in an image; uniform.
    """
    if not probability:
        return images
    size, (height, width, channels) = len(images), images.shape[1:]
    chosen = jax.random.bernoulli(fold(key, "chosen"), probability, (size,))
    number = jax.random.randint(fold(key, "count"), (size,), count[0], count[1] + 1)
    boxes = draw_boxes(fold(key, "box"), number, (height, width), area=area, aspect=aspect, most=count[1])
    row, column = jnp.arange(height), jnp.arange(width)
    if mode == "const":
        fill = jnp.zeros((1, 1, 1, 1, 1), images.dtype)
    else:
        # One field of noise serves all boxes of an image: where they overlap, only one is seen.
        shape = (1, height, width, channels) if mode == "pixel" else (count[1], 1, 1, channels)
        fill = jax.random.normal(fold(key, "fill"), (size, *shape), images.dtype)
    for i in range(count[1]):
        top, bottom, left, right = (edge[:, None] for edge in boxes[:, i].T)
        rows, columns = (row >= top) & (row < bottom), (column >= left) & (column < right)
        inside = (rows[:, :, None] & columns[:, None, :])[..., None] & chosen[:, None, None, None]
        images = jnp.where(inside, fill[:, i % fill.shape[1]], images)
    return images


def draw_boxes(
    key: jax.Array,
    number: jax.Array,
    size: tuple[int, int],
    *,
    area: tuple[float, float],
    aspect: float,
    most: int,
) -> jax.Array:
    """Return boxes `(b, most, 4)` int32, top, bottom, left and right; those that an image does not have are empty.

    A box that is as high or as wide as the image is drawn again, up to ten times in all, and then left out.

    Args:
      key: a typed key.
      number: `(b,)` int32, how many boxes each image has.
      size: height and width of the image.
      area, aspect: as in `erase`.
      most: the largest `number`.
    """
    height, width = size
    attempts = (len(number), most, _ATTEMPTS)
    share = jax.random.uniform(fold(key, "area"), attempts, minval=area[0], maxval=area[1])
    limit = -math.log(aspect)
    ratio = jnp.exp(jax.random.uniform(fold(key, "aspect"), attempts, minval=-limit, maxval=limit))
    pixels = share * (height * width) / number[:, None, None].astype(jnp.float32)
    h, w = (jnp.round(jnp.sqrt(side)).astype(jnp.int32) for side in (pixels * ratio, pixels / ratio))
    fits = (h < height) & (w < width)
    first = jnp.argmax(fits, axis=-1, keepdims=True)
    h, w = (jnp.take_along_axis(side, first, axis=-1)[..., 0] for side in (h, w))
    present = fits.any(axis=-1) & (jnp.arange(most) < number[:, None])
    h, w = (jnp.where(present, side, 0) for side in (h, w))
    place = jax.random.uniform(fold(key, "place"), (*h.shape, 2))
    free = jnp.stack([height - h + 1, width - w + 1], axis=-1).astype(jnp.float32)
    top, left = jnp.unstack(jnp.floor(place * free).astype(jnp.int32), axis=-1)
    return jnp.stack([top, top + h, left, left + w], axis=-1)
