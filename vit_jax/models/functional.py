"""The seam between models and everything above them: pure functions of nested dicts of arrays.

Training, checkpoints and sharding see `init(key) -> params`, `apply(params, ...)` and abstract trees; they
never see a module.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
from flax import nnx

from vit_jax.errors import ConfigError
from vit_jax.trees import flatten, path_name, unflatten

Params = dict[str, Any]


@dataclass(frozen=True)
class ModelFunctions:
    """A model as pure functions.

    Attributes:
      init: `init(key) -> params`, a nested dict of float32 arrays; can be jitted with output shardings.
      apply: `apply(params, *args, **kwargs)`: the model's call.
      bind: `bind(params) -> module`, to reach other methods; cheap, and fine inside jit. Raises ConfigError for
        parameters of another model.
      abstract: shapes and dtypes of the parameters, a nested dict.
    """

    init: Callable[[jax.Array], Params]
    apply: Callable[..., Any]
    bind: Callable[[Params], Any]
    abstract: Params


def functions(build: Callable[..., nnx.Module]) -> ModelFunctions:
    """Return the pure functions of a module.

    Args:
      build: `build(rngs=) -> module`, for example `partial(VisionTransformer, config)`.
    """
    abstract = jax.eval_shape(lambda: build(rngs=nnx.Rngs(jax.random.key(0))))
    paths, treedef = jax.tree_util.tree_flatten_with_path(abstract)
    names = [_name(path) for path, _ in paths]

    def init(key: jax.Array) -> Params:
        return parameters(build(rngs=nnx.Rngs(key)))

    def bind(params: Params) -> Any:
        # Whatever stands in a dict is a parameter, also one that is stored in parts (`models.storage`).
        flat = flatten(params, is_leaf=lambda node: not isinstance(node, dict))
        if flat.keys() != set(names):
            missing, extra = sorted(set(names) - flat.keys()), sorted(flat.keys() - set(names))
            raise ConfigError(
                f"parameters do not belong to this model: missing {_few(missing)}; not part of it {_few(extra)}."
            )
        return jax.tree_util.tree_unflatten(treedef, [flat[name] for name in names])

    def apply(params: Params, *args: Any, **kwargs: Any) -> Any:
        return bind(params)(*args, **kwargs)

    shapes = unflatten({name: leaf for name, (_, leaf) in zip(names, paths)})
    return ModelFunctions(init, apply, bind, shapes)


def parameters(module: nnx.Module) -> Params:
    """Return a module's parameters as a nested dict of arrays, `{"patch_embed": {"kernel": ...}, ...}`."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(module)
    return unflatten({_name(path): leaf for path, leaf in leaves})


def _few(names: list[str]) -> str:
    return (", ".join(names[:3]) + f" and {len(names) - 3} more" * (len(names) > 3)) or "none"


def _name(path: tuple[Any, ...]) -> str:
    return path_name(path).removesuffix("/value")
