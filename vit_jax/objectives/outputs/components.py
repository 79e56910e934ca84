"""Principal components of the features of patches as colours: what belongs together in several images looks alike.

As DINOv2 shows them (Oquab et al. 2023, arXiv 2304.07193, figure 1): the first component over the patches of all images
tells foreground from background, the first three over those of the foreground are red, green and blue.
"""

from typing import Any

import numpy as np

from vit_jax.errors import ConfigError


def colours(maps: np.ndarray, foreground: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Return maps of features as colours, and which places are foreground.

    A component's sign says nothing. Of the two sides of the first, that one is taken to be foreground which has the
    smaller share of the places along the borders of the images; the others are turned so that their largest value is
    positive, so that the same features always have the same colours.

    Args:
      maps: `(n, h, w, c)`, of all images together.
      foreground: whether the background is left out, and is black; else all places have colours.

    Returns:
      uint8 `(n, h, w, 3)` and bool `(n, h, w)`.

    Raises:
      ConfigError: there are too few places, or all are alike.
    """
    n, h, w, c = maps.shape
    rows = maps.reshape(-1, c).astype(np.float64)
    if len(rows) < 4 or c < 3:
        raise ConfigError(
            f"{n} maps of {h}x{w} places and {c} channels have no three principal components; give more images, or "
            "another level."
        )
    chosen = np.ones(len(rows), bool)
    if foreground:
        first = _components(rows, 1)[:, 0]
        border = np.zeros((n, h, w), bool)
        border[:, [0, -1]] = border[:, :, [0, -1]] = True
        above = first > 0
        chosen = above if _share(border, above) <= _share(border, ~above) else ~above
    if chosen.sum() < 4:
        chosen = np.ones(len(rows), bool)
    values = _components(rows[chosen], 3)
    low, high = values.min(0), values.max(0)
    shown = np.zeros((len(rows), 3), np.uint8)
    shown[chosen] = np.rint(255 * (values - low) / np.maximum(high - low, 1e-12)).astype(np.uint8)
    return shown.reshape(n, h, w, 3), chosen.reshape(n, h, w)


def _share(border: np.ndarray, side: np.ndarray) -> float:
    """Return which share of a side's places lies on a border."""
    return float(border.reshape(-1)[side].mean()) if side.any() else 1.0


def _components(rows: np.ndarray, count: int) -> np.ndarray:
    """Return the first principal components of rows `(m, c)`, `(m, count)`, each with its largest value positive."""
    centred = rows - rows.mean(0)
    axes = np.linalg.eigh(centred.T @ centred)[1][:, ::-1][:, :count]
    values = centred @ axes
    if not np.ptp(values[:, 0]) > 1e-9 * max(1.0, float(np.abs(rows).max())):
        raise ConfigError("the features of all places are alike; there is nothing that colours could tell.")
    largest = np.take_along_axis(values, np.abs(values).argmax(0)[None], axis=0)
    return values * np.sign(np.where(largest == 0, 1, largest))


def enlarged(picture: np.ndarray, size: tuple[int, ...]) -> Any:
    """Return a picture with its places as blocks, about as large as an image."""
    times = [max(1, round(side / have)) for side, have in zip(size, picture.shape)]
    return picture.repeat(times[0], axis=0).repeat(times[1], axis=1)
