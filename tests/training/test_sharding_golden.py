"""Where every parameter and moment of ViT-L/16, g/14 and G/14 lies, against tables in `golden/`.

A change of the rules shows as a change of the tables. `python -m tests.training.test_sharding_golden` writes them anew.
"""

import json
from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractMesh

from vit_jax.models.registry import model_config
from vit_jax.objectives.base import DataInfo
from vit_jax.objectives.options import parse_options
from vit_jax.objectives.registry import build_objective
from vit_jax.training.config import default_config
from vit_jax.training.devices.mesh import AXES
from vit_jax.training.devices.sharding import RULES, divided_specs, parameter_specs, state_shardings
from vit_jax.training.optimizer import make_optimizer
from vit_jax.training.state import init_state
from vit_jax.trees import flatten

GOLDEN = Path(__file__).parent / "golden"
FILES = {"ViT-L/16": "vit_l16.json", "ViT-g/14": "vit_giant14.json", "ViT-G/14": "vit_gigantic14.json"}
MESHES = {  # sizes of data, fsdp, tensor; whether ZeRO-1
    "data=16 fsdp=16": ((16, 16, 1), False),
    "fsdp=64": ((1, 64, 1), False),
    "data=4 fsdp=16 tensor=4": ((4, 16, 4), False),
    "data=8 fsdp=16 zero1": ((8, 16, 1), True),
}


@cache
def state_of(model):
    """The abstract state of a model with AdamW."""
    config = default_config()
    objective = build_objective(
        parse_options(config.objective.to_dict()), model_config(model), DataInfo(1000)
    )
    params = jax.eval_shape(objective.init, jax.random.key(0))[0]
    optimizer = make_optimizer(config.optimizer, lambda step: jnp.float32(1.0), params)
    return jax.eval_shape(partial(init_state, objective, optimizer, 0, False))


def table(model, sizes, zero1):
    """`{path: "1024/fsdp 3 16/tensor 64"}`: the size of each dimension, and what it is divided over."""
    state, mesh = state_of(model), AbstractMesh(sizes, AXES)
    known = state.params, mesh, RULES, default_config().sharding.min_size
    divided = divided_specs(*known) if zero1 else None
    placed = flatten(state_shardings(state, parameter_specs(*known), mesh, divided))

    def text(shape, spec):
        axes = [(entry,) if isinstance(entry, str) else entry or () for entry in spec]
        axes += [()] * (len(shape) - len(axes))
        return " ".join("/".join(map(str, (size, *names))) for size, names in zip(shape, axes)) or "scalar"

    return {path: text(leaf.shape, placed[path].spec) for path, leaf in flatten(state).items()}


def tables(model):
    return {mesh: table(model, *how) for mesh, how in MESHES.items()}


@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize("model", FILES)
def test_as_written_down(model, mesh):
    golden = json.loads((GOLDEN / FILES[model]).read_text())
    assert golden.keys() == MESHES.keys()
    assert table(model, *MESHES[mesh]) == golden[mesh]


def test_by_hand():
    """The tables are not only what the code says of itself."""
    giant = json.loads((GOLDEN / FILES["ViT-g/14"]).read_text())
    qkv = {mesh: entries["params/blocks/attn/qkv/kernel"] for mesh, entries in giant.items()}
    assert qkv == {
        "data=16 fsdp=16": "40 1408/fsdp 3 16 88",
        "fsdp=64": "40 1408/fsdp 3 16 88",
        "data=4 fsdp=16 tensor=4": "40 1408/fsdp 3 16/tensor 88",
        "data=8 fsdp=16 zero1": "40 1408/fsdp 3 16 88",
    }
    zero1 = giant["data=8 fsdp=16 zero1"]
    moments = {path: entry for path, entry in zero1.items() if path.endswith("/mu/blocks/attn/qkv/kernel")}
    assert list(moments.values()) == ["40 1408/fsdp 3 16 88/data"]
    for path, entry in zero1.items():
        assert ("data" in entry) <= path.startswith("opt_state/"), path
    # 99 % of the moments are divided by all devices: the rest is smaller than min_size.
    whole = divided = 0
    for path, entry in zero1.items():
        if path.startswith("opt_state/"):
            size = 1
            for dim in entry.replace("scalar", "1").split():
                size *= int(dim.split("/")[0])
            whole += size
            divided += size * ("data" in entry and "fsdp" in entry)
    assert divided / whole > 0.99


if __name__ == "__main__":
    for name, file in FILES.items():
        (GOLDEN / file).write_text(json.dumps(tables(name), indent=1) + "\n")
