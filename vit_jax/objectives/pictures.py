"""Small pictures made of model values, for illustrations. Host side, NumPy only."""

import numpy as np

from vit_jax.models.vit_config import ViTConfig


def attention_overlay(image: np.ndarray, weights: np.ndarray, config: ViTConfig) -> np.ndarray:
    """Return an image with the attention of one block laid over it in red.

    Args:
      image: `(h, w, c)` uint8.
      weights: attention weights `(heads, n, n)`, rows summing to 1. The class token's row is shown, or the
        mean over all rows when there is no class token; heads are averaged.
      config: the model, for its patch grid.

    Returns:
      `(h, w, 3)` uint8.
    """
    prefix = config.prefix_tokens
    mean = weights.astype(np.float32).mean(axis=0)
    row = mean[0] if config.class_token else mean.mean(axis=0)
    heat = row[prefix:].reshape(config.grid)
    low, high = heat.min(), heat.max()
    heat = (heat - low) / (high - low) if high > low else np.zeros_like(heat)
    heat = np.kron(heat, np.ones(config.patch_size, np.float32))[..., None]
    grey = image.astype(np.float32).mean(axis=-1, keepdims=True)
    red = np.asarray([255, 64, 32], np.float32)
    return np.rint(grey * (1 - 0.6 * heat) + red * 0.6 * heat).astype(np.uint8)
