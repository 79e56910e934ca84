"""How each parameter is trained: whether it is frozen, whether it decays, its factor of the learning rate.

Equal blocks are stored together, `blocks/attn/qkv/kernel` for all of them. Patterns of `optimizer.trained`, `frozen`
and `learning_rate_multipliers` may name single blocks all the same, as `blocks/3/attn/qkv/kernel`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from vit_jax import trees
from vit_jax.errors import ConfigError
from vit_jax.models.families import family_of, is_config
from vit_jax.models.layers.lora import ROOT
from vit_jax.training.devices.sharding import matching

Shapes = Mapping[str, tuple[int, ...]]
Rows = dict[str, np.ndarray]  # by path; one value, or one for each of the stacked blocks


class Treatment(NamedTuple):
    """How one parameter is trained.

    Attributes:
      frozen: bool, whether it stays as it is; `(l,)` where that differs among stacked blocks.
      decay: factor of `optimizer.weight_decay`; 0 for none.
      rate: factor of the learning rate, float32, one number or `(l, 1, ...)` for stacked blocks; 0 in frozen blocks.
    """

    frozen: np.ndarray
    decay: float
    rate: np.ndarray

    @property
    def whole(self) -> bool:
        """Whether all of it is frozen."""
        return bool(self.frozen.all())

    @property
    def first(self) -> int:
        """How many blocks are frozen below the first that is not; 0 for what is not stacked, or frozen as a whole."""
        return 0 if self.whole or not self.frozen.ndim else int(self.frozen.argmin())

    @property
    def trained_rate(self) -> np.ndarray:
        """The factor from the first trained block on."""
        return self.rate[self.first :] if self.first else self.rate


@dataclass(frozen=True)
class Frozen:
    """What a training step leaves as it is.

    Attributes:
      paths: parameters that stay as a whole.
      rows: of stacked parameters that stay in part, which blocks do, `(l,)` bool.
      depth: how many of the first blocks stay with all that is in them.
    """

    paths: frozenset[str] = frozenset()
    rows: Mapping[str, np.ndarray] = field(default_factory=dict)
    depth: int = 0


NOTHING_FROZEN = Frozen()


def treatments(section: Mapping[str, Any], params_abstract: Any, network: Any = None) -> dict[str, Treatment]:
    """Return how each parameter is trained, by path.

    Args:
      section: the `optimizer` section of a configuration.
      params_abstract: nested dict of float32 arrays or shapes.
      network: configuration of the model that they belong to; asked for layers where rates or freezing go by layer, not
        needed otherwise.

    Raises:
      ConfigError: a pattern that matches no parameter, nothing left to train, or rates or freezing by layer where
        there are no blocks, fewer blocks, or a parameter of no layer.
    """
    shapes = {path: tuple(leaf.shape) for path, leaf in trees.flatten(params_abstract).items()}
    adapted = any(path.startswith(f"{ROOT}/") for path in shapes)
    default = rf"^({ROOT}/|head)" if adapted else "."
    trained = _matching_any(section["trained"] or (default,), shapes, "optimizer.trained")
    frozen = _matching_any(section["frozen"], shapes, "optimizer.frozen")
    below = _below(section, shapes, network)
    frozen = {path: frozen[path] | below[path] | ~trained[path] for path in shapes}
    if all(rows.all() for rows in frozen.values()):
        raise ConfigError(
            f"optimizer.frozen is {section['frozen']!r}, which leaves no parameter to train "
            f"(optimizer.trained is {section['trained']!r})."
        )
    decayed: set[str] = set().union(
        *(matching(pattern, shapes.keys(), "optimizer.decay") for pattern in section["decay"])
    )
    decays = dict.fromkeys(decayed, 1.0)
    for pattern, factor in reversed(section["weight_decay_multipliers"]):
        key = "optimizer.weight_decay_multipliers, for parameters that decay,"
        decays |= {path: float(factor) for path in matching(pattern, decayed, key)}
    rates = _multipliers(section["learning_rate_multipliers"], shapes)
    layers = _layer_rates(section, shapes, network)
    table = {}
    for path, shape in shapes.items():
        rate = np.asarray(layers[path] * _as_column(rates[path], shape), np.float32)
        rows = frozen[path] if 0 < np.mean(frozen[path]) < 1 else np.asarray(frozen[path].all())
        if rows.ndim:
            rate = np.where(_as_column(rows, shape), np.float32(0), rate)
        table[path] = Treatment(rows, decays.get(path, 0.0), rate)
    return table


def frozen_of(table: Mapping[str, Treatment]) -> Frozen:
    """Return what a training step leaves as it is."""
    blocks = frozen_blocks(table)
    return Frozen(
        frozenset(path for path, treatment in table.items() if treatment.whole),
        {path: t.frozen for path, t in table.items() if t.frozen.ndim and not t.whole},
        next(number for number in range(len(blocks) + 1) if number not in blocks),
    )


def frozen_blocks(table: Mapping[str, Treatment]) -> set[int]:
    """Return the numbers of the image encoder's blocks in which everything is frozen, low-rank factors too."""
    rows = [treatment.frozen for path, treatment in table.items() if _is_trunk(path)]
    together = np.logical_and.reduce(np.broadcast_arrays(*rows)) if rows else np.zeros((), np.bool_)
    return set(np.flatnonzero(together).tolist()) if together.ndim else set()


def stack_of(path: str) -> str:
    """Return the path of the stacked blocks that a parameter belongs to, or an empty string."""
    words = path.split("/")
    return "/".join(words[: words.index("blocks") + 1]) if "blocks" in words else ""


def _is_trunk(path: str) -> bool:
    """Return whether a parameter is part of the image encoder's blocks, or a low-rank factor beside one."""
    return stack_of(path.removeprefix(f"{ROOT}/")) in ("blocks", "encoder/blocks")


def _below(section: Mapping[str, Any], shapes: Shapes, network: Any) -> Rows:
    """Return what `frozen_blocks` or `trained_blocks` freeze: everything before the blocks, and the first of them."""
    number, trained = section["frozen_blocks"], section["trained_blocks"]
    if not number and trained < 0:
        return {path: np.zeros((), np.bool_) for path in shapes}
    key = "optimizer.frozen_blocks" if number else "optimizer.trained_blocks"
    depth = _depth(network, shapes, f"{key} is {number or trained}")
    if max(number, trained) > depth:
        raise ConfigError(
            f"{key} is {number or trained}, but the model has {depth} blocks; give 0 to {depth}."
        )
    first = number or depth - trained
    result = {}
    for path in shapes:
        # A position bias that all blocks share is frozen with them: its gradient would go through them.
        layer = _layer_of(network, path, "timm")
        result[path] = np.asarray(layer < first) | (layer == 0) if layer.ndim == 0 else layer <= first
    return result


def _layer_rates(section: Mapping[str, Any], shapes: Shapes, network: Any) -> Rows:
    """Return layer-wise factors of the learning rate, `decay ** (l + 1 - layer)`; see `models.family`."""
    decay = section["layer_decay"]
    if decay == 1:
        return {path: np.ones(()) for path in shapes}
    depth = _depth(network, shapes, f"optimizer.layer_decay is {decay}")
    rates = {}
    for path, shape in shapes.items():
        layer = _layer_of(network, path, section["layer_decay_rule"])
        rates[path] = np.power(decay, depth + 1 - _as_column(layer, shape))
    return rates


def _depth(network: Any, shapes: Shapes, setting: str) -> int:
    """Return the number of blocks of the image encoder, over all its stages."""
    depth = family_of(network).depth(network) if is_config(network) else 0
    if not depth or not any(map(stack_of, shapes)):
        raise ConfigError(f"{setting}, but the model has no stack of blocks; leave it out.")
    return depth


def _layer_of(network: Any, path: str, rule: str) -> np.ndarray:
    """Return the layer of a parameter, or of each of stacked blocks; low-rank factors count with what they change."""
    return np.asarray(family_of(network).layer_of(network, path.removeprefix(f"{ROOT}/"), rule))


def _matching_any(patterns: tuple[str, ...], shapes: Shapes, key: str) -> Rows:
    found: Rows = {path: np.zeros((), np.bool_) for path in shapes}
    for pattern in patterns:
        for path, rows in _matching_rows(pattern, shapes, key).items():
            found[path] = found[path] | rows
    return found


def _multipliers(factors: tuple[tuple[str, float], ...], shapes: Shapes) -> Rows:
    """Return the factor of each parameter: that of the first pattern found in it, or 1."""
    key, result = "optimizer.learning_rate_multipliers", {path: np.ones(()) for path in shapes}
    for pattern, factor in reversed(factors):
        if not factor:
            raise ConfigError(f"{key} has a factor of 0; list it in optimizer.frozen instead.")
        for path, rows in _matching_rows(pattern, shapes, key).items():
            result[path] = np.where(rows, factor, result[path])
    return result


def _matching_rows(pattern: str, shapes: Shapes, key: str) -> Rows:
    """Return in which parameters a pattern is found, and of stacked ones in which blocks.

    Raises:
      ConfigError: in none.
    """
    found: Rows = {}
    for path, shape in shapes.items():
        stack = stack_of(path)
        if re.search(pattern, path):
            found[path] = np.ones((), np.bool_)
        elif stack:
            names = (f"{stack}/{number}{path[len(stack) :]}" for number in range(shape[0]))
            rows = np.array([re.search(pattern, name) is not None for name in names])
            if rows.any():
                found[path] = rows
    return found or dict.fromkeys(
        matching(pattern, shapes.keys(), key), np.ones((), np.bool_)
    )  # which raises


def _as_column(rows: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Return a value for each of the stacked blocks so that it multiplies their parameters; one value as it is."""
    rows = np.asarray(rows)
    return rows.reshape(-1, *[1] * (len(shape) - 1)) if rows.ndim else rows
