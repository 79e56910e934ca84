"""Joint embedding without prototypes: LeJEPA, VISReg, VICReg, Barlow Twins, SimCLR, SimSiam, BYOL and MoCo v3."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vit_jax.objectives.views.objective import Views, build

__all__ = ["Views", "build"]


def __getattr__(name: str) -> Any:  # the options beside it are read without jax
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.objective"), name)
