"""`vit-jax benchmark`: what it measures is measured as said, and what it prints is what it measured."""

import json

import jax
import numpy as np
import pytest

from tests.tiny import TINY, tiny
from vit_jax.cli import main
from vit_jax.errors import ResourceError
from vit_jax.models.flops import forward_flops, training_flops
from vit_jax.planning import measurement
from vit_jax.planning.measurement import measure_prediction, measure_training

OPTIONS = ["--image-size", "32", "--classes", "5", "--seconds", "0.01"]


@pytest.fixture
def clock(monkeypatch):
    """A run that takes one second more than the one before, but for compiling."""
    now = [0.0, 0.0]

    def perf_counter():
        now[1] += 0.5
        now[0] += now[1]
        return now[0]

    monkeypatch.setattr(measurement.time, "perf_counter", perf_counter)


def test_prediction():
    one, four = measure_prediction(TINY, [1, 4], seconds=0.01)
    assert (one.batch_size, four.batch_size) == (1, 4)
    assert one.runs >= measurement.FEWEST_FOR_LATENCY or one.p99_milliseconds is None
    assert four.runs >= measurement.FEWEST_RUNS
    for row in (one, four):
        seconds = row.milliseconds / 1e3
        assert row.images_per_second == pytest.approx(row.batch_size / seconds)
        assert row.flops_per_second == pytest.approx(row.batch_size * forward_flops(TINY) / seconds)
        assert (row.mfu, row.compile_seconds > 0) == (None, True)
    assert four.bytes > one.bytes


def test_storage_shows_in_the_bytes():
    config = tiny(width=128, mlp_dim=512)
    whole, quarter = (
        measure_prediction(config, [1], storage=s, seconds=0.01)[0] for s in ("float32", "int8")
    )
    assert quarter.bytes < 0.6 * whole.bytes


def test_training():
    (row,) = measure_training(TINY, [2], seconds=0.01)
    assert row.flops_per_second == pytest.approx(2 * training_flops(TINY) / (row.milliseconds / 1e3))
    params = 4 * sum(
        leaf.size for leaf in jax.tree.leaves(measurement._shapes(measurement._classifier(TINY)))
    )
    assert row.bytes > 3 * params  # with both moments


def test_how_long_and_which_percentile(clock):
    times = measurement._timed(lambda: None, 5.0, 0.0)
    assert len(times) >= measurement.FEWEST_RUNS
    assert sum(times) >= 5
    assert sum(times[:-1]) < 5 or len(times) == measurement.FEWEST_RUNS
    patient = measurement._timed(lambda: None, 1e-9, 1e9)
    assert len(patient) == measurement.FEWEST_FOR_LATENCY


def test_too_large_a_batch_is_told(monkeypatch):
    def exhausted(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes")

    with pytest.raises(ResourceError, match=r"^batch size 7 is too large for this device's memory"):
        measurement._measured(7, exhausted, 1, 1.0)

    def broken(*_):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")

    with pytest.raises(jax.errors.JaxRuntimeError):
        measurement._measured(7, broken, 1, 1.0)


def test_the_command(capsys):
    assert main(["benchmark", "vit_mu_patch16_224", "--batch-sizes", "1,2", *OPTIONS]) == 0
    about, header, *rows = capsys.readouterr().out.splitlines()
    assert about.startswith("vit_mu_patch16_224, 32x32, prediction in float32; ")
    assert header.split()[:2] == ["batch", "images/s"]
    assert [row.split()[0] for row in rows] == ["1", "2"]
    arguments = ["benchmark", "vit_mu_patch16_224", "--batch-sizes", "2", "--storage", "int8", "--json"]
    assert main([*arguments, *OPTIONS]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["storage"], report["what"], report["jax"]) == ("int8", "prediction", jax.__version__)
    (row,) = report["rows"]
    assert np.isfinite(row["milliseconds"])
    arguments = ["benchmark", "vit_mu_patch16_224", "--batch-sizes", "2", "--train", "--max-patches", "4"]
    assert main([*arguments, *OPTIONS]) == 0
    assert ", up to 4 patches, training step in float32" in capsys.readouterr().out
