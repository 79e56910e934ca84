"""Supervised classification of images, one label each."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vit_jax.objectives.classification.objective import Classification, build

__all__ = ["Classification", "build"]


def __getattr__(name: str) -> Any:  # the options beside it are read without jax
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.objective"), name)
