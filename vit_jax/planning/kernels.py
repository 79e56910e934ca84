"""What our own kernels cost on a TPU, counted by hand: XLA's schedule says nothing of them.

The compiler can be made to write down the instruction bundles of a kernel, one of which is issued in a cycle
(`benchmarks/tpu_kernels.py`). For 64 to 577 tokens and heads of 64 to 104, on v5e, these constants count as many or
up to a third more, and for none more than a fiftieth less. What a program costs beside its bundles is the difference
to the compiler's own profile of it, which it gives for one shape alone.
"""

import math
import re

from vit_jax.models.short_attention import BACKWARD, FORWARD

_PROGRAM = 700  # cycles of one program, whatever it does
_HEAD = {FORWARD: 90, BACKWARD: 120}
_TILE = {FORWARD: 7.0, BACKWARD: 10.5}  # of each tile of (8, 128) scores


def kernel_cycles(call: str) -> float | None:
    """Return the cycles of one call of a kernel, or None if it is not ours.

    Args:
      call: the line of the compiled program.
    """
    source = re.search(r'op_name="([^"]*)"', call)
    name = next((known for known in _HEAD if source and known in source[1]), None)
    operands = re.search(r"operand_layout_constraints=\{(.*?)\}, \w+=", call)
    groups = re.search(r"f32\[\d+,(\d+),(\d+),\d+\]", call)
    if name is None or operands is None or groups is None:
        return None
    (images, queries), (_, keys) = (
        (int(b), int(rows)) for b, rows in re.findall(r"\w+\[(\d+),(\d+),\d+\]", operands[1])[:2]
    )
    tiles = math.ceil(keys / 8) * math.ceil(queries / 128)
    return images * int(groups[1]) * (_PROGRAM + int(groups[2]) * (_HEAD[name] + _TILE[name] * tiles))
