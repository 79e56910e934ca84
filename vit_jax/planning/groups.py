"""Which devices communicate with each other, as XLA writes it on a collective."""

import math
import re
from collections.abc import Iterator


def group(text: str, devices: int) -> tuple[int, ...]:
    """Return one group of the positions that communicate.

    Written as `{{0,1},{2,3}}`, as `[2,4]<=[4,2]T(1,0)` (an arange reshaped and transposed), or as axes of a mesh,
    `mesh['a'=4,'b'=2] {'b'}`, where `device_ids=([2,4]T(1,0))` may come between: the mesh's devices in another order.

    Args:
      text: the instruction.
      devices: how many there are, who all take part where nothing is said.
    """
    if match := re.search(r"source_target_pairs=\{\{(\d+),(\d+)\}", text):
        return int(match[1]), int(match[2])
    if match := re.search(r"replica_groups=\{\{([\d,]+)\}", text):
        return tuple(int(number) for number in match[1].split(","))
    if match := re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", text):
        shape, source = _numbers(match[1]), _numbers(match[2])
        order = _numbers(match[3]) if match[3] else list(range(len(source)))
        return tuple(_transposed(source, order)[: math.prod(shape[1:])])
    if match := re.search(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}", text):
        sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", match[1])}
        wanted = re.findall(r"'([^']+)'", match[2])
        names = [name for name in sizes if name not in wanted] + wanted
        order = [list(sizes).index(name) for name in names]
        places = _transposed(list(sizes.values()), order)[: math.prod(sizes[name] for name in wanted)]
        if moved := re.search(r"device_ids=\(\[([\d,]+)\]T\(([\d,]+)\)\)", text):
            moves = _transposed(_numbers(moved[1]), _numbers(moved[2]))
            return tuple(moves[place] for place in places)
        return tuple(places)
    return tuple(range(devices))


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _transposed(shape: list[int], order: list[int]) -> list[int]:
    """Return `arange(shape).transpose(order)` in reading order."""
    strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]

    def walk(axes: list[int], offset: int) -> Iterator[int]:
        if not axes:
            yield offset
            return
        for index in range(shape[axes[0]]):
            yield from walk(axes[1:], offset + index * strides[axes[0]])

    return list(walk(order, 0))
