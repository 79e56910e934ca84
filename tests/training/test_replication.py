"""The guard against parameters left whole: what it lists, when it refuses, what it advises, what a run tells."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractMesh

from tests.training.test_equivalence import configuration
from tests.training.test_sharding import MIN_SIZE, shapes_of
from vit_jax.errors import ConfigError
from vit_jax.training.devices.mesh import AXES
from vit_jax.training.devices.replication import Whole, check_replicated, left_whole, notes, possible_fsdp
from vit_jax.training.devices.sharding import RULES, placements
from vit_jax.training.experiment import build


def mesh_of(data, fsdp, tensor=1):
    return AbstractMesh((data, fsdp, tensor), AXES)


def leaf(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def test_what_is_left_whole_is_listed_by_size():
    params = {"head": {"kernel": leaf(30, 10)}, "patch_embed": {"kernel": leaf(2, 2, 3, 50)}}
    params |= {"pos_embed": leaf(1, 7, 100), "neck": {"fc": {"kernel": leaf(16, 16)}}}
    total = 4 * (300 + 600 + 700 + 256)
    placed = placements(params, mesh_of(1, 16), RULES, min_size=16)
    # pos_embed is whole because the rule says so: that is a decision.
    assert left_whole(params, placed, 16) == [
        Whole("patch_embed/kernel", (2, 2, 3, 50), 2400, 2400 / total),
        Whole("head/kernel", (30, 10), 1200, 1200 / total),
    ]
    assert [one.path for one in left_whole(params, placed, 400)] == ["patch_embed/kernel"]
    assert left_whole(params, placed, 2000) == []


def test_the_error_names_tensors_bytes_and_sizes_that_work():
    giant = shapes_of("giant")
    with pytest.raises(ConfigError) as error:
        check_replicated(giant, mesh_of(1, 256), RULES, MIN_SIZE, 0.02)
    message = str(error.value)
    assert "\n" not in message
    qkv, out = 40 * 1408 * 3 * 1408 * 4, 40 * 1408 * 1408 * 4
    assert message.startswith("mesh.fsdp=256 leaves 31.")
    assert (
        "of parameter bytes replicated on every device, more than sharding.max_replicated 0.02: "
        f"blocks/attn/qkv/kernel (40, 1408, 3, 16, 88) {qkv:,} bytes, "
        f"blocks/attn/out/kernel (40, 16, 88, 1408) {out:,} bytes, "
    ) in message
    assert message.endswith(
        "mesh.fsdp may be 2, 4, 8, 16, 32, 64 or 128 here, for example data=2 fsdp=128 tensor=1, or raise "
        "sharding.max_replicated."
    )
    check_replicated(giant, mesh_of(2, 128), RULES, MIN_SIZE, 0.02)
    check_replicated(giant, mesh_of(1, 256), RULES, MIN_SIZE, 0.4)
    check_replicated(giant, mesh_of(256, 1), RULES, MIN_SIZE, 0.0)


@pytest.mark.parametrize(
    ("model", "devices", "largest"),
    # What divides the width: 192 = 64 * 3, 384 = 128 * 3, 1152 = 128 * 9, 1408 = 128 * 11, 1664 = 128 * 13.
    [
        ("tiny", 512, 64),
        ("small", 512, 128),
        ("so400m", 512, 128),
        ("giant", 512, 128),
        ("gigantic", 512, 128),
    ],
)
def test_the_largest_size_that_works(model, devices, largest):
    sizes = possible_fsdp(shapes_of(model), mesh_of(1, devices), RULES, MIN_SIZE, 0.02)
    assert sizes == [2**power for power in range(1, largest.bit_length())]


def test_a_rule_that_forgets_fsdp_is_found():
    rules = (("blocks/", "stacked"), *RULES)
    with pytest.raises(ConfigError, match=r"no other mesh.fsdp helps here; add rules with fsdp"):
        check_replicated(shapes_of("base"), mesh_of(1, 8), rules, MIN_SIZE, 0.02)
    whole = (("blocks/", "replicate"), *RULES)
    check_replicated(shapes_of("base"), mesh_of(1, 8), whole, MIN_SIZE, 0.02)


def test_notes_are_few_and_only_where_something_fell_back():
    so400m = shapes_of("so400m")
    assert notes(so400m, placements(so400m, mesh_of(8, 1), RULES, MIN_SIZE)) == []
    told = notes(so400m, placements(so400m, mesh_of(1, 32), RULES, MIN_SIZE))
    assert told[0] == (
        "sharding: blocks/mlp/fc1/kernel (27, 1152, 4304): 4304 is not divisible by fsdp=32, 1152 sharded instead"
    )
    assert len(told) < 6
    tiny = shapes_of("tiny")
    told = notes(tiny, placements(tiny, mesh_of(1, 5, 5), RULES, 0))
    assert len(told) == 6
    assert told[-1].startswith("sharding: and ")


def test_a_run_is_refused_before_anything_is_compiled_and_tells_what_fell_back():
    config = configuration("plain", (1, 8, 1))
    config.model.update(width=24, mlp_dim=20, heads=2)
    config.sharding.max_replicated = 0.1
    experiment = build(config)
    assert "sharding: blocks/mlp/fc1/bias (1, 20): 20 is not divisible by fsdp=8, replicated" in (
        experiment.devices.notes
    )
    config.model.update(width=20)
    config.sharding.max_replicated = 0.02
    with pytest.raises(
        ConfigError, match=r"mesh.fsdp=8 leaves .* replicated .* mesh.fsdp may be 2 or 4 here"
    ):
        build(config)
    config.sharding.max_replicated = 1.0
    assert build(config).devices.notes
    assert build(configuration("plain", (8, 1, 1))).devices.notes == ()
