"""Names of hardware, and how fast its chips are linked."""

import re
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from vit_jax.errors import ConfigError
from vit_jax.planning import topology
from vit_jax.planning.advice import more_of_the_card
from vit_jax.planning.chips import CHIPS, parse_hardware
from vit_jax.planning.hlo import Collective
from vit_jax.planning.network import bandwidth, seconds
from vit_jax.training.devices.hardware import peak_flops


@dataclass(frozen=True)
class Device:
    coords: tuple[int, ...]
    slice_index: int = 0


@pytest.mark.parametrize(
    ("name", "shape", "slices", "wraps"),
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
def test_names(name, shape, slices, wraps):
    hardware = parse_hardware(name)
    assert (hardware.topology, hardware.slices, hardware.wraps) == (shape, slices, wraps)


@pytest.mark.parametrize(
    ("name", "shape", "hosts"),
    [("h100-1", "1x1x1", 1), ("h100-8", "1x1x8", 1), ("2xh100-8", "1x2x8", 2), ("h100-64", "1x8x8", 8)],
)
def test_names_of_gpus(name, shape, hosts):
    hardware = parse_hardware(name)
    assert hardware.chip.gpu
    assert (hardware.topology, hardware.slices) == (shape, hosts)
    assert not any(hardware.wraps)


def test_memory_of_a_gpu_is_what_jax_takes(monkeypatch):
    assert parse_hardware("h100-8").chip.memory == int(0.75 * CHIPS["h100"].card)
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.5")
    assert parse_hardware("h100-8").chip.memory == CHIPS["h100"].card // 2
    monkeypatch.setenv("XLA_CLIENT_MEM_FRACTION", ".9")
    hardware = parse_hardware("h100-8")
    assert hardware.chip.memory == int(0.9 * CHIPS["h100"].card)
    for needed, lines in ((0.89, 0), (0.91, 1), (0.93, 0)):
        assert len(more_of_the_card(int(needed * CHIPS["h100"].card), hardware)) == lines
    assert more_of_the_card(40 * 2**30, parse_hardware("v5e-8")) == []
    for wrong in ("90", "0", "most"):
        monkeypatch.setenv("XLA_CLIENT_MEM_FRACTION", wrong)
        with pytest.raises(ConfigError, match=f"XLA_CLIENT_MEM_FRACTION is '{wrong}'; it must be a number"):
            parse_hardware("h100-8")


def test_the_target_is_the_chip_that_is_planned_for():
    target = (Path(topology.__file__).parent / "h100.pbtxt").read_text()
    stated = {name: float(value) for name, value in re.findall(r"(\w+): ([\d.]+)\n", target)}
    chip = CHIPS["h100"]
    assert (stated["device_memory_size"], stated["memory_bandwidth"]) == (
        chip.card,
        pytest.approx(chip.bandwidth, rel=1e-3),
    )
    kind = re.search(r'device_description_str: "(.*)"', target)
    # By this name the peak is found, and a real card calls itself so.
    assert peak_flops(SimpleNamespace(device_kind=kind[1])) == 989e12


def test_without_the_compiler_of_gpus_the_command_is_said(monkeypatch):
    monkeypatch.setattr(topology, "_PLUGINS", ())
    with pytest.raises(ConfigError, match=r"pip install 'vit-jax\[plan-gpu\]' \(no GPU is needed\)\.$"):
        topology.prepare_environment(parse_hardware("h100-8"))
    # A package that is there, in another version than jaxlib.
    monkeypatch.setattr(topology, "_PLUGINS", ("pytest",))
    with pytest.raises(
        ConfigError, match=r"with pytest, which is \S+ but must be \S+, like jaxlib; run pip install"
    ):
        topology.prepare_environment(parse_hardware("h100-8"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("v5e", "must be one of v4, v5e, v5p, v6e, h100 with a number, such as v5e-256"),
        ("v5r-256", "Did you mean 'v5p' or 'v5e'"),
        ("v5e-100", "a slice of v5e has 1, 4, 8, 16, 32, 64, 128, 256 chips"),
        ("v5p-64x", "must be one of"),
        ("v5p-9", "a slice of v5p has 8, 16, 32, 64, 128, .* cores"),
        ("v5e:3x3", "shapes of a v5e slice are 1x1, 2x2"),
        ("0xv5e-8", "at least one slice"),
        ("h100-12", "a host of h100 has 1, 2, 4, 8 GPUs, and several hosts have 8 each: h100-16 or 2xh100-8"),
        ("2xh100-4", "several hosts have 8 each"),
        ("2xh100-16", "several hosts have 8 each"),
        ("0xh100-8", "at least one host"),
        ("h100:2x4", "a host of h100 has 1, 2, 4, 8 GPUs"),
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
