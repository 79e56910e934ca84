"""Every objective of the options is built by its name and keeps the protocol."""

import inspect

import pytest

import vit_jax
from tests.tiny import parameters, tiny
from vit_jax.objectives.base import DataInfo, Objective
from vit_jax.objectives.options import OBJECTIVES, options_of, parse_options
from vit_jax.objectives.registry import build_objective
from vit_jax.trees import flatten
from vit_jax.weights.native import save_native

MODEL = tiny(image_size=64)
METHODS = ("init", "prepare", "loss", "after_update", "evaluate", "evaluate_rows", "illustrate")


@pytest.fixture(scope="module")
def needed(tmp_path_factory):
    """What some cannot do without: files of other networks, by the option that names them."""
    folder = tmp_path_factory.mktemp("networks")
    vit_jax.save(
        vit_jax.create_model("vit_mu_patch4_8", width=16, depth=1, heads=2, mlp_dim=32), folder / "vit"
    )
    tokenizer = build_objective(parse_options({"name": "vq_tokenizer"}), MODEL, DataInfo(0)).network
    save_native(folder / "vq", tokenizer, flatten(parameters(tokenizer)), ())
    return {"teachers": str(folder / "vit"), "tokenizer": str(folder / "vq")}


def built(name, needed):
    fields = options_of(name).__dataclass_fields__
    files = {option: file for option, file in needed.items() if option in fields}
    return build_objective(parse_options({"name": name, **files}), MODEL, DataInfo(5))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_is_built_and_keeps_the_protocol(name, needed):
    objective, beside = built(name, needed), options_of(name).__module__.rpartition(".")[0]
    assert type(objective).__module__ == f"{beside}.objective"
    assert set(objective.metric_modes.values()) <= {"max", "min"}
    assert objective.monitor in objective.metric_modes
    assert objective.train_flops > 0
    assert objective.class_names in ((), tuple("01234"))
    assert objective.model.width == MODEL.width
    for method in METHODS:
        ours = inspect.signature(getattr(type(objective), method))
        assert list(ours.parameters) == list(inspect.signature(getattr(Objective, method)).parameters)


def test_objectives_of_the_same_settings_are_equal(needed):
    for name in OBJECTIVES:
        one, other = (built(name, needed) for _ in range(2))
        assert one == other
