"""Objectives by name: beside the options of each is an `objective.py` that defines `build`."""

import importlib
from collections.abc import Callable
from typing import Any

from vit_jax.errors import ConfigError
from vit_jax.models.draws import choices
from vit_jax.models.families import family_of
from vit_jax.objectives.base import DataInfo, Objective


def build_objective(
    options: Any, model: Any, data: DataInfo, build: Callable[..., Objective] | None = None
) -> Objective:
    """Return the objective that `options` belong to.

    Args:
      options: what `objectives.options.parse_options` returned.
      model: configuration of the model.
      data: what is known about the training set.
      build: is called with model, options and data instead of the `build` beside the options.

    Raises:
      ConfigError: model, options and data do not go together, or `build` makes something else.
    """
    if build is None:
        folder = type(options).__module__.rpartition(".")[0]
        built = importlib.import_module(f"{folder}.objective").build(model, options, data)
        return _checked(built, model)
    built = build(model, options, data)
    if not isinstance(built, Objective):
        raise ConfigError(
            f"objective makes a {type(built).__name__}; it must be a subclass of "
            "vit_jax.objectives.base.Objective, or a function that returns an instance of one."
        )
    return _checked(built, model)


def _checked(objective: Objective, model: Any) -> Objective:
    """Return the objective if it trains what is drawn in each step, or nothing is."""
    if choices(model) and choices(objective.network) != choices(model):
        field = family_of(model).drawn
        raise ConfigError(
            f"model.{field} are {choices(model)}, but {type(objective).__name__} trains the model within another that "
            "is made for one of them; leave them out."
        )
    return objective
