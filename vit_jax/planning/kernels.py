"""What our own kernels cost on a TPU, counted by hand: XLA's schedule says nothing of them.

The compiler can be made to write down the instruction bundles of a kernel, one of which is issued in a cycle
(`benchmarks/tpu_kernels.py`). For 64 to 577 tokens and heads of 32 to 104, on v5e and v5p, these constants count as
many or up to six tenths more, and for none more than a fiftieth less; on v6e more, on v4 down to 0.56 of them. Kernels
of many windows have several hundred bundles beside, which start a program and are in its allowance. What a
program costs beside its bundles is the difference to the compiler's own profile of it, which it gives for one shape
alone.
"""

import math
import re

from vit_jax.models.layers.kernels.room import (
    BACKWARD,
    BYTES,
    FORWARD,
    START,
    image_bytes,
    images_together,
)

_HEAD = {FORWARD: 40, BACKWARD: 120}
_TILE = {FORWARD: 7.8, BACKWARD: 10.5}  # of each tile of (8, 128) scores
_PLAIN = {FORWARD: 3, BACKWARD: 5}  # operands without a bias


def kernel_cycles(call: str) -> float | None:
    """Return the cycles of one call of a kernel, or None if it is not ours.

    Args:
      call: the line of the compiled program.
    """
    source = re.search(r'op_name="([^"]*)"', call)
    name = next((known for known in _HEAD if source and known in source[1]), None)
    operands = re.search(r"operand_layout_constraints=\{(.*?)\}, \w+=", call)
    sums = re.search(r"f32\[\d+,\d+,(\d+),(\d+),(\d+),(\d+)\]", call)
    if name is None or operands is None or sums is None:
        return None
    arrays = [
        (dtype, [int(side) for side in shape.split(",")])
        for dtype, shape in re.findall(r"(\w+)\[([\d,]+)\]", operands[1])
    ]
    (dtype, (images, windows, _, width)), (_, (_, _, rows, _)) = arrays[:2]
    groups, parts, heads, queries = (int(number) for number in sums.groups())
    keys = rows // parts
    bias = arrays[3][1] if len(arrays) > _PLAIN[name] else (1, 0, 0)
    each = image_bytes(parts * max(queries, keys), width // groups, 2 if dtype == "bf16" else 4, name)
    together = images_together(
        images, groups * windows, each, queries, keys, bias[1] * min(heads, bias[2]), name
    )
    tiles = math.ceil(keys / 8) * math.ceil(queries / 128)
    programs = windows * groups * (images // together)
    work = programs * (START + together * parts * heads * (_HEAD[name] + _TILE[name] * tiles))
    return work + together * each / BYTES
