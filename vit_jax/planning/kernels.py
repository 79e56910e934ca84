"""What our own kernels cost on a TPU, counted by hand: XLA's schedule says nothing of them.

The compiler can be made to write down the instruction bundles of a kernel, one of which is issued in a cycle
(`benchmarks/tpu_kernels.py`). For 64 to 577 tokens and heads of 64 to 104, on v5e and v5p, these constants count as
many or up to a half more, and for none more than a fiftieth less; on v6e more, on v4 down to 0.54 of them. What a
program costs beside its bundles is the difference to the compiler's own profile of it, which it gives for one shape
alone.
"""

import math
import re

from vit_jax.models.layers.kernels.short_attention import (
    BACKWARD,
    BYTES,
    FORWARD,
    START,
    image_bytes,
    images_together,
)

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
    arrays = re.findall(r"(\w+)\[(\d+),(\d+),(\d+)\]", operands[1])
    (dtype, images, queries, width), (_, _, keys, _) = arrays[:2]
    images, queries, keys = int(images), int(queries), int(keys)
    groups, heads = int(groups[1]), int(groups[2])
    each = image_bytes(max(queries, keys), int(width) // groups, 2 if dtype == "bf16" else 4, name)
    together = images_together(images, groups, each, queries, keys)
    tiles = math.ceil(keys / 8) * math.ceil(queries / 128)
    programs = groups * (images // together)
    work = programs * (START + together * heads * (_HEAD[name] + _TILE[name] * tiles))
    return work + together * each / BYTES
