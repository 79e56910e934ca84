"""What every model and every part of one is: a Flax module that prints itself on one screen."""

import dataclasses
import html
import textwrap
from math import prod
from typing import TYPE_CHECKING, Any

import jax
from flax import nnx

from vit_jax.trees import path_name

_WIDEST = 110  # characters of a line
_SIZES = ("width", "depth", "heads", "image_size", "patch_size", "num_classes")  # said in any case


class Module(nnx.Module):
    """A Flax module whose text is its parameters by part, and its configuration once."""

    if TYPE_CHECKING:
        config: Any

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            """Return what the module computes."""

    def __repr__(self) -> str:
        """Return one line for the whole, one for the configuration and one for each part."""
        parts: dict[str, list[tuple[str, tuple[int, ...]]]] = {}
        for path, leaf in jax.tree_util.tree_flatten_with_path(self)[0]:
            name, _, rest = path_name(path).removesuffix("/value").partition("/")
            parts.setdefault(name, []).append((rest, tuple(leaf.shape)))
        counts = {name: sum(prod(shape) for _, shape in arrays) for name, arrays in parts.items()}
        lines = [f"{type(self).__name__}: {sum(counts.values()):,} parameters"]
        config = getattr(self, "config", None)
        if dataclasses.is_dataclass(config):
            lines += textwrap.wrap(_text(config), _WIDEST, initial_indent="  ", subsequent_indent="    ")
        width = max(map(len, parts), default=0)
        for name, arrays in parts.items():
            shapes = ", ".join(f"{rest} {shape}".strip() for rest, shape in arrays)
            line = f"  {name:<{width}} {counts[name]:>13,}  {shapes}"
            lines.append(line if len(line) <= _WIDEST else f"{line[: _WIDEST - 4]} ...")
        return "\n".join(lines)

    __str__ = __repr__

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(repr(self))}</pre>"


def _text(value: Any) -> str:
    """Return a configuration as text: sizes, and the fields that are not as its class has them."""
    if not dataclasses.is_dataclass(value):
        return repr(value)
    words = [
        f"{field.name}={_text(getattr(value, field.name))}"
        for field in dataclasses.fields(value)
        if field.name in _SIZES or getattr(value, field.name) != field.default
    ]
    return f"{type(value).__name__}({', '.join(words)})"
