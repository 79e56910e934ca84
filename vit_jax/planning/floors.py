"""How long a step on GPUs takes at least: their compiler estimates no times, but work and links have published rates.

Each bound is of one part of the hardware, and all parts may work at once: the step takes no less than the largest, and
on real hardware more.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from vit_jax.planning.chips import Hardware
from vit_jax.planning.hlo import Collective, Schedule
from vit_jax.training.devices.hardware import peak_flops


def floors(
    schedule: Schedule, hardware: Hardware, devices: Sequence[Any], flops: float, state: Mapping[str, int]
) -> dict[str, float]:
    """Return seconds that a step takes at least, by part of the hardware.

    Args:
      schedule: of the step.
      hardware: of GPUs.
      devices: of the mesh, in its order.
      flops: of the step, on all devices.
      state: bytes on one device of `params` and `opt_state`.

    Returns:
      `arithmetic`, at the peak of all devices; `memory`, parameters read once and the optimizer's state read and
      written; `links` inside a host and `network` between hosts, for all collectives.
    """
    peak = peak_flops(devices[0])
    assert peak is not None
    times = [
        tuple(one.count * part for part in transfer(one, hardware, devices)) for one in schedule.collectives
    ]
    return {
        "arithmetic": flops / (peak * len(devices)),
        "memory": (state["params"] + 2 * state["opt_state"]) / hardware.chip.bandwidth,
        "links": sum(links for links, _ in times),
        "network": sum(network for _, network in times),
    }


def transfer(collective: Collective, hardware: Hardware, devices: Sequence[Any]) -> tuple[float, float]:
    """Return seconds that one execution of a collective takes at least: on the links in a host, and between hosts.

    Every device has to receive or send what it lacks or others lack once, even of an all-reduce, since switches can
    add. What a host lacks comes over the network of all its devices in the group.
    """
    group = [devices[position] for position in collective.group]
    if len(group) < 2:
        return 0.0, 0.0
    chip, size = hardware.chip, collective.bytes
    here = Counter(device.process_index for device in group)
    if collective.kind == "collective-permute":
        return (size / chip.link, 0.0) if len(here) == 1 else (0.0, size / chip.between_slices)
    most = max(here.values())
    links = size * (most - 1) / len(group) / chip.link
    network = size * (len(here) - 1) / len(here) / (most * chip.between_slices)
    return links, network
