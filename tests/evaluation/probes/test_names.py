"""How a configuration asks for probes, and what it is told."""

import importlib
from types import SimpleNamespace

import numpy as np
import pytest

from tests.evaluation.probes.features import rows
from vit_jax.errors import ConfigError
from vit_jax.evaluation.probes.base import Features
from vit_jax.evaluation.probes.fewshot import FewShot
from vit_jax.evaluation.probes.knn import Knn
from vit_jax.evaluation.probes.measuring import Bench, make_probe
from vit_jax.evaluation.probes.names import PROBES, parse_probes
from vit_jax.training.config.defaults import default_config
from vit_jax.training.config.load import validate
from vit_jax.training.config.overrides import apply_override

SECTION = SimpleNamespace(neighbours=[3, 5], shots=[2], shots_l2=0.0)


@pytest.mark.parametrize("name", PROBES)
def test_every_name_is_a_probe_of_that_name(name):
    probe = make_probe(name, SECTION, "bfloat16")
    assert probe.name == name
    assert type(probe).__module__ == PROBES[name].partition(":")[0]
    assert importlib.import_module(type(probe).__module__)


def test_settings_come_from_the_configuration():
    assert make_probe("knn", SECTION, "bfloat16") == Knn((3, 5), "bfloat16")
    assert make_probe("fewshot", SECTION, "float32") == FewShot((2,), None)
    defaults = default_config().evaluation
    assert make_probe("knn", defaults, "float32") == Knn()
    assert make_probe("fewshot", defaults, "float32") == FewShot()


def test_intervals():
    assert parse_probes(["knn", "linear: 10 epochs", "rank:5%"], "probes") == {
        "knn": "",
        "linear": "10 epochs",
        "rank": "5%",
    }


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("evaluation.probes=('nn',)", r"evaluation\.probes is 'nn'; .* knn, linear, .* Did you mean 'knn'"),
        ("evaluation.probes=(3,)", r"evaluation\.probes has 3; a probe must be a string"),
        ("evaluation.probes=('knn:',)", r"has 'knn:', which is not an interval; write 'knn:10 epochs'"),
        ("evaluation.probes=('knn:often',)", r"an interval in evaluation\.probes is 'often'; .* '30 epochs'"),
        ("evaluation.probes=('knn', 'knn:5%')", r"evaluation\.probes has 'knn' twice"),
        ("evaluation.neighbours=(0,)", r"evaluation\.neighbours is \(0,\); .* whole numbers"),
        ("evaluation.shots=(1, 1)", r"evaluation\.shots is \(1, 1\); it must be different"),
        ("evaluation.shots=()", r"evaluation\.shots is \(\)"),
        ("evaluation.shots_l2=-1", r"evaluation\.shots_l2 is -1\.0; it must be at least 0"),
    ],
)
def test_what_is_refused(override, expected):
    config = default_config()
    apply_override(config, override)
    with pytest.raises(ConfigError, match=expected):
        validate(config)


def test_a_collapse_is_reported():
    same = Features(np.ones((20, 4), np.float32), np.arange(20) % 2)
    lines = []
    bench = Bench(None, None, None, 2, rows(), lines.append)
    metrics = bench.of_features([make_probe("rank", SECTION, "float32")], same, same)
    assert metrics["feature_std"] == 0
    assert len(lines) == 1
    assert "collapsed" in lines[0]
