"""Fixed position embeddings."""

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax.errors import ConfigError, choose
from vit_jax.models.layers.positions.resample import is_static


def sincos2d(grid: tuple[int, int], width: int, kind: str) -> jax.Array:
    """Return sines and cosines of each patch's column and row.

    A patch at column x and row y gets `[sin(x f), cos(x f), sin(y f), cos(y f)]`, where f are `width / 4`
    frequencies. Two tables are in use, alike but for the frequencies; weights of one do not fit the other:

      `mae`   f_k = 10000 ** -(k / (width/4)): the last frequency stays above 1/10000
              (He et al. 2021, arXiv 2111.06377; also DiT, Peebles and Xie 2022, arXiv 2212.09748)
      `big_vision`  f_k = 10000 ** -(k / (width/4 - 1)): the last frequency is 1/10000
              (its reading of MoCo v3, Chen et al. 2021, arXiv 2104.02057; Beyer et al. 2022,
              arXiv 2205.01580)

    Args:
      grid: rows and columns of patches.
      width: size `d` of the embedding; a multiple of 4.
      kind: `mae` or `big_vision`.

    Returns:
      float32 (n d), patches in row-major order. A class token has no row here; MAE gives it zeros.

    Raises:
      ConfigError: unknown kind, or a width that is not a multiple of 4.
    """
    frequencies = _frequencies(width, kind)
    # On the host in float64; of symbolic sizes, which an exported program has, when it runs, in float32.
    numbers, floats = (np, np.float64) if all(map(is_static, grid)) else (jnp, jnp.float32)
    places = numbers.meshgrid(*(numbers.arange(size, dtype=floats) for size in grid), indexing="ij")
    rows, columns = (place.reshape(-1, 1) for place in places)
    frequencies = numbers.asarray(frequencies, floats)
    waves = [wave(place * frequencies) for place in (columns, rows) for wave in (numbers.sin, numbers.cos)]
    return jnp.asarray(numbers.concatenate(waves, axis=1), jnp.float32)


def sincos2d_at(rows: jax.Array, columns: jax.Array, width: int, kind: str) -> jax.Array:
    """Return the same for patches at given rows and columns, `(b, n)` integers each: float32 `(b, n, d)`."""
    frequencies = jnp.asarray(_frequencies(width, kind), jnp.float32)
    places = (place.astype(jnp.float32)[..., None] * frequencies for place in (columns, rows))
    return jnp.concatenate([wave(place) for place in places for wave in (jnp.sin, jnp.cos)], axis=-1)


def _frequencies(width: int, kind: str) -> np.ndarray:
    choose(kind, ("mae", "big_vision"), "sincos2d kind")
    if width % 4:
        raise ConfigError(f"width is {width}; sincos2d needs a multiple of 4.")
    return 10000.0 ** -np.linspace(0, 1, width // 4, endpoint=kind == "big_vision")
