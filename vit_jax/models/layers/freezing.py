"""How many of an image encoder's first blocks are not trained: said by training while it traces a step.

Equal blocks are one array, so that a gradient of it is computed for all of them or for none. With this, the stack is
applied in two parts, and the gradient ends between them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_DEPTH: ContextVar[int] = ContextVar("frozen_blocks", default=0)


@contextmanager
def frozen_below(depth: int) -> Iterator[None]:
    """Say, while a step is traced inside, that the first `depth` blocks are not trained."""
    token = _DEPTH.set(depth)
    try:
        yield
    finally:
        _DEPTH.reset(token)


def frozen_depth() -> int:
    """Return how many of the first blocks are not trained."""
    return _DEPTH.get()
