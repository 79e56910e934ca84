"""Transforms as configurations write them: `decode|random_resized_crop(224, scale=(0.2, 1))|flip_lr`.

A specification is a Python expression of names and calls joined by `|`; it is parsed, never evaluated, and
arguments are plain values.
"""

import ast
import dataclasses
import inspect
from collections.abc import Sequence
from typing import Any

from vit_jax.data.transforms.base import Transform
from vit_jax.data.transforms.registry import TRANSFORMS
from vit_jax.errors import ConfigError, choose, nearest


def parse(spec: str, name: str = "transforms") -> list[Transform]:
    """Return the transforms of a specification, their arguments checked.

    Args:
      spec: steps joined by `|`; empty for none.
      name: what messages call it, for example `data.train_transforms`.

    Raises:
      ConfigError: not such an expression, an unknown transform or argument (the nearest are named), or a
        value that the transform refuses.
    """
    if not spec.strip():
        return []
    try:
        # Line ends would need parentheses around the whole.
        tree = ast.parse(" ".join(spec.split()), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ConfigError(
            f"{name} is {spec!r}, which cannot be read ({error.args[0] if error.args else error}); write "
            "'decode|resize_short(256)|center_crop(224)'."
        ) from error
    return [_transform(step, name) for step in _steps(tree)]


def text_of(transforms: Sequence[Transform]) -> str:
    """Return the specification of transforms made in Python; `parse` makes equal ones of it.

    `text_of([Decode(), RandomResizedCrop(224), FlipLeftRight()])` is `decode|random_resized_crop(224)|flip_lr`.

    Raises:
      ConfigError: a transform is not one that configurations may use.
    """
    names = {kind: name for name, kind in TRANSFORMS.items()}
    steps = []
    for transform in transforms:
        if type(transform) not in names:
            raise ConfigError(
                f"{type(transform).__name__} has no name in configurations; these have: {', '.join(TRANSFORMS)}."
            )
        arguments = [
            repr(value) if field.default is dataclasses.MISSING else f"{field.name}={value!r}"
            for field in dataclasses.fields(transform)  # pyright: ignore[reportArgumentType]
            if (value := getattr(transform, field.name)) != field.default
        ]
        steps.append(names[type(transform)] + f"({', '.join(arguments)})" * bool(arguments))
    return "|".join(steps)


def _steps(node: ast.expr) -> list[ast.expr]:
    """Return the operands of a chain of `|`, from left to right."""
    steps = []
    while isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        steps.append(node.right)
        node = node.left
    return [node, *reversed(steps)]


def _transform(step: ast.expr, name: str) -> Transform:
    function = step.func if isinstance(step, ast.Call) else step
    if not isinstance(function, ast.Name):
        raise ConfigError(
            f"{name}: {ast.unparse(step)!r} is not a transform; write its name, then any arguments."
        )
    choose(function.id, TRANSFORMS, f"{name}: the transform")
    kind = TRANSFORMS[function.id]
    arguments = [_value(argument, function.id, name) for argument in getattr(step, "args", [])]
    named = {
        keyword.arg: _value(keyword.value, function.id, name) for keyword in getattr(step, "keywords", [])
    }
    _check_arguments(kind, function.id, arguments, named, name)
    try:
        return kind(*arguments, **named)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from error


def _value(node: ast.expr, function: str, name: str) -> Any:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"{name}: argument {ast.unparse(node)} of {function} is not a plain value; write a number, a quoted "
            "string or a tuple."
        ) from error


def _check_arguments(
    kind: type, function: str, arguments: list[Any], named: dict[Any, Any], name: str
) -> None:
    signature = inspect.signature(kind)
    for keyword in named:
        if keyword not in signature.parameters:
            raise ConfigError(
                f"{name}: {function} has no argument {keyword!r}; it takes {', '.join(signature.parameters)}."
                f"{nearest(str(keyword), signature.parameters)}"
            )
    try:
        signature.bind(*arguments, **named)
    except TypeError as error:
        raise ConfigError(
            f"{name}: {function}: {error}; it is {function}{_signature_text(signature)}."
        ) from error


def _signature_text(signature: inspect.Signature) -> str:
    """Return the parameters of a transform with their defaults, without types."""
    parameters = [p.replace(annotation=inspect.Parameter.empty) for p in signature.parameters.values()]
    return str(inspect.Signature(parameters))
