"""Accelerators by the names they are rented under, `v5e-256`, `2xv5e-256`, `h100-8`, and what one can do. Needs no jax.

All figures are their makers' published ones (Google Cloud's TPU documentation; links between slices: Austin et al.
2025, How to Scale Your Model; NVIDIA's H100 and DGX H100 data sheets), except the clock, which is inferred from the
published peak and the number of multipliers.
"""

import os
import re
from dataclasses import dataclass, replace

from vit_jax.errors import ConfigError, nearest

GIB = 2**30
# Of a GPU's memory, jax takes this part unless it is told otherwise; communication and libraries need some of the rest.
FRACTION = 0.75
FRACTION_VARIABLES = ("XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION")


@dataclass(frozen=True)
class Chip:
    """One chip; a GPU is one too, and a host of GPUs is a slice.

    Attributes:
      name: such as `v5e`.
      memory: bytes that a program may use, as the compiler says; of GPUs, `FRACTION` of what is there.
      bandwidth: of memory, bytes/s.
      clock: cycles per second; 0 for GPUs, whose compiler counts no cycles.
      link: bytes/s of one link to a neighbour, in one direction; of GPUs, of all its links together.
      between_slices: bytes/s a chip to other slices.
      cores: what the number in the name counts: 2 where it counts cores of two-core chips.
      sides: chips a side, by number of chips.
      card: of GPUs, bytes of memory that are there; 0 for TPUs.
    """

    name: str
    memory: int
    bandwidth: float
    clock: float
    link: float
    between_slices: float
    cores: int
    sides: dict[int, tuple[int, ...]]
    card: int = 0

    @property
    def gpu(self) -> bool:
        """Whether it is a GPU."""
        return self.card > 0


_FLAT = {1: (1, 1), 4: (2, 2), 8: (2, 4), 16: (4, 4), 32: (4, 8), 64: (8, 8), 128: (8, 16), 256: (16, 16)}
_CUBES = {
    4: (2, 2, 1),
    8: (2, 2, 2),
    16: (2, 2, 4),
    32: (2, 4, 4),
    64: (4, 4, 4),
    128: (4, 4, 8),
    256: (4, 8, 8),
    512: (8, 8, 8),
    1024: (8, 8, 16),
    2048: (8, 16, 16),
    4096: (16, 16, 16),
}
_HOST = {1: (1,), 2: (2,), 4: (4,), 8: (8,)}
_H100 = 84929347584  # as CUDA counts the 80 GB card's memory
CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v4", 32 * GIB, 1228e9, 1.05e9, 50e9, 6.25e9, 2, _CUBES),
        Chip("v5e", int(15.75 * GIB), 819e9, 1.5e9, 50e9, 3.125e9, 1, _FLAT),
        Chip("v5p", 95 * GIB, 2765e9, 1.75e9, 100e9, 6.25e9, 2, _CUBES),
        Chip("v6e", int(31.24 * GIB), 1640e9, 1.75e9, 112e9, 12.5e9, 1, _FLAT),
        Chip("h100", int(FRACTION * _H100), 3352e9, 0.0, 450e9, 50e9, 1, _HOST, _H100),
    )
}


@dataclass(frozen=True)
class Hardware:
    """A number of slices, or hosts of GPUs, of equal chips.

    Attributes:
      name: as the user wrote it.
      chip: what they consist of.
      sides: chips a side of one slice.
      slices: how many.
    """

    name: str
    chip: Chip
    sides: tuple[int, ...]
    slices: int

    @property
    def wraps(self) -> tuple[bool, ...]:
        """Whether the chips at both ends of each side are linked: full pods and cubes are tori, parts are not."""
        if len(self.sides) == 3:
            return (all(side % 4 == 0 for side in self.sides),) * 3
        return tuple(side == 16 for side in self.sides)

    @property
    def topology(self) -> str:
        """The name under which the compiler knows one slice; of GPUs, the shape of all hosts together."""
        if self.chip.gpu:
            return f"1x{self.slices}x{self.sides[0]}"
        return f"{self.chip.name}:{'x'.join(map(str, self.sides))}"


def parse_hardware(name: str) -> Hardware:
    """Return the hardware of a name: `v5e-256`, `v5p-128` (cores, as it is rented), `2xv5e-16`, `v5e:2x2`, `h100-8`.

    GPUs are 8 a host: `h100-16` is `2xh100-8`, two hosts. Their memory is what jax will take of the card, by default or
    by the environment variable XLA_CLIENT_MEM_FRACTION.

    Raises:
      ConfigError: there is no such hardware; what there is is listed.
    """
    match = re.fullmatch(r"(?:(\d+)x)?([a-z]\w+?)(?:-(\d+)|:(\d+(?:x\d+)+))", name)
    kind = match[2] if match else name.partition("-")[0]
    if match is None or kind not in CHIPS:
        raise ConfigError(
            f"--hardware is {name!r}; it must be one of {', '.join(CHIPS)} with a number, such as v5e-256, "
            f"2xv5e-256 (two slices) or h100-8.{nearest(kind, CHIPS)}"
        )
    chip, slices = CHIPS[kind], int(match[1] or 1)
    if chip.gpu:
        return _gpus(name, chip, slices, match[3])
    possible = {count * chip.cores: sides for count, sides in chip.sides.items()}
    if match[4]:
        sides = tuple(int(side) for side in match[4].split("x"))
        if sides not in chip.sides.values():
            shapes = ", ".join("x".join(map(str, known)) for known in chip.sides.values())
            raise ConfigError(f"--hardware is {name!r}; shapes of a {kind} slice are {shapes}.")
    elif int(match[3]) not in possible:
        raise ConfigError(
            f"--hardware is {name!r}; a slice of {kind} has {', '.join(map(str, possible))} "
            f"{'cores' if chip.cores == 2 else 'chips'}."
        )
    else:
        sides = possible[int(match[3])]
    if slices < 1:
        raise ConfigError(f"--hardware is {name!r}; there must be at least one slice.")
    return Hardware(name, chip, sides, slices)


def _gpus(name: str, chip: Chip, hosts: int, count: str | None) -> Hardware:
    number, full = int(count or 0), max(chip.sides)
    several = number > full and number % full == 0
    if (number not in chip.sides and not several) or (hosts != 1 and number != full):
        raise ConfigError(
            f"--hardware is {name!r}; a host of {chip.name} has {', '.join(map(str, chip.sides))} GPUs, and several "
            f"hosts have {full} each: {chip.name}-{2 * full} or 2x{chip.name}-{full}."
        )
    hosts = number // full if several else hosts
    if hosts < 1:
        raise ConfigError(f"--hardware is {name!r}; there must be at least one host.")
    chip = replace(chip, memory=int(memory_fraction() * chip.card))
    return Hardware(name, chip, chip.sides[min(number, full)], hosts)


def memory_fraction() -> float:
    """Return the part of a GPU's memory that jax takes, by the environment as in the run itself.

    Raises:
      ConfigError: the environment variable is no such number.
    """
    for variable in FRACTION_VARIABLES:
        text = os.environ.get(variable)
        if text:
            try:
                fraction = float(text)
            except ValueError:
                fraction = 0.0
            if not 0 < fraction <= 1:
                raise ConfigError(f"{variable} is {text!r}; it must be a number above 0 and at most 1.")
            return fraction
    return FRACTION
