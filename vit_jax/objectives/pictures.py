"""Small pictures made of model values, for illustrations. Host side: NumPy and Pillow."""

import numpy as np
from PIL import Image

from vit_jax.models.family import Explanation

DISPLAY = 112  # pixels: the longer side of a picture that people look at is at least this


def to_uint8(image: np.ndarray) -> np.ndarray:
    """Return pixels rounded and clipped to what an image file holds."""
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def enlarge(image: np.ndarray, side: int = DISPLAY) -> np.ndarray:
    """Return a small image `(h, w, c)` with every pixel a block, its longer side at least `side`."""
    factor = -(-side // max(image.shape[:2]))
    return image.repeat(factor, axis=0).repeat(factor, axis=1)


def attention_overlay(
    image: np.ndarray,
    weights: np.ndarray,
    explanation: Explanation,
    grid: tuple[int, int] | None = None,
) -> np.ndarray:
    """Return an image, enlarged if small, with the attention of one block laid over it in red.

    Args:
      image: `(h, w, c)`, values from 0 to 255.
      weights: attention weights `(heads, n, n)`, rows summing to 1; heads are averaged.
      explanation: of the model's family: which row is shown, and what its columns are.
      grid: rows and columns of patches of an image that keeps its shape, behind which all is padding; None for those
        of the model.

    Returns:
      `(h, w, 3)` uint8, of the size that `enlarge` makes.
    """
    level = explanation.level
    if grid is not None:
        seen = level.prefix + grid[0] * grid[1]
        weights = weights[:, :seen, :seen]
    mean = weights.astype(np.float32).mean(axis=0)
    row = mean.mean(axis=0) if explanation.query is None else mean[explanation.query]
    heat = row[level.prefix :].reshape(grid or level.grid)
    low, high = heat.min(), heat.max()
    heat = (heat - low) / (high - low) if high > low else np.zeros_like(heat)
    grey = enlarge(image.astype(np.float32).mean(axis=-1, keepdims=True))
    # Between the centres of patches the heat is interpolated: edges of patches mean nothing.
    size = (grey.shape[1], grey.shape[0])
    heat = np.asarray(Image.fromarray(heat).resize(size, Image.Resampling.BILINEAR))[..., None]
    red = np.asarray([255, 64, 32], np.float32)
    return to_uint8(grey * (1 - 0.6 * heat) + red * 0.6 * heat)
