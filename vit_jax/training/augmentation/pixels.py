"""What `data.transforms.policies.photometric` does, for images that are on a device.

Functions of float32 images `(h, w, c)` with whole values from 0 to 255, which return such; numbers may be traced. They
round where the others do, so that both differ by one level at most, where a product lies next to a whole number.
"""

import math

import jax
import jax.numpy as jnp


def solarize(image: jax.Array, threshold: float = 128) -> jax.Array:
    """Return the image with values of at least `threshold` inverted."""
    return jnp.where(image >= threshold, 255 - image, image)


def brightness(image: jax.Array, factor: jax.typing.ArrayLike) -> jax.Array:
    """Return a mixture of black, `1 - factor`, and the image, `factor`."""
    return blend(jnp.zeros_like(image), image, factor)


def contrast(image: jax.Array, factor: jax.typing.ArrayLike) -> jax.Array:
    """Return a mixture of the image's mean luminance, `1 - factor`, and the image, `factor`."""
    mean = jnp.floor(luminance(image).mean() + 0.5)
    return blend(jnp.full_like(image, mean), image, factor)


def color(image: jax.Array, factor: jax.typing.ArrayLike) -> jax.Array:
    """Return a mixture of the grey image, `1 - factor`, and the image, `factor`: its saturation changed."""
    return blend(grayscale(image), image, factor)


def hue(image: jax.Array, shift: jax.typing.ArrayLike) -> jax.Array:
    """Return the image with hues turned by `shift` of the circle of colours, from -0.5 to 0.5.

    Hue, saturation and value have 8 bits each, as in OpenCV's conversion.
    """
    if image.shape[-1] == 1:
        return image
    red, green, blue = (image[..., c] for c in range(3))
    value, least = image.max(-1), image.min(-1)
    chroma = value - least
    part = jnp.where(
        value == red,
        green - blue,
        jnp.where(value == green, blue - red + 2 * chroma, red - green + 4 * chroma),
    )
    # OpenCV's integers, with 12 bits after the point.
    saturation = _scaled(chroma, 255 / jnp.maximum(value, 1))
    turn = _scaled(part, 256 / (6 * jnp.maximum(chroma, 1))) + jnp.trunc(jnp.asarray(shift) * 255)
    # Its circle has 256 hues on the way there, and 255 on the way back.
    sixths = jnp.mod(turn, 256) * (6 / 255)
    # Of red, green and blue how far each is from the hue, on a circle of six.
    channels = jnp.mod(jnp.asarray([5.0, 3.0, 1.0]) + sixths[..., None], 6)
    away = jnp.clip(jnp.minimum(channels, 4 - channels), 0, 1)
    return jnp.rint(value[..., None] * (1 - saturation[..., None] / 255 * away))


def _scaled(x: jax.Array, factor: jax.Array) -> jax.Array:
    fixed = jnp.rint(4096 * factor).astype(jnp.int32)
    return ((x.astype(jnp.int32) * fixed + 2048) >> 12).astype(jnp.float32)


def grayscale(image: jax.Array) -> jax.Array:
    """Return the image without colour, in as many channels."""
    return jnp.broadcast_to(luminance(image)[..., None], image.shape)


def luminance(image: jax.Array) -> jax.Array:
    """Return how bright pixels are (ITU-R 601), `(h, w)`."""
    if image.shape[-1] == 1:
        return image[..., 0]
    # Pillow's integers: sums of up to 2**24, which float32 holds exactly.
    red, green, blue = (image[..., c] for c in range(3))
    return jnp.floor((19595 * red + 38470 * green + 7471 * blue + 32768) / 65536)


def blend(first: jax.Array, second: jax.Array, factor: jax.typing.ArrayLike) -> jax.Array:
    """Return `first + factor * (second - first)` within 0 to 255, fractions cut off."""
    return jnp.floor(jnp.clip(first + factor * (second - first), 0, 255))


def gaussian_blur(image: jax.Array, radius: jax.typing.ArrayLike, most: float) -> jax.Array:
    """Return the image blurred with about a Gaussian, three averages one after the other.

    Args:
      image: `(h, w, c)`.
      radius: standard deviation in pixels, above 0.
      most: what `radius` is at most.
    """
    kernel = _blurring(radius, most)
    reach = len(kernel) // 2
    for axis in (0, 1):
        padding = [(reach, reach) if axis == own else (0, 0) for own in range(3)]
        padded, size = jnp.pad(image, padding, mode="edge"), image.shape[axis]
        shifted = (jax.lax.slice_in_dim(padded, at, at + size, axis=axis) for at in range(len(kernel)))
        image = sum((weight * part for weight, part in zip(kernel, shifted)), jnp.zeros_like(image))
    return jnp.clip(jnp.rint(image), 0, 255)


def _blurring(radius: jax.typing.ArrayLike, most: float) -> jax.Array:
    """Return the filter of `photometric.gaussian_blur`, zeros where one of radius `most` has more."""
    variance = jnp.square(jnp.asarray(radius, jnp.float32)) / 3
    whole = jnp.floor((jnp.sqrt(12 * variance + 1) - 1) / 2)
    share = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance)
    share /= 6 * (variance - jnp.square(whole + 1))
    reach = math.floor((math.sqrt(4 * most * most + 1) - 1) / 2) + 1
    away = jnp.abs(jnp.arange(-reach, reach + 1, dtype=jnp.float32))
    average = jnp.where(away <= whole, 1.0, jnp.where(away == whole + 1, share, 0.0))
    average /= average.sum()
    return jnp.convolve(jnp.convolve(average, average), average)
