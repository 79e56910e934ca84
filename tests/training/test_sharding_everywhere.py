"""Shipped models are counted as they are; they and all configurations have valid specs on 8 to 512 devices."""

import functools
import math

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractMesh

import vit_jax
from tests.test_configs import CASES, load
from tests.training.test_sharding import EVERYTHING
from vit_jax import trees
from vit_jax.errors import ConfigError
from vit_jax.models.families import families, sharding_rules
from vit_jax.models.flops import parameter_count
from vit_jax.models.layers.lora import Lora
from vit_jax.models.names import resolve as names
from vit_jax.models.registry import model_functions
from vit_jax.objectives.adapted import Adapted
from vit_jax.objectives.base import DataInfo
from vit_jax.objectives.options import parse_options
from vit_jax.objectives.registry import build_objective
from vit_jax.training.config.model import resolve_model
from vit_jax.training.devices.mesh import AXES
from vit_jax.training.devices.replication import check_replicated, left_whole
from vit_jax.training.devices.sharding import (
    RULES,
    divided_specs,
    parameter_specs,
    placements,
    state_shardings,
)
from vit_jax.training.optimizer import make_optimizer
from vit_jax.training.state import init_state

MIN_SIZE = 2**18
EVERY_RULE = (*(rule for family in families() for rule in family.rules), *RULES)
DEVICES = (8, 16, 64, 512)  # whose meshes have every pair of fsdp and tensor that those of fewer have


def meshes(devices):
    powers = [2**power for power in range(devices.bit_length())]
    return [
        AbstractMesh((devices // fsdp // tensor, fsdp, tensor), AXES)
        for fsdp in powers
        for tensor in powers
        if fsdp * tensor <= devices
    ]


def shapes_only(abstract):
    return tuple((path, leaf.shape) for path, leaf in trees.flatten(abstract).items())


def distinct(named):
    """Of models whose parameters have the same names and shapes, the last."""
    return dict({shapes_only(tree): (name, tree) for name, tree in named}.values())


@functools.cache
def listed():
    """Configuration and parameters of each name."""
    configs = {name: names.resolve(name)[1] for name in vit_jax.list_models()}
    with pytest.MonkeyPatch.context() as patch:
        for drawn in (
            "normal",
            "uniform",
        ):  # of which nothing is asked but the shape; tracing them takes half
            patch.setattr(
                jax.random,
                drawn,
                lambda key, shape=(), dtype=float, *limits, **named: jnp.zeros(shape, dtype),
            )
        return {
            name: (config, model_functions.__wrapped__(config).abstract) for name, config in configs.items()
        }


@functools.cache
def models():
    found = [(name, abstract) for name, (_, abstract) in listed().items()]
    return distinct([*found, ("everything", model_functions(EVERYTHING).abstract)])


@functools.cache
def parameters():
    """All parameters of all models as flat trees, those of the same name and shape once: nothing else places them."""
    trees_of, seen = [], {}
    for abstract in models().values():
        for path, leaf in trees.flatten(abstract).items():
            shapes = seen.setdefault(path, [])
            if leaf.shape not in shapes:
                if len(shapes) == len(trees_of):
                    trees_of.append({})
                trees_of[len(shapes)][path] = leaf
                shapes.append(leaf.shape)
    return trees_of


@functools.cache
def states():
    """Flat abstract states of all configurations, all with a moving average, and their rules."""
    found, rules = [], {}
    for case in CASES:
        config = load(case)
        model, _ = resolve_model(config.model)
        # Weights of classes say how many there are of them; nothing else does without the data.
        classes = len(config.objective.get("class_weights", ())) or model.num_classes
        objective = build_objective(parse_options(config.objective.to_dict()), model, DataInfo(classes))
        if config.lora.rank:
            objective = Adapted(objective, Lora(**config.lora.to_dict()))
        params = jax.eval_shape(objective.init, jax.random.key(0))[0]
        optimizer = make_optimizer(config.optimizer, lambda _: jnp.float32(1), params, objective.network)
        state = jax.eval_shape(functools.partial(init_state, objective, optimizer, 0, True))
        found.append((case, state))
        rules[case] = (*sharding_rules(objective.network), *RULES)
    return {case: (trees.flatten(state), rules[case]) for case, state in distinct(found).items()}


def check(specs, shapes, sizes):
    """Every axis is used at most once, dimensions divide, and that of the blocks is whole."""
    for path, spec in specs.items():
        shape = shapes[path]
        used = []
        for entry, size in zip(spec, shape):
            axes = (entry,) if isinstance(entry, str) else entry or ()
            assert size % math.prod(sizes[axis] for axis in axes) == 0, (path, spec, sizes)
            used += axes
        assert len(spec) <= len(shape), (path, spec)
        assert len(set(used)) == len(used), (path, spec)
        assert "blocks/" not in path or not spec or spec[0] is None, (path, spec)


def test_all_models_and_configs_are_here():
    assert len(vit_jax.list_models()) > 190
    assert len(models()) > 50
    assert {name.split(".")[0] for name in states()} >= {"mae_i1k", "augreg", "finetune", "vit_g_jft_style"}


def test_every_model_is_counted_as_it_is():
    for name, (config, abstract) in listed().items():
        assert trees.count(abstract) == parameter_count(config), name


@pytest.mark.parametrize("devices", DEVICES)
def test_every_model(devices):
    for flat in parameters():
        shapes = {path: leaf.shape for path, leaf in flat.items()}
        for mesh in meshes(devices):
            placed = placements(flat, mesh, EVERY_RULE, MIN_SIZE)
            assert placed.keys() == shapes.keys()
            check({path: one.spec for path, one in placed.items()}, shapes, mesh.shape)
            divided = divided_specs(flat, mesh, EVERY_RULE, MIN_SIZE)
            check(divided, shapes, mesh.shape)
            for path, (spec, notes, tactic) in placed.items():
                small = flat[path].size < MIN_SIZE
                assert set(spec) <= {None, "fsdp", "tensor"}
                assert not (small and "fsdp" in spec)
                # Nothing large is left whole in silence.
                if not small and mesh.shape["fsdp"] > 1 and "fsdp" in tactic and "fsdp" not in spec:
                    assert "replicated" in notes[-1], (path, shapes[path])
                if small or mesh.shape["data"] == 1:
                    assert divided[path] == spec


@pytest.mark.parametrize("devices", DEVICES)
def test_every_config(devices):
    for state, rules in states().values():
        shapes = {path: leaf.shape for path, leaf in state.items()}
        params = {
            path.removeprefix("params/"): leaf for path, leaf in state.items() if path.startswith("params/")
        }
        for mesh in meshes(devices):
            specs = parameter_specs(params, mesh, rules, MIN_SIZE)
            divided = divided_specs(params, mesh, rules, MIN_SIZE)
            placed = state_shardings(state, specs, mesh, divided)
            check({path: sharding.spec for path, sharding in placed.items()}, shapes, mesh.shape)
            for path, spec in specs.items():
                assert placed[f"params/{path}"].spec == spec
                assert placed[f"ema/{path}"].spec == divided[path]


@pytest.mark.parametrize("fsdp", [2, 4, 8])
def test_the_guard_lets_every_model_pass_on_small_meshes(fsdp):
    mesh = AbstractMesh((1, fsdp, 1), AXES)
    for abstract in models().values():
        check_replicated(abstract, mesh, EVERY_RULE, MIN_SIZE, 0.02)


def test_the_guard_refuses_what_is_left_whole_and_nothing_else():
    refused = set()
    for name, abstract in models().items():
        leaves = trees.flatten(abstract)
        total = sum(leaf.size for leaf in leaves.values())
        for fsdp in (64, 256):
            mesh = AbstractMesh((1, fsdp, 1), AXES)
            placed = placements(abstract, mesh, EVERY_RULE, MIN_SIZE)
            whole = sum(leaves[one.path].size for one in left_whole(abstract, placed, MIN_SIZE)) / total
            try:
                check_replicated(abstract, mesh, EVERY_RULE, MIN_SIZE, 0.02)
            except ConfigError:
                refused.add((name, fsdp))
                assert whole > 0.02
            else:
                assert whole <= 0.02
    assert ("vit_giant_patch14_224", 256) in refused
    assert ("vit_gigantic_patch14_224", 256) in refused
    assert not {"vit_giant_patch14_224", "vit_gigantic_patch14_224"} & {
        name for name, fsdp in refused if fsdp == 64
    }
