"""Names of transformers' models in memory since version 5, which `save_pretrained` changes back and `torch.save` keeps.

Source: transformers/conversion_mapping.py.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from vit_jax.weights.layouts.blocks import split_mlp
from vit_jax.weights.rules import Rule

_ATTENTION = (
    (r"attention\.attention\.query", "attention.q_proj"),
    (r"attention\.attention\.key", "attention.k_proj"),
    (r"attention\.attention\.value", "attention.v_proj"),
    (r"attention\.output\.dense", "attention.o_proj"),
)
_BLOCKS = (
    (r"encoder\.layer\.", "layers."),
    (r"attention\.attention\.relative_position_bias", "relative_position_bias"),
    (r"encoder\.relative_position_bias", "shared_position_bias"),
    (r"intermediate\.dense", "mlp.fc1"),
    (r"output\.dense", "mlp.fc2"),
)


def is_in_memory(names: Iterable[str], model_type: str) -> bool:
    """Return whether arrays are called as in memory, where that differs from files."""
    return model_type != "dinov3_vit" and any(".attention.q_proj." in name for name in names)


def in_memory(rules: Sequence[Rule], names: Iterable[str]) -> list[Rule]:
    """Return rules of an image model with the names of its modules.

    Args:
      rules: with names of files, see `transformers.vit.rules`.
      names: of the arrays in the file.
    """
    blocks = _BLOCKS if any(re.search(r"(^|\.)layers\.0\.", name) for name in names) else ()
    gated = any(name.endswith("mlp.gate_proj.weight") for name in names)
    found = []
    for rule in rules:
        if gated and rule.ours[0].startswith("blocks/mlp/"):
            continue
        theirs = rule.theirs
        for old, new in (*_ATTENTION, *blocks):
            theirs = tuple(re.sub(old, new, name) for name in theirs)
        found.append(replace(rule, theirs=theirs))
    if gated:
        first = next(rule.theirs[0] for rule in found if rule.ours == ("blocks/norm1/scale",))
        mlp = first.removesuffix("norm1.weight") + "mlp"
        gate, up, down = (f"{mlp}.{name}_proj" for name in ("gate", "up", "down"))
        found += split_mlp("blocks/mlp", gate, up, down)
    return found
