"""Rotary position embeddings of patches (Su et al. 2021, arXiv 2104.09864), along rows and columns.

Two kinds are in use; weights of one do not fit the other:

  `eva`     a patch at row y turns pair i of the channels `(2i, 2i+1)` by `y theta^(-i / (k/4))`, the second half of
            the pairs by its column. Trained on `rope_grid`, other grids are spread over the same range (Fang et al.
            2023, arXiv 2303.11331).
  `dinov3`  places lie in [-1, 1] whatever the grid, angles are `2 pi y theta^(-i / (k/4))`, and pair i is
            `(i, i + k/2)` (Simeoni et al. 2025, arXiv 2508.10104).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax.models.layers.positions.resample import is_static
from vit_jax.models.patches import Patches
from vit_jax.models.vit.config import ViTConfig


class Rotation(NamedTuple):
    """What rotary positions do to the last tokens of a sequence.

    Attributes:
      sin, cos: `(n, k)` of each patch token and channel; `(b, n, k)` where images have places of their own.
      interleaved: whether a pair is `(2i, 2i+1)` or `(i, i + k/2)`.
    """

    sin: jax.Array
    cos: jax.Array
    interleaved: bool


def rotation(config: ViTConfig, grid: tuple[int, int]) -> Rotation | None:
    """Return the rotations of a patch grid, or None for a model without them."""
    if config.rope == "none":
        return None
    # On the host in float64; of symbolic sizes, which an exported program has, when it runs, in float32.
    numbers, floats, sizes = np, np.float64, list(grid)
    if not all(map(is_static, grid)):
        numbers, floats, sizes = jnp, jnp.float32, [jnp.asarray(size, jnp.float32) for size in grid]
    places: list[Any] = [numbers.arange(size, dtype=floats) for size in grid]
    places = _spread(config, places, sizes)
    rows, columns = (place.ravel() for place in numbers.meshgrid(*places, indexing="ij"))
    return _rotation(config, (rows, columns), numbers, floats)


def sequence_rotation(config: ViTConfig, patches: Patches) -> Rotation | None:
    """Return the rotations of a batch of images with shapes of their own, or None for a model without them."""
    if config.rope == "none":
        return None
    floats = jnp.float32
    places, sizes = ([x.astype(floats) for x in pair] for pair in (patches.places, patches.grids))
    rows, columns = _spread(config, places, sizes)
    return _rotation(config, (rows, columns), jnp, floats)


def _spread(config: ViTConfig, places: list[Any], sizes: list[Any]) -> list[Any]:
    """Return rows and columns over the range that a model was made for."""
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


def rotate(x: jax.Array, turn: Rotation) -> jax.Array:
    """Return queries or keys `(b, m, h, k)` with their last `n` tokens rotated, in the dtype of `x`."""
    n, k = turn.sin.shape[-2:]
    first, patches = x[:, :-n], x[:, -n:].astype(jnp.float32)
    if turn.interleaved:
        pairs = patches.reshape(*patches.shape[:-1], k // 2, 2)
        turned = jnp.stack([-pairs[..., 1], pairs[..., 0]], axis=-1).reshape(patches.shape)
    else:
        turned = jnp.concatenate([-patches[..., k // 2 :], patches[..., : k // 2]], axis=-1)
    patches = patches * turn.cos[..., None, :] + turned * turn.sin[..., None, :]
    return jnp.concatenate([first, patches.astype(x.dtype)], axis=1)
