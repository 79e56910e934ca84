"""Scheduled programs of GPUs: collectives of several arrays, with what is scheduled beside them; bounds of time."""

from dataclasses import dataclass

import pytest

from vit_jax.planning.chips import parse_hardware
from vit_jax.planning.floors import floors, transfer
from vit_jax.planning.hlo import Collective, read_schedule

# Lines of a program that was compiled for two hosts of eight H100s (data=4, fsdp=4), and the same shortened: attributes
# that are not read are left out, as are arrays of the loop.
# ruff: noqa: E501 - lines of a program are as long as they are
MODULE = r"""HloModule jit_step, is_scheduled=true, entry_computation_layout={}

%body (arg: (s32[], bf16[4,4,32])) -> (s32[], bf16[4,4,32]) {
  %arg = (s32[], bf16[4,4,32]{2,1,0}) parameter(0)
  %bitcast.1 = bf16[8,3,2,16]{3,2,1,0} bitcast(%arg)
  %all-gather-start = ((bf16[8,3,2,16]{3,2,1,0}, f32[4,2,3]{1,2,0}), (bf16[32,3,2,16]{3,2,1,0}, f32[16,2,3]{1,2,0})) all-gather-start(%bitcast.1, %bitcast.2), channel_id=8, replica_groups=mesh['axis_0'=4,'axis_1'=4], device_ids=([4,4]T(1,0)) {'axis_0'}, dimensions={0}, use_global_device_ids=true
  %fusion.1 = bf16[4,4,32]{2,1,0} fusion(%bitcast.1), kind=kLoop, calls=%computed, metadata={op_name="jit(step)/gelu"}
  %fusion.2 = bf16[4,4,32]{2,1,0} fusion(%bitcast.1), kind=kLoop, calls=%computed
  %all-gather-done = (bf16[32,3,2,16]{3,2,1,0}, f32[16,2,3]{1,2,0}) all-gather-done(%all-gather-start)
  %attention.5 = (bf16[4,2,4,16]{3,1,2,0}, f32[4,2,4]{2,1,0}, u8[0]{0}) custom-call(%q, %k, %v), custom_call_target="__cudnn$fmhaSoftmax", api_version=API_VERSION_STATUS_RETURNING
  ROOT %tuple = (s32[], bf16[4,4,32]{2,1,0}) tuple(%arg, %fusion.2)
}

%condition (arg: (s32[], bf16[4,4,32])) -> pred[] {
  ROOT %less = pred[] fusion(%arg), kind=kLoop, calls=%compared
}

ENTRY %main (p: bf16[4,4,32]) -> f32[250,32] {
  %p = bf16[4,4,32]{2,1,0} parameter(0)
  %while.1 = (s32[], bf16[4,4,32]{2,1,0}) while(%p), condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"24"}}
  %gemm_fusion_dot = f32[32,1000]{0,1} fusion(%while.1), kind=kCustom, calls=%computed, metadata={op_name="state.params[\'head\'][\'kernel\']"}
  %reduce-scatter-start.2 = ((f32[32,1000]{0,1}), f32[32,250]{0,1}) reduce-scatter-start(%gemm_fusion_dot), channel_id=173, replica_groups=mesh['axis_0'=1,'axis_1'=4,'axis_2'=4], device_ids=([4,4]T(1,0)) {'axis_1'}, use_global_device_ids=true, dimensions={1}, to_apply=%add
  %fusion.3 = f32[32]{0} fusion(%p), kind=kLoop, calls=%computed
  %reduce-scatter-done.2 = f32[32,250]{0,1} reduce-scatter-done(%reduce-scatter-start.2)
  %all-reduce-start.3 = bf16[5248]{0} all-reduce-start(%fusion.3), channel_id=62, replica_groups=mesh['axis_0'=1,'axis_1'=4,'axis_2'=4], device_ids=([4,4]T(1,0)) {'axis_2'}, use_global_device_ids=true, to_apply=%add
  %all-reduce-done.3 = bf16[5248]{0} all-reduce-done(%all-reduce-start.3)
  %all-reduce-start.4 = ((f32[384,250]{0,1}), f32[384,250]{0,1}) all-reduce-start(%fusion.3), channel_id=64, replica_groups=mesh['axis_0'=4,'axis_1'=4] {'axis_0'}, to_apply=%add, output_to_operand_aliasing={{1}: (0, {})}
  %fusion.4 = f32[32]{0} fusion(%p), kind=kLoop, calls=%computed
  %all-reduce-done.4 = f32[384,250]{0,1} all-reduce-done(%all-reduce-start.4)
  %all-reduce.87 = f32[12522]{0} all-reduce(%fusion.4), channel_id=72, replica_groups=mesh['data'=4,'fsdp'=4,'tensor'=1] {'data','fsdp'}, to_apply=%add
  ROOT %reduce-scatter.9 = (bf16[8,32]{1,0}, bf16[16,32]{1,0}) reduce-scatter(%fusion.3, %fusion.4), channel_id=5, replica_groups={{0,1,2,3},{4,5,6,7},{8,9,10,11},{12,13,14,15}}, dimensions={0}, to_apply=%add
}
"""
FSDP, DATA = (0, 1, 2, 3), (0, 4, 8, 12)


def test_collectives_of_gpus():
    schedule = read_schedule(MODULE, 16)
    found = [(one.kind, one.count, one.bytes, one.group, one.beside) for one in schedule.collectives]
    assert found == [
        # The results of both arrays, in every turn of the loop, beside two fusions.
        ("all-gather", 24, 2 * 32 * 3 * 2 * 16 + 4 * 16 * 2 * 3, FSDP, 2),
        # Of a reduce-scatter, the operand.
        ("reduce-scatter", 1, 4 * 32 * 1000, FSDP, 1),
        # Named after its result alone, or after operand and result.
        ("all-reduce", 1, 2 * 5248, DATA, 0),
        ("all-reduce", 1, 4 * 384 * 250, DATA, 1),
        ("all-reduce", 1, 4 * 12522, tuple(range(16)), 0),
        ("reduce-scatter", 1, 4 * 2 * (8 * 32 + 16 * 32), FSDP, 0),
    ]
    assert [one.asynchronous for one in schedule.collectives] == [True] * 4 + [False] * 2
    assert schedule.kernels == 24
    assert schedule.cycles == 0


def test_largest_arrays_that_are_made():
    # What is only received or passed on is not made; while loops name everything that they carry.
    assert read_schedule(MODULE, 16).largest[0] == (
        4 * 32 * 1000,
        "f32[32,1000] state.params['head']['kernel']",
    )


@dataclass(frozen=True)
class Device:
    process_index: int
    device_kind: str = "NVIDIA H100 80GB HBM3"


HOSTS = [Device(index // 8) for index in range(16)]


@pytest.mark.parametrize(
    ("kind", "group", "links", "network"),
    [
        ("all-gather", range(8), 7 / 8 / 450e9, 0),
        ("all-reduce", range(2), 1 / 2 / 450e9, 0),  # each sends what the other keeps, switches can add
        ("all-gather", (0, 8), 0, 1 / 2 / 50e9),
        # Of a host: what its own devices lack of each other, and half of the array over eight network cards.
        ("all-gather", range(16), 7 / 16 / 450e9, 1 / 2 / (8 * 50e9)),
        ("collective-permute", (0, 1), 1 / 450e9, 0),
        ("collective-permute", (0, 8), 0, 1 / 50e9),
        ("all-reduce", (3,), 0, 0),
    ],
)
def test_transfers_by_hand(kind, group, links, network):
    one = Collective(kind, 1, 16_000_000, tuple(group), 0, False)
    hardware = parse_hardware("h100-16")
    assert transfer(one, hardware, HOSTS) == pytest.approx((16e6 * links, 16e6 * network))


def test_bounds_by_hand():
    hardware = parse_hardware("h100-16")
    state = {"params": 3352, "opt_state": 6704}
    bounds = floors(read_schedule(MODULE, 16), hardware, HOSTS, 16 * 989e12, state)
    assert bounds["arithmetic"] == pytest.approx(1.0)
    assert bounds["memory"] == pytest.approx(5e-9)  # read once, and the optimizer's written too
    fsdp = 24 * (6144 + 384) + 128_000 + 6144  # three quarters inside a host of what is gathered or scattered
    # Data groups are two and two: a quarter of each sum inside hosts, a half between them.
    data = 10_496 + 384_000
    everyone = 50_088
    assert bounds["links"] == pytest.approx((fsdp * 3 / 4 + data / 4 + everyone * 7 / 16) / 450e9)
    assert bounds["network"] == pytest.approx((data / 2 / 2 + everyone / 2 / 8) / 50e9)
