"""Every objective of the options is built by its name and keeps the protocol."""

import inspect

import pytest

from tests.tiny import TINY
from vit_jax.objectives.base import DataInfo, Objective
from vit_jax.objectives.options import OBJECTIVES, parse_options
from vit_jax.objectives.registry import build_objective

METHODS = ("init", "prepare", "loss", "after_update", "evaluate", "evaluate_rows", "illustrate")


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_is_built_and_keeps_the_protocol(name):
    objective = build_objective(parse_options({"name": name}), TINY, DataInfo(5))
    assert type(objective).__module__ == f"vit_jax.objectives.{name}.objective"
    assert set(objective.metric_modes.values()) <= {"max", "min"}
    assert objective.monitor in objective.metric_modes
    assert objective.train_flops > 0
    assert objective.class_names in ((), tuple("01234"))
    assert objective.model.width == TINY.width
    for method in METHODS:
        ours = inspect.signature(getattr(type(objective), method))
        assert list(ours.parameters) == list(inspect.signature(getattr(Objective, method)).parameters)


def test_objectives_of_the_same_settings_are_equal():
    for name in OBJECTIVES:
        one, other = (build_objective(parse_options({"name": name}), TINY, DataInfo(5)) for _ in range(2))
        assert one == other
