"""Rotary position embeddings of patches (Su et al. 2021, arXiv 2104.09864), along rows and columns.

Three kinds are in use; weights of one do not fit the other:

  `eva`     a patch at row y turns pair i of the channels `(2i, 2i+1)` by `y theta^(-i / (k/4))`, the second half of
            the pairs by its column. Trained on `rope_grid`, other grids are spread over the same range (Fang et al.
            2023, arXiv 2303.11331).
  `dinov3`  places lie in [-1, 1] whatever the grid, angles are `2 pi y theta^(-i / (k/4))`, and pair i is
            `(i, i + k/2)` (Simeoni et al. 2025, arXiv 2508.10104).
  `mixed`   every block learns how much pair i turns along each axis: `layers.attentions.mixed` (Heo et al. 2024, arXiv
            2403.13298).

RoPE-ViT (Heo et al.) and the Perception Encoder (Bolya et al. 2025, arXiv 2504.13181) take columns before rows, and
the latter counts both from 1: `rope_first`, `rope_offset`.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax.models.layers.positions.resample import is_static
from vit_jax.models.layers.positions.rotary import Rotation
from vit_jax.models.patches import Patches
from vit_jax.models.vit.config import ViTConfig


def rotation(config: ViTConfig, grid: tuple[int, int]) -> Rotation | None:
    """Return the rotations of a patch grid, or None for a model without them, or whose blocks have their own."""
    if config.rope in ("none", "mixed"):
        return None
    first, second, numbers, floats = _of_grid(config, grid)
    return _rotation(config, (first, second), numbers, floats)


def places(config: ViTConfig, images: tuple[int, int] | Patches) -> jax.Array | None:
    """Return the coordinates `(2, n)` of a grid or `(2, b, n)` of patches, for blocks with their own frequencies."""
    if config.rope != "mixed":
        return None
    found = _of_patches(config, images) if isinstance(images, Patches) else _of_grid(config, images)[:2]
    return jnp.stack([jnp.asarray(place, jnp.float32) for place in found])


def _of_grid(config: ViTConfig, grid: tuple[int, int]) -> tuple[Any, Any, Any, Any]:
    """Return both coordinates `(n,)` of each patch, in the order of `rope_first`, and numpy or jax, and a dtype."""
    # On the host in float64; of symbolic sizes, which an exported program has, when it runs, in float32.
    numbers, floats, sizes = np, np.float64, list(grid)
    if not all(map(is_static, grid)):
        numbers, floats, sizes = jnp, jnp.float32, [jnp.asarray(size, jnp.float32) for size in grid]
    along: list[Any] = [numbers.arange(size, dtype=floats) for size in grid]
    along = _spread(config, along, sizes)
    rows, columns = (place.ravel() for place in numbers.meshgrid(*along, indexing="ij"))
    return *_ordered(config, rows, columns), numbers, floats


def sequence_rotation(config: ViTConfig, patches: Patches) -> Rotation | None:
    """Return the rotations of a batch of images with shapes of their own; None as `rotation`."""
    if config.rope in ("none", "mixed"):
        return None
    return _rotation(config, _of_patches(config, patches), jnp, jnp.float32)


def _of_patches(config: ViTConfig, patches: Patches) -> tuple[Any, Any]:
    along, sizes = ([x.astype(jnp.float32) for x in pair] for pair in (patches.places, patches.grids))
    return _ordered(config, *_spread(config, along, sizes))


def _ordered(config: ViTConfig, rows: Any, columns: Any) -> tuple[Any, Any]:
    return (rows, columns) if config.rope_first == "rows" else (columns, rows)


def _spread(config: ViTConfig, places: list[Any], sizes: list[Any]) -> list[Any]:
    """Return rows and columns over the range that a model was made for."""
    if config.rope == "mixed":
        return places
    if config.rope_offset:
        places = [place + config.rope_offset for place in places]
    if config.rope == "eva":
        spread = config.rope_grid or sizes
        return [place / size * full for place, size, full in zip(places, sizes, spread)]
    return [2 * np.pi * (2 * (place + 0.5) / size - 1) for place, size in zip(places, sizes)]


def _rotation(config: ViTConfig, places: tuple[Any, Any], numbers: Any, floats: Any) -> Rotation:
    bands = config.head_dim // 4
    frequencies = numbers.asarray(config.rope_theta ** -(np.arange(bands) / bands), floats)
    angles = numbers.concatenate([place[..., None] * frequencies for place in places], axis=-1)
    interleaved = config.rope == "eva"
    angles = (
        numbers.repeat(angles, 2, axis=-1) if interleaved else numbers.concatenate([angles, angles], axis=-1)
    )
    sin, cos = (jnp.asarray(wave(angles), jnp.float32) for wave in (numbers.sin, numbers.cos))
    return Rotation(sin, cos, interleaved)
