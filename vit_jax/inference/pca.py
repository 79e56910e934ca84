"""A sheet of images beside the principal components of the features of their patches."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vit_jax.evaluation.figure import draw
from vit_jax.objectives.outputs.components import colours, enlarged
from vit_jax.objectives.protocol import Example, Illustration

LIMIT = 64  # pictures on a sheet


def draw_components(
    images: np.ndarray, maps: np.ndarray, files: Sequence[str], level: str, path: str | Path
) -> Path:
    """Write a sheet of images beside the principal components of their features, and return its path.

    Args:
      images: uint8 `(n, h, w, c)`, as the model sees them.
      maps: features of them, `(n, h, w, c)`.
      files: where each comes from.
      level: the name of the map.
      path: where to.
    """
    shown, kept = colours(maps)
    examples = []
    for image, picture, foreground, file in zip(images, shown, kept, files):
        large = enlarged(picture, image.shape[:2])
        examples.append(Example(f"{foreground.mean():.0%} foreground", [image, large], file))
    title = f"Principal components of {level}, of {len(examples)} images together"
    return draw(Illustration(title, ("image", "first three components"), examples), path)
