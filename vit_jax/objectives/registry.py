"""Objectives by name: `objectives/<name>.py` defines `build`, `objectives/options.py` its options."""

import importlib
from typing import Any

from vit_jax.models.vit_config import ViTConfig
from vit_jax.objectives.base import DataInfo, Objective
from vit_jax.objectives.options import OPTIONS


def build_objective(options: Any, model: ViTConfig, data: DataInfo) -> Objective:
    """Return the objective that `options` belong to.

    Args:
      options: one of the dataclasses of `objectives.options`.
      model: configuration of the model.
      data: what is known about the training set.

    Raises:
      ConfigError: model, options and data do not go together.
    """
    name = next(name for name, kind in OPTIONS.items() if type(options) is kind)
    return importlib.import_module(f"vit_jax.objectives.{name}").build(model, options, data)
