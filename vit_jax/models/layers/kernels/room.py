"""How much of attention over short sequences one program of the TPU kernel handles, and what its start costs."""

import math

MAX_TOKENS = 640  # Beyond, the scores of a head and what is made of them no longer fit beside each other.
MIN_QUERIES = 16  # Of fewer, such as the one query of a pooling head, a program has too little to do.
FORWARD, BACKWARD = "short_attention_forward", "short_attention_backward"
LANES = 128
_LARGEST_PROGRAM = 2**20  # scores that one program makes of an image: heads are written out, images a loop
_MEMORY = 15 * 2**20  # bytes of a program on the chip, of 16 MiB that the compiler gives it
_SCORE = 22  # bytes that a program needs for a score of one head and what is made of it
_ARRAYS = {FORWARD: 4, BACKWARD: 7}  # that a program reads or writes, beside sums
_BIASES = {FORWARD: 1, BACKWARD: 2}  # the same, of biases and their gradients
START = 700  # cycles of one program, whatever it does: as many as two heads of 196 tokens take
BYTES = 546  # that memory gives in a cycle, on v5e


def heads_together(
    heads: int,
    size: int,
    queries: int,
    keys: int,
    itemsize: int,
    parts: int = 1,
    biases: tuple[int, int] = (0, 0),
) -> int:
    """Return how many heads one program handles: their columns fill whole lanes, or they are all there are.

    Args:
      heads: `h`.
      size: `k`.
      queries, keys: `n` and `m`.
      itemsize: bytes of an element.
      parts: see `short_attention`.
      biases: how many parts and how many heads have one of their own.

    Returns:
      A divisor of `heads`; 0 where a program has no room for what so many heads read and write.
    """
    rows = max(queries, keys)
    whole = [count for count in range(1, heads) if heads % count == 0 and count * size % LANES == 0]
    room = [
        count
        for count in (*whole, heads)
        if rows <= MAX_TOKENS
        and image_bytes(parts * rows, count * size, itemsize, BACKWARD)
        <= _room_for_images(queries, keys, biases[0] * min(count, biases[1]), BACKWARD)
    ]
    fitting = [count for count in room if count * parts * queries * keys <= _LARGEST_PROGRAM]
    return max(fitting, default=min(room, default=0))


def bias_bytes(queries: int, keys: int, biased: int, direction: str) -> int:
    """Return what one program reads and writes of a bias, in whole tiles; arguments as `images_together`."""
    return _BIASES[direction] * biased * math.ceil(keys / 8) * 8 * math.ceil(queries / LANES) * LANES * 4


def _room_for_images(queries: int, keys: int, biased: int, direction: str) -> int:
    """Return how many bytes one program may read and write of images; the next one's lie there too."""
    return (_MEMORY - _SCORE * queries * keys) // 2 - bias_bytes(queries, keys, biased, direction)


def image_bytes(rows: int, columns: int, itemsize: int, direction: str) -> int:
    """Return what one program reads and writes of an image, in whole tiles.

    Args:
      rows, columns: of one array: of all parts, the larger of queries and keys; of the heads that a program handles.
      itemsize: bytes of an element.
      direction: `FORWARD` or `BACKWARD`.
    """
    tile = 32 // itemsize
    tiles = math.ceil(rows / tile) * math.ceil(columns / LANES)
    return _ARRAYS[direction] * tiles * tile * LANES * itemsize


def images_together(
    images: int, groups: int, each: int, queries: int, keys: int, biased: int = 0, direction: str = BACKWARD
) -> int:
    """Return how many images one program handles, in equal numbers, so that starts and transfers take least.

    Every program costs its start, and the first one waits for what it reads; the others' is read meanwhile.

    Args:
      images: `b / w`.
      groups: of heads and windows, each a program.
      each: `image_bytes` of one image.
      queries, keys: `n` and `m`.
      biased: how many biases a program adds, of parts and heads.
      direction: `FORWARD` or `BACKWARD`.
    """
    room = _room_for_images(queries, keys, biased, direction)
    fitting = [count for count in range(1, images + 1) if images % count == 0 and count * each <= room]
    cost = {count: images // count * groups * START + count * each / BYTES for count in (1, *fitting)}
    return min(cost, key=cost.__getitem__)
