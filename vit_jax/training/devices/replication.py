"""A guard: parameters that every device would hold whole although they are to be divided over `fsdp`.

A rule of another model's, or a width that the mesh does not divide, costs no error by itself, only the memory and the
speed that FSDP was chosen for. So what is left whole is listed, and refused above a share of all bytes (the model is
MaxText's `assert_params_sufficiently_sharded`). A tactic `replicate` is a decision, and not counted.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import AbstractMesh, Mesh

from vit_jax import trees
from vit_jax.errors import ConfigError
from vit_jax.training.devices.mesh import AXES
from vit_jax.training.devices.sharding import Placement, Rules, fallbacks, placements

_NAMED = 3  # tensors in an error
_TOLD = 6  # lines of notes


@dataclass(frozen=True)
class Whole:
    """A parameter that every device of the axis `fsdp` holds whole.

    Attributes:
      path, shape: which one.
      bytes: its size.
      share: of the bytes of all parameters.
    """

    path: str
    shape: tuple[int, ...]
    bytes: int
    share: float


def left_whole(abstract_params: Any, placed: Mapping[str, Placement], min_size: int) -> list[Whole]:
    """Return the parameters of at least `min_size` elements that are not divided over `fsdp`, the largest first.

    Args:
      abstract_params: tree of arrays or shapes.
      placed: their `placements` on a mesh; all count where its `fsdp` is 1.
      min_size: as there.
    """
    leaves = trees.flatten(abstract_params)
    total = sum(_bytes(leaf) for leaf in leaves.values())
    found = [
        Whole(path, tuple(leaf.shape), _bytes(leaf), _bytes(leaf) / total)
        for path, leaf in leaves.items()
        if leaf.size >= min_size
        and "fsdp" not in placed[path].spec
        and "replicate" not in placed[path].tactic.split()
    ]
    return sorted(found, key=lambda whole: -whole.bytes)


def check_replicated(
    abstract_params: Any,
    mesh: Mesh | AbstractMesh,
    rules: Rules,
    min_size: int,
    max_replicated: float,
) -> None:
    """Raise `ConfigError` if more than a share of all parameter bytes is left whole on a mesh with `fsdp`.

    Args:
      abstract_params: tree of arrays or shapes.
      mesh: the mesh.
      rules, min_size: as for `placements`.
      max_replicated: the share that is tolerated.
    """
    if mesh.shape["fsdp"] == 1:
        return
    whole = left_whole(abstract_params, placements(abstract_params, mesh, rules, min_size), min_size)
    share = sum(one.share for one in whole)
    if share <= max_replicated:
        return
    named = ", ".join(f"{one.path} {one.shape} {one.bytes:,} bytes" for one in whole[:_NAMED])
    named += f" and {len(whole) - _NAMED} more" * (len(whole) > _NAMED)
    sizes = possible_fsdp(abstract_params, mesh, rules, min_size, max_replicated)
    if sizes:
        best, tensor = sizes[-1], mesh.shape["tensor"]
        choice = " or ".join(filter(None, [", ".join(map(str, sizes[:-1])), str(best)]))
        remedy = (
            f"mesh.fsdp may be {choice} here, for example data={mesh.size // best // tensor} fsdp={best} "
            f"tensor={tensor}"
        )
    else:
        remedy = "no other mesh.fsdp helps here; add rules with fsdp for these parameters to sharding.rules"
    raise ConfigError(
        f"mesh.fsdp={mesh.shape['fsdp']} leaves {share:.1%} of parameter bytes replicated on every device, more than "
        f"sharding.max_replicated {max_replicated:g}: {named}; {remedy}, or raise sharding.max_replicated."
    )


def possible_fsdp(
    abstract_params: Any,
    mesh: Mesh | AbstractMesh,
    rules: Rules,
    min_size: int,
    max_replicated: float,
) -> list[int]:
    """Return the sizes of `fsdp` above 1 with which `check_replicated` is content, on as many devices, in order."""
    tensor = mesh.shape["tensor"]
    rows = mesh.size // tensor
    possible = []
    for fsdp in (size for size in range(2, rows + 1) if rows % size == 0):
        other = AbstractMesh((rows // fsdp, fsdp, tensor), AXES)
        placed = placements(abstract_params, other, rules, min_size)
        if sum(one.share for one in left_whole(abstract_params, placed, min_size)) <= max_replicated:
            possible.append(fsdp)
    return possible


def notes(abstract_params: Any, placed: Mapping[str, Placement]) -> list[str]:
    """Return what to tell when a run begins: the dimensions that should have been divided and could not, if any."""
    lines = fallbacks(abstract_params, placed)
    if len(lines) > _TOLD:
        lines = [*lines[: _TOLD - 1], f"and {len(lines) - _TOLD + 1} more"]
    return [f"sharding: {line}" for line in lines]


def _bytes(leaf: Any) -> int:
    return math.prod(leaf.shape) * jax.numpy.dtype(leaf.dtype).itemsize
