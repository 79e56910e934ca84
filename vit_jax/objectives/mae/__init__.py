"""Masked autoencoding (He et al. 2021, arXiv 2111.06377)."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vit_jax.objectives.mae.objective import Mae, build

__all__ = ["Mae", "build"]


def __getattr__(name: str) -> Any:  # the options beside it are read without jax
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.objective"), name)
