"""The seam between models and everything above them: pure functions of nested dicts of arrays.

Training, checkpoints and sharding see `init(key) -> params`, `apply(params, ...)` and abstract trees; they
never see a module. A model with batch statistics has a second dict, the buffers: what a call in training changes
without a gradient. Of all others it is empty, and costs nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
from flax import nnx

from vit_jax.errors import ConfigError
from vit_jax.models.maps import Chosen, level_maps, named_levels
from vit_jax.trees import flatten, path_name, unflatten

Params = dict[str, Any]
Buffers = dict[str, Any]


@dataclass(frozen=True)
class ModelFunctions:
    """A model as pure functions.

    Attributes:
      init: `init(key) -> params`, a nested dict of float32 arrays; can be jitted with output shardings.
      apply: `apply(params, *args, **kwargs)`: the call of a model without buffers.
      bind: `bind(params, buffers=None) -> module`, to reach other methods; cheap, and fine inside jit. `params` may
        hold the buffers too, as what reads and writes checkpoints has them. Raises ConfigError for parameters of
        another model.
      abstract: shapes and dtypes of the parameters, a nested dict.
      abstract_buffers: those of the buffers; empty for most models.
      init_state: `init_state(key) -> (params, buffers)`.
      apply_state: `apply_state(params, buffers, *args, method="__call__", **kwargs) -> (output, buffers)`: a method of
        the model, and the buffers after it, which are new in training.
      features: `features(params, buffers, images, key=None, levels=None, resample=False)`: maps `(b, h, w, c)` of
        normalised images at the levels of the family, or at those asked for, see `models.maps.named_levels`.
    """

    init: Callable[[jax.Array], Params]
    apply: Callable[..., Any]
    bind: Callable[..., Any]
    abstract: Params
    abstract_buffers: Buffers
    init_state: Callable[[jax.Array], tuple[Params, Buffers]]
    apply_state: Callable[..., tuple[Any, Buffers]]
    features: Callable[..., list[jax.Array]]


def functions(build: Callable[..., nnx.Module]) -> ModelFunctions:
    """Return the pure functions of a module.

    Args:
      build: `build(rngs=) -> module`, for example `partial(VisionTransformer, config)`.
    """
    whole = jax.eval_shape(lambda: build(rngs=nnx.Rngs(jax.random.key(0))))
    paths, treedef = jax.tree_util.tree_flatten_with_path(whole)
    names = [_name(path) for path, _ in paths]
    shapes, changing = dict(zip(names, (leaf for _, leaf in paths))), _statistics(whole)

    def init_state(key: jax.Array) -> tuple[Params, Buffers]:
        module = build(rngs=nnx.Rngs(key))
        return parameters(module), buffers_of(module)

    def init(key: jax.Array) -> Params:
        return init_state(key)[0]

    def bind(params: Params, buffers: Buffers | None = None) -> Any:
        # Whatever stands in a dict is a parameter, also one that is stored in parts (`models.storage`).
        flat = _flat(params) | _flat(buffers or {})
        if flat.keys() != set(names):
            missing, extra = sorted(set(names) - flat.keys()), sorted(flat.keys() - set(names))
            raise ConfigError(
                f"parameters do not belong to this model: missing {_few(missing)}, not part of the model "
                f"{_few(extra)}."
            )
        return jax.tree_util.tree_unflatten(treedef, [flat[name] for name in names])

    def apply(params: Params, *args: Any, **kwargs: Any) -> Any:
        return bind(params)(*args, **kwargs)

    def apply_state(
        params: Params, buffers: Buffers, *args: Any, method: str = "__call__", **kwargs: Any
    ) -> tuple[Any, Buffers]:
        module = bind(params, buffers)
        out = getattr(module, method)(*args, **kwargs)
        return out, buffers_of(module) if changing else buffers

    def features(
        params: Params,
        buffers: Buffers,
        images: jax.Array,
        key: jax.Array | None = None,
        levels: Chosen | None = None,
        resample: bool = False,
    ) -> list[jax.Array]:
        module = bind(params, buffers)
        return level_maps(module, named_levels(module.config, levels, resample), images, key)

    return ModelFunctions(
        init=init,
        apply=apply,
        bind=bind,
        abstract=unflatten({name: shapes[name] for name in names if name not in changing}),
        abstract_buffers=unflatten({name: shapes[name] for name in names if name in changing}),
        init_state=init_state,
        apply_state=apply_state,
        features=features,
    )


def parameters(module: nnx.Module) -> Params:
    """Return a module's parameters as a nested dict of arrays, `{"patch_embed": {"kernel": ...}, ...}`."""
    changing = _statistics(module)
    return unflatten({name: leaf for name, leaf in _leaves(module).items() if name not in changing})


def buffers_of(module: nnx.Module) -> Buffers:
    """Return a module's batch statistics as a nested dict of arrays; empty if it has none."""
    changing = _statistics(module)
    return unflatten({name: leaf for name, leaf in _leaves(module).items() if name in changing})


def _leaves(module: nnx.Module) -> dict[str, Any]:
    return {_name(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(module)[0]}


def _statistics(module: nnx.Module) -> set[str]:
    """Return the paths of what a call in training changes."""
    found, _ = jax.tree_util.tree_flatten_with_path(
        module, is_leaf=lambda node: isinstance(node, nnx.BatchStat)
    )
    return {path_name(path) for path, node in found if isinstance(node, nnx.BatchStat)}


def _flat(tree: Mapping[str, Any]) -> dict[str, Any]:
    return flatten(tree, is_leaf=lambda node: not isinstance(node, dict))


def _few(names: list[str]) -> str:
    return (", ".join(names[:3]) + f" and {len(names) - 3} more" * (len(names) > 3)) or "none"


def _name(path: tuple[Any, ...]) -> str:
    return path_name(path).removesuffix("/value")
