"""Durations: every form, rounding, and what a mistake says."""

import subprocess
import sys

import pytest

from vit_jax.errors import ConfigError
from vit_jax.training.config import durations


def _steps(value, batch_size=64, examples=1000, total_steps=400):
    return durations.steps(
        value, batch_size=batch_size, examples=examples, total_steps=total_steps, name="schedule.warmup"
    )


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (500, 500),
        (1e4, 10_000),
        ("500", 500),
        (" 500 steps ", 500),
        ("1 step", 1),
        ("1e3 steps", 1000),
        ("0", 0),
        ("30 epochs", 469),  # 468.75
        ("1 epoch", 16),  # 15.625
        ("1.5 Epochs", 23),  # 23.4375
        ("1e6 examples", 15_625),
        ("1 example", 1),  # never less than a step unless zero
        ("0.001 epochs", 1),
        ("0 epochs", 0),
        ("5%", 20),
        ("100 %", 400),
        ("0.01%", 1),
        ("0%", 0),
    ],
)
def test_forms(value, expected):
    durations.check(value, "schedule.warmup")
    assert _steps(value) == expected


@pytest.mark.parametrize(
    "value", ["", "ten steps", "5 minutes", "-3", "-3 epochs", "3 4", "5%%", None, True, -1, 1.5, "2.5 steps"]
)
def test_not_a_duration(value):
    with pytest.raises(ConfigError, match=r"^schedule\.warmup is ") as caught:
        _steps(value)
    assert repr(value) in str(caught.value)
    with pytest.raises(ConfigError):
        durations.check(value, "schedule.warmup")


@pytest.mark.parametrize("value", [float("inf"), float("nan"), "1e400 steps", "1e400 epochs"])
def test_not_finite(value):
    with pytest.raises(ConfigError, match=r"schedule\.warmup"):
        _steps(value)


def test_message_names_the_allowed_forms():
    with pytest.raises(ConfigError, match=r"'30 epochs'.*or '5%'"):
        durations.check("5 minutes", "schedule.warmup")


def test_share_of_nothing():
    with pytest.raises(ConfigError, match="duration is '5%', but a percentage"):
        durations.steps("5%", batch_size=8, examples=100, name="duration")
    with pytest.raises(ConfigError, match="duration"):
        durations.check("5%", "duration", percent=False)
    with pytest.raises(ConfigError, match="at most 100%"):
        _steps("101%")


def test_epochs_of_endless_data():
    with pytest.raises(ConfigError, match="endless"):
        _steps("3 epochs", examples=None)
    assert _steps("640 examples", examples=None) == 10


def test_needs_no_jax():
    code = "import sys; import vit_jax.training.config.durations; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
