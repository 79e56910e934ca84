"""Nested dicts of arrays and their flat form `{"blocks/attn/qkv/kernel": array}`."""

from collections.abc import Callable, Mapping
from typing import Any

import jax

Tree = Any


def path_name(path: tuple[Any, ...]) -> str:
    """Return a jax key path as text, for example `blocks/attn/qkv/kernel`."""
    return "/".join(str(getattr(k, "key", getattr(k, "idx", getattr(k, "name", k)))) for k in path)


def flatten(tree: Tree, is_leaf: Callable[[Any], bool] | None = None) -> dict[str, Any]:
    """Return `{path: leaf}` of any pytree, in the tree's own order; `is_leaf` says what is not looked into."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_leaf)
    return {path_name(path): leaf for path, leaf in leaves}


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Return the nested dict of a flat one; the inverse of `flatten` for nested dicts."""
    tree: dict[str, Any] = {}
    for path, leaf in flat.items():
        *parents, last = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = leaf
    return tree


def subset(tree: Mapping[str, Any], like: Mapping[str, Any]) -> dict[str, Any]:
    """Return the leaves of a nested dict at the paths that another one has."""
    flat = flatten(tree)
    return unflatten({path: flat[path] for path in flatten(like)})


def map_named(function: Callable[..., Any], tree: Tree, *rest: Tree) -> Tree:
    """Apply `function(path, leaf, *other_leaves)` to every leaf of a pytree."""
    return jax.tree_util.tree_map_with_path(
        lambda path, *leaves: function(path_name(path), *leaves), tree, *rest
    )


def count(tree: Tree) -> int:
    """Return the number of elements in all leaves of a tree of arrays or shapes."""
    return sum(int(leaf.size) for leaf in jax.tree.leaves(tree))
