"""Schedules: timm's numbers, the published formulas, both ends, and impossible requests."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.errors import ConfigError
from vit_jax.training.config import durations
from vit_jax.training.schedule import NAMES, late_schedules, make_schedule

REFERENCES = pathlib.Path(__file__).parents[1] / "reference"
REFERENCE = REFERENCES / "aux_schedules_optim.npz"


def _section(**changes):
    section = dict(name="cosine", warmup=0, warmup_start=0.0, cooldown=0, final=0.0, timescale=10_000)
    section |= dict(power=1.0, milestones=(), factor=0.1)
    return section | changes


def _make(total_steps, peak=1e-3, **changes):
    resolve = functools.partial(durations.steps, batch_size=10, examples=100, total_steps=total_steps)
    return make_schedule(_section(**changes), peak, total_steps, resolve)


def _rates(total_steps, steps=None, **kwargs):
    schedule = _make(total_steps, **kwargs)
    return np.array([schedule(step) for step in range(total_steps + 1 if steps is None else steps)])


def test_cosine_is_timms_with_warmup_prefix():
    with np.load(REFERENCE) as case:
        expected = case["out.sched.cosine_w5_prefix"]
    # timm counts the 30 steps of the cosine without the 5 of the warmup.
    rates = _rates(35, warmup=5, warmup_start=1e-6 / 1e-3, final=1e-5 / 1e-3, steps=35)
    np.testing.assert_allclose(rates, expected, rtol=2e-6)


def test_cosine_without_prefix_is_cut_off_by_the_warmup():
    with np.load(REFERENCE) as case:
        expected = case["out.sched.cosine_w5"]
    # timm's default runs the cosine from step 0 and hides its beginning behind the warmup: a jump, not ours.
    rates = _rates(30, final=1e-5 / 1e-3, steps=35)
    np.testing.assert_allclose(rates[5:], expected[5:], rtol=2e-6)


def test_rsqrt_is_big_visions():
    rates = _rates(1000, name="rsqrt", warmup=100, cooldown=200, timescale=50)
    steps = np.arange(1001)
    expected = 1e-3 / np.sqrt(1 + np.maximum(steps - 100, 0) / 50)
    expected *= np.minimum(1, steps / 100) * np.minimum(1, (1000 - steps) / 200)
    np.testing.assert_allclose(rates, expected, rtol=1e-6)


def test_linear():
    rates = _rates(10, name="linear", peak=1.0, warmup=2, warmup_start=0.5, final=0.2)
    np.testing.assert_allclose(rates, [0.5, 0.75, 1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2], rtol=1e-6)


# The reference of these is rounded to six digits behind the point.
ROUNDED = dict(rtol=0, atol=5.1e-7)


@pytest.mark.parametrize(
    ("case", "first", "options"),
    [
        ("torch_poly.p1_T30", 0, dict(name="poly")),
        ("torch_poly.p.9_T30", 0, dict(name="poly", power=0.9)),
        ("poly_min.p.9_T30", 0, dict(name="poly", power=0.9, final=0.01)),
        # timm's default hides the beginning of the shape behind the warmup.
        ("timm_poly.p.5_T30_w5", 5, dict(name="poly", power=0.5, final=0.001)),
        ("torch_multistep.10_25_x.1", 0, dict(name="steps", milestones=(10, 25))),
        (
            "steps_linear_warmup.4_x.001",
            0,
            dict(name="steps", milestones=(10, "25 steps"), warmup=4, warmup_start=1e-3),
        ),
        # timm counts from the end of the warmup, and one step early.
        (
            "timm_multistep.10_25_x.1_w5",
            0,
            dict(name="steps", milestones=(10 - 1 + 5, 25 - 1 + 5), warmup=5, warmup_start=1e-4),
        ),
    ],
)
def test_powers_and_milestones_are_those_of_torch_and_timm(case, first, options):
    with np.load(REFERENCES / "aux_muon_schedules.npz") as cases:
        expected = cases[f"out.{case}"]
    rates = _rates(30, peak=1e-2, steps=len(expected), **options)
    np.testing.assert_allclose(rates[first:], expected[first:], **ROUNDED)


def test_a_backbone_starts_after_its_head():
    resolve = functools.partial(durations.steps, batch_size=10, examples=100, total_steps=40)
    section = _section(name="poly", power=0.9, warmup=6)
    ((pattern, backbone),) = late_schedules(
        (("^encoder/", "6 steps", "9 steps"),), section, 1e-4, 40, resolve
    )
    assert pattern == "^encoder/"
    with np.load(REFERENCES / "aux_muon_schedules.npz") as cases:
        head, late = (cases[f"out.two_stage_warmup_poly.{part}"] for part in ("head", "backbone"))
    usual = make_schedule(section, 1e-4, 40, resolve)
    np.testing.assert_allclose([usual(step) for step in range(40)], head, **ROUNDED)
    rates = np.array([backbone(step) for step in range(40)])
    np.testing.assert_allclose(rates, late, **ROUNDED)
    assert not rates[:7].any()
    ((_, joining),) = late_schedules((("head", "6 steps", None),), section, 1e-4, 40, resolve)
    rates = [joining(step) for step in range(40)]
    np.testing.assert_allclose(rates, [0.0] * 6 + [usual(step) for step in range(6, 40)])
    ((_, alike),) = late_schedules((("head", "25%"),), section, 1.0, 40, resolve)  # its own warmup, as long
    np.testing.assert_allclose([alike(10 + step) for step in range(7)], np.arange(7) / 6, rtol=1e-6)


def test_constant_with_cooldown_to_a_share():
    rates = _rates(6, name="constant", peak=2.0, cooldown=4, final=0.5)
    np.testing.assert_allclose(rates, [2, 2, 2, 1.75, 1.5, 1.25, 1], rtol=1e-6)


@pytest.mark.parametrize(
    "name", sorted({*NAMES} - {"steps"})
)  # which jumps, and is compared with torch above
def test_ends_and_continuity(name):
    rates = _rates(200, name=name, warmup="10%", warmup_start=0.1, cooldown="25%", final=0.01, steps=260)
    np.testing.assert_allclose(rates[[0, 20]], [1e-4, 1e-3], rtol=1e-6)
    np.testing.assert_allclose(rates[200:], 1e-5, rtol=1e-5)
    assert np.abs(np.diff(rates)).max() < 1e-3 / 20  # no step larger than the warmup's
    assert rates.argmax() == 20


@pytest.mark.parametrize("name", NAMES)
def test_under_jit(name):
    milestones = (8, 12) if name == "steps" else ()
    schedule = _make(20, name=name, warmup=4, cooldown=4, milestones=milestones)
    steps = jnp.arange(22)
    together = jax.jit(schedule)(steps)
    assert together.dtype == jnp.float32
    # Float32 rounding, as XLA orders the arithmetic of a vector otherwise; rates of the last step may be 0.
    np.testing.assert_allclose(together, [schedule(step) for step in range(22)], rtol=1e-6, atol=1e-12)


def test_a_run_without_steps():
    assert _make(0)(0) == np.float32(1e-3)
    assert _rates(4, warmup=4)[-1] == np.float32(1e-3)  # all warmup


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(name="cosin"), "schedule.name is 'cosin'.*Did you mean 'cosine'"),
        (dict(warmup=15, cooldown=6), "15 steps and schedule.cooldown 6, but the run has only 20"),
        (dict(warmup="3 minutes"), "schedule.warmup is '3 minutes'"),
        (dict(name="rsqrt", timescale=0), "schedule.timescale is 0"),
        (dict(name="constant", final=0.1), "schedule.final is 0.1, but constant"),
        (dict(name="steps"), r"schedule.milestones is \(\) and schedule.name 'steps'; name them"),
        (dict(milestones=(5,)), "schedule.name 'cosine'; milestones are for schedule.name 'steps'"),
        (
            dict(name="steps", milestones=(5, "10%")),
            "steps 5, 2; they must be in ascending order, within the 20 steps",
        ),
        (
            dict(name="steps", milestones=(5, 21)),
            "steps 5, 21; they must be in ascending order, within the 20 steps",
        ),
    ],
)
def test_impossible(changes, message):
    with pytest.raises(ConfigError, match=message):
        _make(20, **changes)
