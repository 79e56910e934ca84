"""Schedules of objectives: ends, middles, what stays before and after, under jit."""

import jax
import numpy as np
import pytest

from vit_jax.objectives.schedules import SCHEDULES, cosine, linear, progress


@pytest.mark.parametrize("name", SCHEDULES)
def test_from_the_first_number_to_the_last_and_no_further(name):
    schedule = SCHEDULES[name]
    values = np.array([schedule(step, 0.9, 0.5, 10, after=4) for step in range(20)])
    np.testing.assert_allclose(values[:5], 0.9, rtol=1e-6)
    np.testing.assert_allclose(values[14:], 0.5, rtol=1e-6)
    np.testing.assert_allclose(values[9], 0.7, rtol=1e-6)
    assert (np.diff(values[4:15]) < 0).all()


def test_a_teachers_momentum_is_dinos():
    # cosine_scheduler(0.996, 1, epochs, iterations) of the DINO repository.
    steps = np.arange(100)
    expected = 1 + 0.5 * (0.996 - 1) * (1 + np.cos(np.pi * steps / len(steps)))
    np.testing.assert_allclose([cosine(step, 0.996, 1.0, 100) for step in steps], expected, rtol=1e-6)


def test_a_temperature_warms_up_and_stays():
    steps = np.arange(8)
    values = jax.jit(lambda steps: linear(steps, 0.04, 0.07, 3))(steps)
    np.testing.assert_allclose(values, [0.04, 0.05, 0.06, 0.07, 0.07, 0.07, 0.07, 0.07], rtol=1e-6)
    assert float(progress(5, 0)) == 1  # a warmup of no steps is over
