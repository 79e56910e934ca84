"""Scheduled programs are read as they run: trips of loops, work beside collectives, groups of devices."""

import math

import pytest

from vit_jax.planning.hlo import parse, read_schedule, shape_bytes
from vit_jax.planning.kernels import kernel_cycles


def cycles(number):
    return f'backend_config={{"window_config":{{"estimated_cycles":"{number}"}}}}'


# ruff: noqa: E501 - lines of a program are as long as they are
MODULE = f"""HloModule jit_step, is_scheduled=true, entry_computation_layout={{}}

%add (a: f32[], b: f32[]) -> f32[] {{
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}}

%gather_start (p: bf16[8,16]) -> (bf16[8,16], bf16[64,16], u32[]) {{
  %p = bf16[8,16]{{1,0}} parameter(0)
  %all-gather.1 = bf16[64,16]{{1,0}} all-gather(%p), channel_id=7, replica_groups=[2,8]<=[16], dimensions={{0}}
  ROOT %start = (bf16[8,16]{{1,0}}, bf16[64,16]{{1,0}}, u32[]{{:S(2)}}) custom-call(%all-gather.1), custom_call_target="AsyncCollectiveStart"
}}

%gather_done (p: bf16[8,16]) -> bf16[64,16] {{
  %p = bf16[8,16]{{1,0}} parameter(0)
  %all-gather.2 = bf16[64,16]{{1,0}} all-gather(%p), channel_id=7, replica_groups=[2,8]<=[16], dimensions={{0}}
  ROOT %done = bf16[64,16]{{1,0}} custom-call(%p, %all-gather.2), custom_call_target="AsyncCollectiveDone"
}}

%scatter (p: bf16[64,16]) -> bf16[8,16] {{
  %p = bf16[64,16]{{1,0}} parameter(0)
  %all-reduce.9 = bf16[64,16]{{1,0}} all-reduce(%p), channel_id=9, replica_groups={{{{0,2,4,6}},{{1,3,5,7}}}}, to_apply=%add
  ROOT %slice = bf16[8,16]{{1,0}} dynamic-slice(%all-reduce.9), dynamic_slice_sizes={{8,16}}
}}

%multiply (p: bf16[64,16]) -> bf16[64,16] {{
  ROOT %p = bf16[64,16]{{1,0}} parameter(0)
}}

%condition (state: (u32[], bf16[64,16])) -> pred[] {{
  %state = (u32[], bf16[64,16]) parameter(0)
  %limit = u32[]{{:T(128)}} constant(24)
  %number = u32[]{{:T(128)}} get-tuple-element(%state), index=0
  ROOT %less = pred[] compare(%number, %limit), direction=LT
}}

%body (state: (u32[], bf16[64,16])) -> (u32[], bf16[64,16]) {{
  %state = (u32[], bf16[64,16]) parameter(0)
  %x = bf16[64,16]{{1,0}} get-tuple-element(%state), index=1
  %permute = (bf16[64,16]{{1,0}}, bf16[64,16]{{1,0}}, u32[]{{:S(2)}}, u32[]{{:S(2)}}) collective-permute-start(%x), channel_id=3, source_target_pairs={{{{0,1}},{{1,0}}}}
  %work = bf16[64,16]{{1,0}} fusion(%x), kind=kOutput, calls=%multiply, metadata={{op_name="jit(step)/dot"}}, {cycles(10)}
  %permuted = bf16[64,16]{{1,0}} collective-permute-done(%permute)
  ROOT %next = (u32[], bf16[64,16]) tuple(%x, %permuted)
}}

ENTRY %main (p: bf16[8,16]) -> bf16[8,16] {{
  %p = bf16[8,16]{{1,0}} parameter(0)
  %begin = (bf16[8,16]{{1,0}}, bf16[64,16]{{1,0}}, u32[]{{:S(2)}}) fusion(%p), kind=kCustom, calls=%gather_start
  %first = bf16[64,16]{{1,0}} fusion(%p), kind=kOutput, calls=%multiply, metadata={{op_name="jit(step)/gelu"}}, {cycles(100)}
  %end = bf16[64,16]{{1,0}} fusion(%begin), kind=kCustom, calls=%gather_done
  %loop = (u32[], bf16[64,16]) while(%end), condition=%condition, body=%body
  %kernel = bf16[64,16]{{1,0}} custom-call(%end), custom_call_target="tpu_custom_call"
  ROOT %all-reduce-scatter.1 = bf16[8,16]{{1,0}} fusion(%kernel), kind=kCustom, calls=%scatter
}}
"""


def test_a_program_is_read_as_it_runs():
    schedule = read_schedule(MODULE, 16)
    assert schedule.cycles == 100 + 24 * 10
    assert schedule.by_source == {"jit(step)/gelu": 100, "jit(step)/dot": 240}
    assert schedule.kernels == 1
    found = {one.kind: one for one in schedule.collectives}
    assert len(found) == len(schedule.collectives) == 3
    gather, permute, scatter = (
        found[kind] for kind in ("all-gather", "collective-permute", "reduce-scatter")
    )
    # One transfer, though two fusions name it; its work beside is what stands between them.
    assert (gather.count, gather.bytes, gather.covered, gather.asynchronous) == (1, 2048, 100, True)
    assert gather.group == tuple(range(8))
    assert (permute.count, permute.bytes, permute.covered) == (24, 2048, 10)
    assert permute.group == (0, 1)
    assert (scatter.count, scatter.bytes, scatter.covered, scatter.asynchronous) == (1, 2048, 0, False)
    assert scatter.group == (0, 2, 4, 6)


BRANCHED = f"""HloModule jit_step, is_scheduled=true, entry_computation_layout={{}}

%longest (x: bf16[8,16]) -> bf16[8,16] {{
  %x = bf16[8,16]{{1,0}} parameter(0)
  %work.2 = bf16[8,16]{{1,0}} fusion(%x), kind=kOutput, calls=%none, metadata={{op_name="jit(step)/SCOPEcond/branch_0_fun/two"}}, {cycles(60)}
  ROOT %sum.2 = bf16[8,16]{{1,0}} all-reduce(%work.2), channel_id=2, replica_groups={{{{0,1}}}}
}}

ENTRY %main (index: s32[], x: bf16[8,16]) -> bf16[8,16] {{
  %index = s32[] parameter(0)
  %x = bf16[8,16]{{1,0}} parameter(1)
  ROOT %chosen = bf16[8,16]{{1,0}} conditional(%index, %x, %x), branch_computations={{%longest, %plain}}, metadata={{op_name="conditional.3"}}
}}

%plain (x: bf16[8,16]) -> bf16[8,16] {{
  %x = bf16[8,16]{{1,0}} parameter(0)
  ROOT %work.3 = bf16[8,16]{{1,0}} fusion(%x), kind=kOutput, calls=%none, metadata={{op_name="jit(step)/SCOPEcond/branch_1_fun/one"}}, {cycles(30)}
}}
"""


@pytest.mark.parametrize("scope", ["", "drawn/cond/branch_1_fun/"])
def test_of_a_condition_the_longest_branch_counts_and_nothing_of_the_others(scope):
    schedule = read_schedule(BRANCHED.replace("SCOPE", scope), 2)
    assert schedule.cycles == 60
    assert schedule.by_source == {f"jit(step)/{scope}cond/branch_0_fun/two": 60}
    assert [one.count for one in schedule.collectives] == [1]


def test_what_a_step_draws_counts_as_often_as_it_is_drawn():
    schedule = read_schedule(BRANCHED.replace("SCOPE", "drawn/"), 2)
    assert schedule.cycles == 45
    assert sorted(schedule.by_source.values()) == [15, 30]
    assert [one.count for one in schedule.collectives] == [0.5]


@pytest.mark.parametrize(
    ("written", "group"),
    [
        ("{{0,3},{1,2}}", (0, 3)),
        ("[2,4]<=[8]", (0, 1, 2, 3)),
        ("[4,2]<=[2,4]T(1,0)", (0, 4)),
        ("[2,2,2]<=[2,2,2]T(2,1,0)", (0, 4, 2, 6)),
        ("mesh['data'=2,'fsdp'=4] {'fsdp'}", (0, 1, 2, 3)),
        ("mesh['data'=2,'fsdp'=4] {'data'}", (0, 4)),
        ("mesh['data'=2,'fsdp'=4] {'data','fsdp'}", tuple(range(8))),
    ],
)
def test_groups_are_read_however_they_are_written(written, group):
    text = MODULE.replace("replica_groups={{0,2,4,6},{1,3,5,7}}", f"replica_groups={written}")
    scatter = next(one for one in read_schedule(text, 8).collectives if one.kind == "reduce-scatter")
    assert scatter.group == group


def test_shapes_in_bytes():
    shapes = "(bf16[8,16]{1,0:T(8,128)(2,1)S(1)}, f32[], pred[3], u32[]{:S(2)})"
    assert shape_bytes(shapes) == [256, 4, 3, 4]


def test_a_program_without_schedule_or_trips_is_an_error():
    with pytest.raises(ValueError, match="not scheduled"):
        read_schedule(MODULE.replace("is_scheduled=true", ""), 8)
    with pytest.raises(ValueError, match="trip count of loop cannot be read"):
        read_schedule(MODULE.replace("constant(24)", "parameter(1)"), 8)


def test_every_computation_is_found():
    computations, entry = parse(MODULE)
    assert entry == "main"
    assert set(computations) == {
        "add", "gather_start", "gather_done", "scatter", "multiply", "condition", "body", "main",
    }  # fmt: skip
    assert math.isclose(sum(i.cycles for i in computations["body"]), 10)


KERNEL = (
    "  %jvp_short_attention_backward_.1 = (bf16[8,1,197,384]{3,2,1,0}, bf16[8,1,197,384]{3,2,1,0}, bf16[8,1,197,384]{3,2,1,0}) "
    "custom-call(%q, %k, %v, %short_attention_forward.log_sums, %dout), "
    'custom_call_target="tpu_custom_call", operand_layout_constraints={bf16[8,1,197,384]{3,2,1,0}, bf16[8,1,50,384]{3,2,1,0}, '
    "bf16[8,1,50,384]{3,2,1,0}, f32[8,1,3,1,4,197]{5,4,3,2,1,0}, bf16[8,1,197,384]{3,2,1,0}}, "
    'frontend_attributes={kernel_metadata={}}, metadata={op_name="jit(step)/short_attention_backward/pallas_call"}'
)


def test_our_kernels_are_counted_by_their_scores():
    tiles = 7 * 2  # of 50 keys by 197 queries
    first = 4 * 7 * 208 * 128 * 2 / 546  # bytes of a program: four images, one of three groups
    assert kernel_cycles(KERNEL) == 2 * 3 * (700 + 4 * 4 * (120 + 10.5 * tiles)) + first
    biased = KERNEL.replace("f32[8,1,3,1,4,197]", "f32[1,1,12,50,197]{4,3,2,1,0}, f32[8,1,3,1,4,197]", 1)
    assert kernel_cycles(biased) == kernel_cycles(KERNEL)  # it leaves room for as many images
    assert kernel_cycles(KERNEL.replace("short_attention_backward", "another")) is None
    lines = (
        '%kernel = bf16[64,16]{1,0} custom-call(%end), custom_call_target="tpu_custom_call"',
        KERNEL.strip(),
    )
    schedule = read_schedule(MODULE.replace(*lines), 16)
    assert schedule.kernels == 0
    assert schedule.counted == kernel_cycles(KERNEL)
    assert schedule.cycles == 100 + 24 * 10 + schedule.counted
