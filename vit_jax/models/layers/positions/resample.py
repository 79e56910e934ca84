"""Resampling of grids to another size as two small matrix products, one per axis.

The weights are computed on the host in float64 from static sizes, so the same few lines reproduce what each
source of a model does: torch's `interpolate` in all its modes (which `jax.image.resize` does not, for bicubic
without antialiasing) and scipy's `zoom`.
"""

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax.errors import ConfigError, choose
from vit_jax.models.layers.encoder_config import RESAMPLE

A = TypeVar("A", np.ndarray, jax.Array)


def resize_matrix(
    n_in: int, n_out: int, method: str, antialias: bool = False, scale: float | None = None
) -> np.ndarray:
    """Return the weights that take `n_in` samples to `n_out`.

    `nearest`, `bilinear` and `bicubic` are those of `torch.nn.functional.interpolate` with
    `align_corners=False`; `zoom` is `scipy.ndimage.zoom(order=1)`, linear between aligned corners, as
    vision_transformer and big_vision resize positions.

    Args:
      n_in, n_out: number of samples before and after.
      method: `nearest`, `bilinear`, `bicubic` or `zoom`.
      antialias: widen the kernel when shrinking, as Pillow does; says nothing to `nearest` and `zoom`.
      scale: input samples per output sample; None means `n_in / n_out`. Says nothing to `zoom`.

    Returns:
      float64 (n_out, n_in); every row sums to 1.

    Raises:
      ConfigError: unknown method.

    Source: Keys 1981 for the cubic kernel (IEEE Trans. ASSP 29(6)). Its parameter is -0.75 in torch, but -0.5
    with antialiasing, as in Pillow.
    """
    choose(method, RESAMPLE, "resample")
    scale = n_in / n_out if scale is None else scale
    out = np.arange(n_out)
    if method == "nearest":
        # float32 as in torch: where the product should be whole, its rounding decides which sample is taken.
        taps = np.floor(out.astype(np.float32) * np.float32(scale))[:, None]
        return _gather(taps, np.ones_like(taps), n_in)
    if method == "zoom":
        # scipy itself returns 0 for the last sample where its rounding steps past the corner (8 -> 26).
        centers = out * ((n_in - 1) / max(n_out - 1, 1))
    else:
        centers = (out + 0.5) * scale - 0.5
        if antialias:
            distance = (np.arange(n_in) - centers[:, None]) / max(scale, 1.0)
            weights = _cubic(distance, -0.5) if method == "bicubic" else _triangle(distance)
            return weights / weights.sum(axis=1, keepdims=True)
    reach = 2 if method == "bicubic" else 1
    taps = np.floor(centers)[:, None] + np.arange(1 - reach, 1 + reach)
    distance = taps - centers[:, None]
    return _gather(taps, _cubic(distance, -0.75) if method == "bicubic" else _triangle(distance), n_in)


def resample_grid(
    grid: jax.Array, size: tuple[int, int], method: str, antialias: bool = False, offset: float = 0.0
) -> jax.Array:
    """Return a grid of vectors at another size; at its own size, as it is.

    Args:
      grid: (h w d).
      size: rows and columns of the result; symbols in a program that is exported for any size.
      method, antialias: see `resize_matrix`.
      offset: added to the new size where the scale is computed. DINO and the first DINOv2 use 0.1 (Caron et
        al. 2021, arXiv 2104.14294), which shifts the samples slightly.

    Returns:
      (h2 w2 d), same dtype.
    """
    if grid.shape[:2] == tuple(size):
        return grid  # Also with an offset: so do torch and DINO.
    if all(map(is_static, size)):
        vertical, horizontal = (
            jnp.asarray(resize_matrix(n_in, n_out, method, antialias, n_in / (n_out + offset)), grid.dtype)
            for n_in, n_out in zip(grid.shape[:2], size)
        )
    else:
        sizes = [jnp.asarray(n, jnp.int32) for n in size]
        own = (sizes[0] == grid.shape[0]) & (sizes[1] == grid.shape[1])
        vertical, horizontal = (
            runtime_weights(jnp.arange(n), value, n_in, method, antialias, jnp.where(own, 0.0, offset))
            for n, value, n_in in zip(size, sizes, grid.shape[:2])
        )
    return jnp.einsum("Hh,hwd,Ww->HWd", vertical, grid, horizontal, precision=jax.lax.Precision.HIGHEST)


def is_static(size: Any) -> bool:
    """Return whether a size is a number, not a symbol that stands for one in an exported program."""
    return isinstance(size, int | np.integer)


def resample_positions(
    table: jax.Array,
    from_grid: tuple[int, int],
    to_grid: tuple[int, int],
    method: str,
    antialias: bool = False,
    prefix: int = 0,
    offset: float = 0.0,
) -> jax.Array:
    """Return a table of positions for another grid of patches.

    Args:
      table: (n d), `prefix` rows that stay as they are (class token), then the patches in row-major order.
      from_grid: rows and columns of patches before.
      to_grid: and after, see `resample_grid`.
      method, antialias: see `resize_matrix`.
      prefix: number of leading rows without a place in the grid.
      offset: see `resample_grid`.

    Returns:
      (prefix + h2 w2, d), same dtype.

    Raises:
      ConfigError: the table does not have `prefix` rows plus one per patch of `from_grid`.
    """
    (h, w), (n, d) = from_grid, table.shape
    if n != prefix + h * w:
        raise ConfigError(
            f"the position table has {n} rows; a grid of {h}x{w} patches after {prefix} other tokens needs "
            f"{prefix + h * w}. Give the grid that the table was made for."
        )
    patches = resample_grid(table[prefix:].reshape(h, w, d), to_grid, method, antialias, offset)
    return jnp.concatenate([table[:prefix], patches.reshape(-1, d)])


def resample_patch_kernel(
    kernel: A,
    size: tuple[int, int],
    method: str = "flexi",
    inverse_of: str = "bicubic",
    antialias: bool = True,
) -> A:
    """Return the kernel of a patch embedding for patches of another size.

    `flexi` makes a patch's token what the resized patch's would have been, as far as that can be: the pseudo-inverse
    of resizing (FlexiViT, Beyer et al. 2022, arXiv 2212.08013). `bilinear` resizes the kernel as if it were an image,
    antialiased.

    Args:
      kernel: (p q c d) float32; computed in float64, but where it is traced.
      size: height and width of the new patches.
      method: `flexi` or `bilinear`.
      inverse_of, antialias: how the patches of `flexi` are resized, see `resize_matrix`.

    Raises:
      ConfigError: unknown method.
    """
    choose(method, ("flexi", "bilinear"), "patch resampling")
    how = (inverse_of, antialias) if method == "flexi" else ("bilinear", True)
    matrices = [resize_matrix(n_in, n_out, *how) for n_in, n_out in zip(kernel.shape[:2], size)]
    if method == "flexi":
        matrices = [np.linalg.pinv(matrix).T for matrix in matrices]
    if not isinstance(kernel, np.ndarray):
        rows, columns = (jnp.asarray(matrix, kernel.dtype) for matrix in matrices)
        return jnp.einsum("Pp,pqcd,Qq->PQcd", rows, kernel, columns, precision=jax.lax.Precision.HIGHEST)
    return np.einsum("Pp,pqcd,Qq->PQcd", matrices[0], kernel.astype(np.float64), matrices[1]).astype(
        kernel.dtype
    )


def runtime_weights(
    index: jax.Array,
    n_out: jax.Array,
    n_in: int,
    method: str,
    antialias: bool = True,
    offset: jax.Array | float = 0.0,
) -> jax.Array:
    """Return rows of `resize_matrix` for sizes that are known only at run time.

    Args:
      index: which output samples; any shape.
      n_out: number of output samples, in a shape that broadcasts to that of `index`.
      n_in: number of input samples.
      method, antialias: see `resize_matrix`.
      offset: see `resample_grid`.

    Returns:
      float32 `(*index.shape, n_in)`.
    """
    count = n_out.astype(jnp.float32)
    scale, place = n_in / (count + offset), index.astype(jnp.float32)
    if method == "nearest":
        return jax.nn.one_hot(jnp.clip(jnp.floor(place * scale), 0, n_in - 1).astype(jnp.int32), n_in)
    centers = (place + 0.5) * scale - 0.5
    if method == "zoom":
        centers = place * ((n_in - 1) / jnp.maximum(count - 1, 1))
    if antialias and method != "zoom":
        distance = (jnp.arange(n_in, dtype=jnp.float32) - centers[..., None]) / jnp.maximum(scale, 1.0)[
            ..., None
        ]
        weights = _cubic(distance, -0.5) if method == "bicubic" else _triangle(distance)
        return weights / weights.sum(axis=-1, keepdims=True)
    reach = 2 if method == "bicubic" else 1
    taps = jnp.floor(centers)[..., None] + jnp.arange(1 - reach, 1 + reach, dtype=jnp.float32)
    distance = taps - centers[..., None]
    weights = _cubic(distance, -0.75) if method == "bicubic" else _triangle(distance)
    chosen = jax.nn.one_hot(jnp.clip(taps, 0, n_in - 1).astype(jnp.int32), n_in)
    return jnp.einsum("...t,...ti->...i", weights, chosen, precision=jax.lax.Precision.HIGHEST)


def _gather(taps: np.ndarray, weights: np.ndarray, n_in: int) -> np.ndarray:
    """Return (n_out, n_in) from taps and weights (n_out, t); taps outside count for the edge sample."""
    matrix = np.zeros((len(taps), n_in))
    np.add.at(matrix, (np.arange(len(taps))[:, None], np.clip(taps, 0, n_in - 1).astype(int)), weights)
    return matrix


def _triangle(x: Any) -> Any:
    return (1 - abs(x)).clip(0)


def _cubic(x: Any, a: float) -> Any:
    x = abs(x)
    near = ((a + 2) * x - (a + 3)) * x**2 + 1
    far = a * (((x - 5) * x + 8) * x - 4)
    return near * (x <= 1).astype(x.dtype) + far * ((x > 1) & (x < 2)).astype(x.dtype)
