"""What a model knows of the devices it is compiled for: nothing, unless training says it while it traces a step.

Three things follow from it, none of which changes a value:

- which platform decides about the fastest form of attention, also when it is not the platform of this machine;
- rows of activations stay where the rows of the batch are. Without that, the compiler may divide activations as the
  parameters are divided, which moves far more bytes;
- a parameter that is divided over `fsdp` is gathered whole where it is used, in the compute dtype, and its gradient
  is divided again at once (ZeRO-3, Rajbhandari et al. 2019, arXiv 1910.02054). So the compiler can make one
  all-gather of half the bytes instead of passing pieces around while it multiplies, and a reduce-scatter of the
  gradient instead of an all-reduce.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vit_jax import trees

_STACK = "blocks/"


@dataclass(frozen=True)
class Placement:
    """Where a step runs.

    Attributes:
      mesh: the devices; need not exist on this machine.
      rows: mesh axes that the rows of a batch are divided over.
      gathered: mesh axis over which parameters are divided only to be stored.
      heads: mesh axis that attention heads are divided over, where it divides them.
      specs: how each parameter is divided, by path, one entry per dimension; with those of networks beside the one that
        is trained, under `buffers/` and `constants/`.
      shapes: shape of each of them, by path.
    """

    mesh: Mesh
    rows: tuple[str, ...]
    gathered: str
    heads: str
    specs: Mapping[str, PartitionSpec]
    shapes: Mapping[str, tuple[int, ...]]

    def stacked(self, name: str, shape: tuple[int, ...]) -> PartitionSpec | None:
        """Return the spec of a parameter of stacked blocks, by its name inside a block and its stacked shape."""
        for path, spec in self.specs.items():
            if path.endswith(f"{_STACK}{name}") and self.shapes[path] == shape:
                return spec
        return None


_CURRENT: ContextVar[Placement | None] = ContextVar("placement", default=None)


@contextmanager
def placed(placement: Placement | None) -> Iterator[None]:
    """Say, while a step is traced inside, what it is compiled for."""
    token = _CURRENT.set(placement)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def platform() -> str:
    """Return the platform that is compiled for: `cpu`, `gpu` or `tpu`."""
    placement = _CURRENT.get()
    if placement is None:
        return jax.default_backend()
    name = placement.mesh.devices.flat[0].platform
    return "gpu" if name in ("cuda", "rocm") else name


def keep_rows(x: jax.Array) -> jax.Array:
    """Return activations `(b, ...)` whose rows stay divided like the batch."""
    placement = _CURRENT.get()
    if placement is None or placement.mesh.size == 1:
        return x
    return jax.lax.with_sharding_constraint(
        x, NamedSharding(placement.mesh, PartitionSpec(placement.rows, *[None] * (x.ndim - 1)))
    )


def on_each_device(
    function: Callable[..., jax.Array], heads: int, *arrays: jax.Array, bias: jax.Array | None = None
) -> jax.Array:
    """Return `function(heads, *arrays, bias)`, computed by each device of its own rows and heads alone.

    For what the compiler cannot divide by itself, such as kernels.

    Args:
      function: takes the number of heads of one device, and its part of the arrays.
      heads: `h`.
      arrays: `(b, n, h k)`.
      bias: `(w, h, n, m)`, of all rows, or None.
    """
    placement = _CURRENT.get()
    if placement is None or placement.mesh.size == 1:
        return function(heads, *arrays, bias)
    parts = placement.mesh.shape[placement.heads]
    divides = heads % parts == 0
    own = placement.heads if divides else None
    rows = PartitionSpec(placement.rows, None, own)
    divided = jax.shard_map(
        partial(function, heads // parts if divides else heads),
        mesh=placement.mesh,
        in_specs=(*(rows for _ in arrays), None if bias is None else PartitionSpec(None, own)),
        out_specs=rows,
        check_vma=False,
    )
    return divided(*arrays, bias)


def is_known() -> bool:
    """Return whether it is known how arrays lie on the devices: there is one, or training has said it."""
    return _CURRENT.get() is not None or jax.device_count() == 1


def gather_block(block: Any, depth: int, dtype: Any) -> Any:
    """Return one block of a stack with its parameters gathered; kernels in the compute dtype.

    Args:
      block: a pytree of arrays, the stack's without their leading axis.
      depth: length of that axis.
      dtype: in which kernels are used.
    """
    placement = _CURRENT.get()
    if placement is None or placement.mesh.shape[placement.gathered] == 1:
        return block

    def gather(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        name = trees.path_name(path).removesuffix("/value")
        spec = placement.stacked(name, (depth, *leaf.shape))
        if spec is None or placement.gathered not in spec:
            return leaf
        cast = leaf.astype(dtype) if name.endswith("kernel") else leaf
        return _gather(placement.mesh, placement.gathered, PartitionSpec(*spec[1:]), cast)

    return jax.tree_util.tree_map_with_path(gather, block)


def gather_rest(params: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Return parameters by path, those outside of stacks gathered."""
    placement = _CURRENT.get()
    if placement is None:
        return params
    return {
        path: leaf
        if _STACK in path or placement.gathered not in placement.specs.get(path, ())
        else _gather(placement.mesh, placement.gathered, placement.specs[path], leaf)
        for path, leaf in params.items()
    }


def gather_beside(tree: Any, name: str) -> Any:
    """Return what lies beside the parameters, `buffers` or `constants`, as `gather_rest` returns parameters."""
    flat = gather_rest({f"{name}/{path}": leaf for path, leaf in trees.flatten(tree).items()})
    return trees.map_named(lambda path, _: flat[f"{name}/{path}"], tree)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _gather(mesh: Mesh, axis: str, spec: PartitionSpec, x: jax.Array) -> jax.Array:
    """Return `x`, whole along `axis`; its cotangent is divided as `spec` says."""
    whole = PartitionSpec(*(None if entry == axis else entry for entry in spec))
    stored = jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec))
    return jax.lax.with_sharding_constraint(stored, NamedSharding(mesh, whole))


def _gather_forward(mesh: Mesh, axis: str, spec: PartitionSpec, x: jax.Array) -> tuple[jax.Array, None]:
    return _gather(mesh, axis, spec, x), None


def _gather_backward(mesh: Mesh, axis: str, spec: PartitionSpec, _: None, dy: jax.Array) -> tuple[jax.Array]:
    return (jax.lax.with_sharding_constraint(dy, NamedSharding(mesh, spec)),)


_gather.defvjp(_gather_forward, _gather_backward)
