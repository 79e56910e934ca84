"""Large images a strip at a time, so that what is computed on the way stays small."""

from collections.abc import Iterator

PIXELS = 2**17


def strips(height: int, width: int) -> Iterator[slice]:
    """Yield the rows of each strip of an image, from the top."""
    rows = max(1, PIXELS // width)
    for top in range(0, height, rows):
        yield slice(top, min(top + rows, height))
