"""Images as sequences of patches, and back."""

import jax
import jax.numpy as jnp


def patchify(images: jax.Array, patch_size: tuple[int, int]) -> jax.Array:
    """Cut images into patches, row by row; inside a patch the order is row, column, channel.

    Args:
      images: `(b, h, w, c)`.
      patch_size: height `p` and width `q` of a patch, dividing `h` and `w`.

    Returns:
      `(b, n, p*q*c)`.
    """
    b, h, w, c = images.shape
    p, q = patch_size
    grid = images.reshape(b, h // p, p, w // q, q, c).transpose(0, 1, 3, 2, 4, 5)
    return grid.reshape(b, (h // p) * (w // q), p * q * c)


def unpatchify(patches: jax.Array, patch_size: tuple[int, int], grid: tuple[int, int]) -> jax.Array:
    """Put patches `(b, n, p*q*c)` back together to images `(b, h, w, c)`; the inverse of `patchify`."""
    (p, q), (rows, columns) = patch_size, grid
    b, _, size = patches.shape
    images = patches.reshape(b, rows, columns, p, q, size // (p * q)).transpose(0, 1, 3, 2, 4, 5)
    return images.reshape(b, rows * p, columns * q, size // (p * q))


def pad_images(images: jax.Array, stride: tuple[int, int]) -> jax.Array:
    """Return images `(b, h, w, c)` with zeros at the bottom and on the right, up to multiples of `stride`."""
    bottom, right = (-size % step for size, step in zip(images.shape[1:3], stride))
    return jnp.pad(images, ((0, 0), (0, bottom), (0, right), (0, 0))) if bottom or right else images
