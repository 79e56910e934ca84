"""Where parameters and what belongs to them lie on the mesh: an ordered table of (pattern, tactic).

The first pattern found in a parameter's path (`re.search`) decides. A tactic is words from left to right:

- `replicate`: nothing is divided.
- `stacked`: the first dimension counts blocks; it is never divided, as the scan over depth takes it apart.
- `tensor(i)`: dimension `i` is divided over the mesh axis `tensor`, or not at all if it does not divide.
- `fsdp`: the largest dimension that is still free and divides is divided over the mesh axis `fsdp` (the first
  of equals). Tensors of fewer than `min_size` elements stay whole: gathering them costs more than it saves.

So a weight is gathered where it is used and each device keeps its share of weights, gradients and optimizer
state (ZeRO-3, Rajbhandari et al. 2019, arXiv 1910.02054); heads and hidden units are computed where they lie
(Shoeybi et al. 2019, arXiv 1909.08053). A dimension that does not divide is no error: `report` lists it, and
`training.devices.replication` refuses a run in which too much stays whole.

What belongs to a parameter and is not needed to compute with it, the optimizer's state and the moving average, may be
divided further, over `data` (ZeRO-1): `divided_specs` is their table.
"""

import math
import re
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from vit_jax import trees
from vit_jax.errors import ConfigError, nearest
from vit_jax.models.families import families

Rules = Sequence[tuple[str, str]]
NOTHING_BESIDE: Mapping[str, PartitionSpec] = {}
DERIVED = ("opt_state", "ema")  # parts of a state that belong to parameters and are not computed with

RULES: Rules = (
    # Projections to heads (.., h, k) and back (h, k, d); hidden units (.., m) and back (m, d).
    (r"(^|/)blocks/attn/qkv/(kernel|bias)$", "stacked tensor(-2) fsdp"),
    (r"(^|/)blocks/attn/out/kernel$", "stacked tensor(-3) fsdp"),
    (r"(^|/)blocks/attn/position_bias$", "stacked tensor(-1)"),
    (r"(^|/)blocks/mlp/(fc1|gate_up)/(kernel|bias)$", "stacked tensor(-1) fsdp"),
    (r"(^|/)blocks/mlp/(fc2|down)/kernel$", "stacked tensor(-2) fsdp"),
    (r"(^|/)blocks/", "stacked fsdp"),
    (r"(^|/)pool/(q|kv)/(kernel|bias)$", "tensor(-2) fsdp"),
    (r"(^|/)pool/out/kernel$", "tensor(-3) fsdp"),
    (r"(^|/)pool/mlp/(fc1|gate_up)/(kernel|bias)$", "tensor(-1) fsdp"),
    (r"(^|/)pool/mlp/(fc2|down)/kernel$", "tensor(-2) fsdp"),
    (r"(^|/)(stem/\d+|patch_embed|embed|pre_logits|head|head_distillation)/(kernel|bias)$", "fsdp"),
    (r"(^|/)backbone/.*/kernel$", "fsdp"),
    (r"(^|/)(layers/\d+/(kernel|bias)|prototypes/kernel)$", "fsdp"),
    (r"(^|/)(neck|decoder|auxiliary|projectors)/.*/kernel$", "fsdp"),
    (r"(^|/)token_embed$", "fsdp"),
    (
        r"(^|/)((class|distillation|mask)_token|register_tokens|pos_embed|position_bias|pool/probe)$",
        "replicate",
    ),
    (r"(^|/)logit_(scale|bias)$", "replicate"),
    (r"/(scale|bias|mean|variance)$", "replicate"),
)


class Placement(NamedTuple):
    """How one parameter lies on the mesh.

    Attributes:
      spec: one entry per dimension: a mesh axis or None.
      notes: dimensions that should have been divided and could not, in words.
      tactic: what the table says of it.
    """

    spec: PartitionSpec
    notes: tuple[str, ...]
    tactic: str


def placements(
    abstract_params: Any, mesh: Mesh | AbstractMesh, rules: Rules, min_size: int
) -> dict[str, Placement]:
    """Return the placement of each parameter by path.

    Args:
      abstract_params: tree of arrays or shapes.
      mesh: a mesh with the axes `data`, `fsdp`, `tensor`; needs no devices.
      rules: (pattern, tactic), first match wins.
      min_size: elements below which a tensor is not divided over `fsdp`.

    Raises:
      ConfigError: a parameter that no rule matches, a tactic that cannot be read or applied, or a rule of the
        user's that matches nothing.
    """
    params = trees.flatten(abstract_params)
    rules = tuple((pattern, tactic) for pattern, tactic in rules)
    ours = {*RULES, *(rule for family in families() for rule in family.rules)}
    for pattern, tactic in rules:
        # Ours cover many models, so some are idle; an idle one of the user's is a mistake.
        if (pattern, tactic) not in ours:
            matching(pattern, params, "sharding.rules")
    placed = {}
    for path, leaf in params.items():
        tactic = _tactic(path, rules)
        if tactic is None:
            raise ConfigError(
                f"parameter {path} {tuple(leaf.shape)} matches no sharding rule; add (pattern, tactic) to "
                f"sharding.rules, for example ({path + '$'!r}, 'fsdp')."
            )
        sizes = mesh.shape["fsdp"], mesh.shape["tensor"]
        placed[path] = _place(path, tuple(leaf.shape), tactic, *sizes, min_size)
    return placed


def parameter_specs(abstract_params: Any, mesh: Mesh | AbstractMesh, rules: Rules, min_size: int) -> Any:
    """Return the tree of `PartitionSpec`, one entry per dimension of each parameter; see `placements`."""
    placed = placements(abstract_params, mesh, rules, min_size)
    return trees.map_named(lambda path, _: placed[path].spec, abstract_params)


def divided_specs(
    abstract_params: Any, mesh: Mesh | AbstractMesh, rules: Rules, min_size: int
) -> dict[str, PartitionSpec]:
    """Return by path how what belongs to a parameter lies when it is divided over `data` too (ZeRO-1).

    The largest dimension that is free and divides is divided over `data`; where none is free, the largest that divides
    once more. The blocks' dimension is never divided, and tensors of fewer than `min_size` elements stay as they are.
    Takes and raises what `placements` does.
    """
    shapes = trees.flatten(abstract_params)
    return {
        path: _divide(
            placed.spec, tuple(shapes[path].shape), "stacked" in placed.tactic, mesh.shape, min_size
        )
        for path, placed in placements(abstract_params, mesh, rules, min_size).items()
    }


def beside_specs(
    networks: Any, mesh: Mesh | AbstractMesh, rules: Rules, min_size: int
) -> dict[str, PartitionSpec]:
    """Return how networks beside the one that is trained lie, such as a teacher, by path.

    The rules are those of parameters, whatever stands before a network's own paths; what none matches is left out: a
    counter, a centre. Takes and raises what `placements` does, but for rules that match nothing here.
    """
    specs = {}
    for path, leaf in trees.flatten(networks).items():
        tactic = _tactic(path, tuple((pattern, tactic) for pattern, tactic in rules))
        if tactic is not None:
            sizes = mesh.shape["fsdp"], mesh.shape["tensor"]
            specs[path] = _place(path, tuple(leaf.shape), tactic, *sizes, min_size).spec
    return specs


def state_shardings(
    abstract_state: Any,
    param_specs: Any,
    mesh: Mesh | AbstractMesh,
    divided: Mapping[str, PartitionSpec] | None = None,
    beside: Mapping[str, PartitionSpec] = NOTHING_BESIDE,
) -> Any:
    """Return the tree of `NamedSharding` for a state made of parameters and what resembles them.

    A leaf lies like a parameter when its path ends with the parameter's path (`opt_state/0/mu/head/kernel`),
    it has as many dimensions, and those that are divided divide. A buffer that does not lies as `beside` says.
    Everything else is replicated: counters, factored statistics.

    Args:
      abstract_state: any tree of arrays or shapes.
      param_specs: tree of `PartitionSpec` from `parameter_specs`.
      mesh: the mesh.
      divided: `divided_specs`, for what is under `opt_state` and `ema`; None leaves it like the parameters.
      beside: `beside_specs` of the buffers.
    """
    specs = trees.flatten(param_specs)

    def sharding(path: str, leaf: Any) -> NamedSharding:
        words = path.split("/")
        table = specs if divided is None or words[0] not in DERIVED else divided
        for start in range(len(words)):  # The longest ending first: `encoder/norm/scale` before `norm/scale`.
            spec = table.get("/".join(words[start:]))
            if spec is not None and _divides(spec, leaf.shape, mesh.shape):
                return NamedSharding(mesh, spec)
        own = beside.get(path.removeprefix("buffers/")) if words[0] == "buffers" else None
        return NamedSharding(mesh, PartitionSpec() if own is None else own)

    return trees.map_named(sharding, abstract_state)


def shards(entry: str | tuple[str, ...] | None, sizes: Mapping[str, int]) -> int:
    """Return into how many parts an entry of a `PartitionSpec` divides its dimension."""
    axes = (entry,) if isinstance(entry, str) else entry or ()
    return math.prod(sizes[axis] for axis in axes)


def fallbacks(abstract_params: Any, placed: Mapping[str, Placement]) -> list[str]:
    """Return a line for every dimension that should have been divided and could not."""
    shapes = {path: tuple(leaf.shape) for path, leaf in trees.flatten(abstract_params).items()}
    return [f"{path} {shapes[path]}: {note}" for path in placed for note in placed[path].notes]


def report(abstract_params: Any, mesh: Mesh | AbstractMesh, rules: Rules, min_size: int) -> str:
    """Return a short text: elements per device, and every dimension that did not divide."""
    placed = placements(abstract_params, mesh, rules, min_size)
    shapes = {path: leaf.shape for path, leaf in trees.flatten(abstract_params).items()}
    total = sum(math.prod(shape) for shape in shapes.values())
    local = sum(
        math.prod(shape) // math.prod(shards(entry, mesh.shape) for entry in placed[path].spec)
        for path, shape in shapes.items()
    )
    lines = [f"{total:,} parameters, {local:,} on each device"]
    return "\n".join([*lines, *(f"  {line}" for line in fallbacks(abstract_params, placed))])


def matching(pattern: str, paths: Collection[str], key: str) -> set[str]:
    """Return the parameter paths that a pattern is found in.

    Args:
      pattern: a regular expression from the configuration.
      paths: paths of all parameters.
      key: where the configuration says it, for the message.

    Raises:
      ConfigError: the pattern is found nowhere; the nearest names are given.
    """
    found = {path for path in paths if re.search(pattern, path)}
    if not found:
        parents = {path[: match.start()] for path in paths for match in re.finditer("/", path)}
        roots = ", ".join(sorted({path.split("/")[0] for path in paths}))
        hint = nearest(re.sub(r"[^\w/]", "", pattern), sorted({*paths, *parents}))
        hint = hint or f" Parameters are under {roots}."
        if re.search(r"\d", pattern) and any("blocks" in path.split("/") for path in paths):
            hint += (
                " Blocks are stored stacked; in optimizer.trained, frozen and learning_rate_multipliers, those of "
                "the image encoder are numbered as in 'blocks/0/attn'; see also optimizer.frozen_blocks."
            )
        raise ConfigError(f"{key} has {pattern!r}, which matches no parameter.{hint}")
    return found


@lru_cache(maxsize=4096)
def _tactic(path: str, rules: Rules) -> str | None:
    return next((tactic for pattern, tactic in rules if re.search(pattern, path)), None)


# Cached, as the same few shapes are asked for on many meshes when meshes are compared.
@lru_cache(maxsize=65_536)
def _place(
    path: str, shape: tuple[int, ...], tactic: str, fsdp: int, tensor: int, min_size: int
) -> Placement:
    entries: list[str | None] = [None] * len(shape)
    free = list(range(len(shape)))
    notes = []
    for word in tactic.split():
        match = re.fullmatch(r"replicate|fsdp|(stacked)|tensor\((-?\d+)\)", word)
        if match is None:
            raise ConfigError(
                f"sharding tactic {tactic!r} of {path}: {word!r} is not one of replicate, stacked, tensor(i) "
                f"and fsdp."
            )
        if word == "fsdp" and fsdp > 1 and math.prod(shape) >= min_size:
            wanted = sorted(free, key=lambda dim: -shape[dim])
            chosen = next((dim for dim in wanted if shape[dim] % fsdp == 0), None)
            if chosen is not None:
                entries[chosen] = "fsdp"
                free.remove(chosen)
            if not wanted:
                notes.append(f"no dimension is free for fsdp={fsdp}, replicated")
            elif chosen != wanted[0]:
                instead = "replicated" if chosen is None else f"{shape[chosen]} sharded instead"
                notes.append(f"{shape[wanted[0]]} is not divisible by fsdp={fsdp}, {instead}")
        if match[1] or match[2]:
            index = int(match[2] or 0)
            dim = index + len(shape) if index < 0 else index
            if dim not in free:
                raise ConfigError(
                    f"sharding tactic {tactic!r} of {path}: {word} is not a free dimension of {shape}."
                )
            if match[1]:
                free.remove(dim)
            elif shape[dim] % tensor:
                notes.append(f"{shape[dim]} is not divisible by tensor={tensor}, replicated")
            elif tensor > 1:
                entries[dim] = "tensor"
                free.remove(dim)
    return Placement(PartitionSpec(*entries), tuple(notes), tactic)


def _divide(
    spec: PartitionSpec, shape: tuple[int, ...], stacked: bool, sizes: Mapping[str, int], min_size: int
) -> PartitionSpec:
    """Return a spec in which one more dimension is divided over `data`, if there is one that can be."""
    data = sizes["data"]
    dims = [
        dim for dim in range(int(stacked), len(shape)) if shape[dim] % (data * shards(spec[dim], sizes)) == 0
    ]
    if data == 1 or math.prod(shape) < min_size or not dims:
        return spec
    chosen = min(dims, key=lambda dim: (spec[dim] is not None, -shape[dim]))
    entries = list(spec)
    # Inside what is divided already: each device keeps a part of the part that it has of the parameter.
    entries[chosen] = "data" if spec[chosen] is None else (spec[chosen], "data")
    return PartitionSpec(*entries)


def _divides(spec: PartitionSpec, shape: Sequence[int], sizes: Mapping[str, int]) -> bool:
    if len(spec) != len(shape):
        return False
    return all(size % shards(entry, sizes) == 0 for entry, size in zip(spec, shape))
