"""Every objective of the options is built by its name and keeps the protocol."""

import inspect

import pytest

from tests.tiny import TINY
from vit_jax.objectives.base import DataInfo, Objective
from vit_jax.objectives.options import OPTIONS
from vit_jax.objectives.registry import build_objective

METHODS = ("init", "prepare", "loss", "after_update", "evaluate", "illustrate")


@pytest.mark.parametrize("name", OPTIONS)
def test_every_objective_is_built_and_keeps_the_protocol(name):
    objective = build_objective(OPTIONS[name](), TINY, DataInfo(5))
    assert type(objective).__module__ == f"vit_jax.objectives.{name}"
    assert isinstance(objective.monitor, str)
    assert objective.monitor_mode in ("max", "min")
    assert objective.train_flops > 0
    assert objective.model.width == TINY.width
    for method in METHODS:
        ours = inspect.signature(getattr(type(objective), method))
        assert list(ours.parameters) == list(inspect.signature(getattr(Objective, method)).parameters)


def test_objectives_of_the_same_settings_are_equal():
    for options in OPTIONS.values():
        one, other = (build_objective(options(), TINY, DataInfo(5)) for _ in range(2))
        assert one == other
