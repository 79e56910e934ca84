"""Names of hardware, and how fast its chips are linked."""

from dataclasses import dataclass

import pytest

from vit_jax.errors import ConfigError
from vit_jax.planning.chips import CHIPS, parse_hardware
from vit_jax.planning.hlo import Collective
from vit_jax.planning.network import bandwidth, seconds


@dataclass(frozen=True)
class Device:
    coords: tuple[int, ...]
    slice_index: int = 0


@pytest.mark.parametrize(
    ("name", "topology", "slices", "wraps"),
    [
        ("v5e-256", "v5e:16x16", 1, (True, True)),
        ("v5e-128", "v5e:8x16", 1, (False, True)),
        ("v5e-8", "v5e:2x4", 1, (False, False)),
        ("2xv6e-256", "v6e:16x16", 2, (True, True)),
        ("v5p-128", "v5p:4x4x4", 1, (True,) * 3),  # cores: 64 chips
        ("v4-32", "v4:2x2x4", 1, (False,) * 3),
        ("2xv5e:2x2", "v5e:2x2", 2, (False, False)),
    ],
)
def test_names(name, topology, slices, wraps):
    hardware = parse_hardware(name)
    assert (hardware.topology, hardware.slices, hardware.wraps) == (topology, slices, wraps)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("v5e", "must be one of v4, v5e, v5p, v6e with a number, such as v5e-256"),
        ("v5r-256", "Did you mean 'v5p' or 'v5e'"),
        ("v5e-100", "a slice of v5e has 1, 4, 8, 16, 32, 64, 128, 256 chips"),
        ("v5p-64x", "must be one of"),
        ("v5p-9", "a slice of v5p has 8, 16, 32, 64, 128, .* cores"),
        ("v5e:3x3", "shapes of a v5e slice are 1x1, 2x2"),
        ("0xv5e-8", "at least one slice"),
    ],
)
def test_unknown_names_are_one_line(name, message):
    with pytest.raises(ConfigError, match=message):
        parse_hardware(name)


def test_published_figures_go_together():
    # A clock that is inferred: four 128x128 multipliers of v5e at it make the published peak.
    assert CHIPS["v5e"].clock * 4 * 128 * 128 * 2 == pytest.approx(197e12, rel=0.01)
    assert CHIPS["v4"].clock * 8 * 128 * 128 * 2 == pytest.approx(275e12, rel=0.01)
    assert CHIPS["v5p"].clock * 8 * 128 * 128 * 2 == pytest.approx(459e12, rel=0.01)


def test_links_of_a_group():
    pod = parse_hardware("v5e-256")
    link = pod.chip.link
    row = [Device((x, 0, 0)) for x in range(16)]
    assert bandwidth(row, pod) == 2 * link  # a ring, both ways
    assert bandwidth(row[:8], pod) == link  # a part of it is a line
    assert bandwidth([Device((x, y, 0)) for x in range(16) for y in range(16)], pod) == 4 * link
    assert bandwidth(row[:2], pod, one_way=True) == link
    assert bandwidth([Device((0, 0, 0)), Device((0, 0, 0), 1)], pod) == pod.chip.between_slices


def test_seconds_by_hand():
    pod = parse_hardware("v5e-256")
    row = [Device((x, 0, 0)) for x in range(16)]

    def taken(kind, group=tuple(range(16))):
        return seconds(Collective(kind, 1, 16_000_000, group, 0, False), pod, row)

    assert taken("all-gather") == pytest.approx(15e6 / 100e9)
    assert taken("reduce-scatter") == taken("all-gather")
    assert taken("all-reduce") == pytest.approx(2 * taken("all-gather"))
    assert taken("collective-permute", (3, 4)) == pytest.approx(16e6 / 50e9)
    assert taken("all-reduce", (3,)) == 0
