"""How long collectives take on a slice: bytes over links, as rings around every side that a group extends along.

A model, not a measurement: every link is used at its published rate, nothing is lost to latency or contention.
"""

from collections.abc import Sequence
from typing import Any

from vit_jax.planning.chips import Hardware
from vit_jax.planning.hlo import Collective

# Bytes that pass through one device, by bytes of the whole array and devices of the group.
_TRAFFIC = {
    "all-gather": lambda size, n: size * (n - 1) / n,
    "reduce-scatter": lambda size, n: size * (n - 1) / n,
    "all-reduce": lambda size, n: 2 * size * (n - 1) / n,
    "all-to-all": lambda size, n: size * (n - 1) / n / 4,  # of a ring: half the way, in both directions
    "ragged-all-to-all": lambda size, n: size * (n - 1) / n / 4,
    "collective-permute": lambda size, n: size,
}


def seconds(collective: Collective, hardware: Hardware, devices: Sequence[Any]) -> float:
    """Return how long one execution of a collective takes.

    Args:
      collective: what is sent, by positions in the mesh.
      hardware: where.
      devices: of the mesh, in its order.
    """
    group = [devices[position] for position in collective.group]
    if len(group) < 2:
        return 0.0
    traffic = _TRAFFIC[collective.kind](collective.bytes, len(group))
    return traffic / bandwidth(group, hardware, one_way=collective.kind == "collective-permute")


def bandwidth(group: Sequence[Any], hardware: Hardware, one_way: bool = False) -> float:
    """Return bytes/s of one device to the others of its group.

    Args:
      group: at least two devices.
      hardware: what they are part of.
      one_way: whether each device sends to one neighbour only.
    """
    chip = hardware.chip
    if len({getattr(device, "slice_index", 0) for device in group}) > 1:
        return chip.between_slices
    sides = [
        side for side in range(len(hardware.sides)) if len({device.coords[side] for device in group}) > 1
    ]
    if one_way or not sides:  # two cores of one chip need no link
        return chip.link
    whole = [len({device.coords[side] for device in group}) == hardware.sides[side] for side in sides]
    # Around a ring both directions carry data; along a line too, but its ends make every byte pass twice.
    return sum(chip.link * (2 if hardware.wraps[side] and full else 1) for side, full in zip(sides, whole))
