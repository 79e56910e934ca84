"""The encoder in what an objective learns, and its features."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from vit_jax.errors import ConfigError, nearest
from vit_jax.models.families import family_of
from vit_jax.models.functional import ModelFunctions
from vit_jax.models.registry import model_functions
from vit_jax.objectives.images import inputs


def part_of(tree: Any, path: str) -> Any:
    """Return the subtree at a path like `encoder`; all of it for an empty one, nothing where it is not there."""
    for name in filter(None, path.split("/")):
        tree = tree.get(name, {})
    return tree


def encoder_paths(objective: Any, name: str | None = None) -> tuple[str, str]:
    """Return where in `{"params": ..., "buffers": ...}` an encoder's parameters lie, and where its state does.

    Args:
      objective: whose.
      name: one of its `encoders`; None for the one whose features count.

    Raises:
      ConfigError: it has no such encoder.
    """
    places = objective.encoders
    if name is not None and name not in places:
        kind = type(objective).__name__
        known = f"it has {', '.join(places)}." if places else "it has one network; leave the name out."
        raise ConfigError(f"{kind} has no weights {name!r}; {known}{nearest(name, places)}")
    path = places[name or next(iter(places))] if places else f"params/{objective.encoder}".rstrip("/")
    return path, "/".join(["buffers", *path.split("/")[1:]])


def encoder_state(objective: Any, params: Any, buffers: Any, name: str | None = None) -> tuple[Any, Any]:
    """Return parameters and state of an encoder among those of an objective, see `encoder_paths`."""
    whole = {"params": params, "buffers": buffers}
    own, state = encoder_paths(objective, name)
    return part_of(whole, own), part_of(whole, state)


def pooled_features(model: Any, params: Any, buffers: Any, batch: Mapping[str, Any]) -> jax.Array:
    """Return one row of features for each image, float32 `(b, d)`: what goes into the head.

    It is what the model pools; a plain Vision Transformer that does not pool gives its class token, or the mean of its
    patches where it has none. Other families say it by `Family.headless`.

    Args:
      model: the encoder's configuration.
      params: its parameters, with or without those of the head; they may hold its state, as those of files do.
      buffers: its state, `{}` for a family without; what an objective keeps beside it is left out.
      batch: its raw images, see `objectives.images`.
    """
    functions = model_functions(family_of(model).headless(model))
    features, _ = functions.apply_state(*own_state(functions, params, buffers), inputs(batch, model))
    return features.astype(jnp.float32)


def own_state(functions: ModelFunctions, *trees: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return of parameters and of buffers what is a model's; it may be in either."""
    known = {*functions.abstract, *functions.abstract_buffers}
    return [{name: part for name, part in tree.items() if name in known} for tree in trees]
