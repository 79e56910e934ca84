"""Self-distillation: DINO (Caron et al. 2021, arXiv 2104.14294) and what DINOv2 and DINOv3 add to it."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vit_jax.objectives.dino.objective import Dino, build

__all__ = ["Dino", "build"]


def __getattr__(name: str) -> Any:  # the options beside it are read without jax
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.objective"), name)
