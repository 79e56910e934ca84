"""What is drawn anew for each step of training and decides about shapes, such as the size of patches.

A family names the field that lists the choices. The step is compiled once, with a branch for each, so that no step
waits for a compiler and a run goes on from a checkpoint with the same draws. While a branch is traced, the model asks
which one it is.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from vit_jax.models.families import family_of, is_config
from vit_jax.models.family import Config

SCOPE = "drawn"  # the name that the branches have in a traced program
_DRAWN: ContextVar[Any] = ContextVar("drawn", default=None)


def choices(config: Config | None) -> tuple[Any, ...]:
    """Return what each step of training a model draws one of; nothing for most models, and for what is of no family."""
    field = family_of(config).drawn if is_config(config) else ""
    return tuple(getattr(config, field)) if field else ()


@contextmanager
def drawing(choice: Any) -> Iterator[None]:
    """Say, while a step is traced inside, which one was drawn."""
    token = _DRAWN.set(choice)
    try:
        yield
    finally:
        _DRAWN.reset(token)


def drawn(config: Config) -> Any:
    """Return what was drawn of a model's own choices; None outside of training."""
    choice = _DRAWN.get()
    return choice if choice in choices(config) else None
