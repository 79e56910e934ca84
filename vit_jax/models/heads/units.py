"""A head whose outputs are scaled values, as one whose outputs are the values themselves."""

from collections.abc import Mapping
from typing import Any

import jax

from vit_jax.errors import ConfigError

SCALE = "scale"  # the buffers `mean` and `std` of a regression, by their name


def in_units(params: Mapping[str, Any], mean: jax.Array, std: jax.Array) -> dict[str, Any]:
    """Return parameters whose outputs are `std` times those of `params`, plus `mean`.

    Args:
      params: of a model with a linear head, `head/kernel` `(d, k)` and `head/bias` `(k,)`.
      mean, std: `(k,)` float32.

    Raises:
      ConfigError: the head has no bias, which would hold the mean.
    """
    head = params["head"]
    if "bias" not in head:
        raise ConfigError(
            "the model's head has no bias to hold the mean of its values, so they exist only in its workdir; "
            "train with model.head_bias=True, or with objective.scaling='none'."
        )
    return {**params, "head": {**head, "kernel": head["kernel"] * std, "bias": head["bias"] * std + mean}}
