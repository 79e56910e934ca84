"""Fixed position embeddings."""

import numpy as np

from vit_jax.errors import ConfigError, choose


def sincos2d(grid: tuple[int, int], width: int, kind: str) -> np.ndarray:
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
    choose(kind, ("mae", "big_vision"), "sincos2d kind")
    if width % 4:
        raise ConfigError(f"width is {width}; sincos2d needs a multiple of 4.")
    frequencies = 10000.0 ** -np.linspace(0, 1, width // 4, endpoint=kind == "big_vision")
    rows, columns = np.indices(grid).reshape(2, -1, 1)
    waves = [wave(place * frequencies) for place in (columns, rows) for wave in (np.sin, np.cos)]
    return np.concatenate(waves, axis=1).astype(np.float32)
