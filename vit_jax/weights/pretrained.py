"""A checkpoint matched with the model that is wanted: what each parameter becomes, before any is read."""

import fnmatch
import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from vit_jax import trees
from vit_jax.data.classes import are_counted
from vit_jax.errors import CheckpointError, ConfigError, argument
from vit_jax.models.adaptation import Change
from vit_jax.models.families import family_of
from vit_jax.models.registry import ModelConfig, model_functions
from vit_jax.weights.formats.tensors import RawCheckpoint
from vit_jax.weights.layouts.layout import Layout
from vit_jax.weights.report import Report, few
from vit_jax.weights.rules import Rule
from vit_jax.weights.target import Shards, Whole, place

Params = dict[str, Any]
# How libraries name what stands on a backbone, at the beginning of a name or in its second part.
_HEAD = re.compile(
    r"([^./]+[./])?([a-z0-9]+_)*(heads?|classifier|projection|projector|pooler|decoder|predictor|logits|fc)(_[a-z]+)?[./].*"
)


@dataclass(frozen=True)
class Pretrained:
    """A checkpoint that is understood; its arrays have not been read yet.

    Attributes:
      config: the model, with the sizes that were asked for.
      report: what is loaded, changed, new and dropped.
      class_names: in order of logits, if the checkpoint says them and the head is its own.
      named: whether somebody gave these names; False where they only count.
    """

    config: ModelConfig
    report: Report
    class_names: tuple[str, ...]
    named: bool
    _raw: RawCheckpoint = field(repr=False)
    _rules: Mapping[str, Rule] = field(repr=False)  # our path -> where it is
    _shapes: Mapping[str, tuple[int, ...]] = field(repr=False)  # in the file's model
    _changes: Mapping[str, Change] = field(repr=False)
    _prefix: str = field(repr=False)
    _head_std: float = field(repr=False)

    def params(self, shardings: Mapping[str, Any] | None = None, *, seed: int = 0) -> Params:
        """Return the parameters, a nested dict of float32 arrays; batch statistics are among them.

        A few arrays of the file at a time are in memory beside the parameters, and each goes straight to its devices.

        Args:
          shardings: our path -> sharding; None puts all on the default device.
          seed: of the parameters that are new.

        Raises:
          CheckpointError: the file cannot be read, or does not hold what it should.
        """
        flat: dict[str, Any] = {}
        for path in (*self.report.loaded, *self.report.changed):
            flat[path] = self._read(path, shardings and shardings[path])
        if self.report.new:
            flat.update(self._new(shardings, seed))
        return trees.unflatten(flat)

    def _read(self, path: str, sharding: Any) -> jax.Array:
        own = self._prefix + path
        rule, shape = self._rules[own], self._shapes[own]
        in_pieces = sharding is not None and rule.in_blocks and path not in self._changes
        kind = Shards if in_pieces and Shards.suits(shape, sharding) else Whole
        target = kind(shape, sharding)
        rule.read(own, self._shapes, lambda name: self._raw.tensors[name].read(), target)
        if path in self._changes:
            assert isinstance(target, Whole)
            return place(np.ascontiguousarray(self._changes[path][0](target.array)), sharding)
        return target.placed()

    def _new(self, shardings: Mapping[str, Any] | None, seed: int) -> dict[str, Any]:
        wanted, functions = set(self.report.new), model_functions(self.config)

        def init(key: jax.Array) -> dict[str, jax.Array]:
            params, buffers = functions.init_state(key)
            every = trees.flatten(params) | trees.flatten(buffers)
            flat = {path: leaf for path, leaf in every.items() if path in wanted}
            for path in wanted & {f"{head}/kernel" for head in family_of(self.config).head}:
                noise = jax.random.normal(jax.random.fold_in(key, 1), flat[path].shape, np.float32)
                flat[path] = flat[path] + self._head_std * noise
            return flat

        places = None if shardings is None else {path: shardings[path] for path in wanted}
        quick = {"xla_backend_optimization_level": 0}
        return jax.jit(init, out_shardings=places, compiler_options=quick)(jax.random.key(seed))


def matched(
    raw: RawCheckpoint,
    layout: Layout,
    prefix: str,
    config: ModelConfig,
    target: ModelConfig,
    changes: Mapping[str, Change],
    ignore: "Sequence[str] | Ignored",
    head_std: float,
    source: str,
    headless: bool = False,
    fresh: Container[str] = (),
    classes: tuple[tuple[str, ...], bool] | None = None,
) -> Pretrained:
    """Return what each parameter becomes; anything unexpected is an error unless it is to be ignored.

    Args:
      raw, layout: the checkpoint.
      prefix: path of the part that is wanted, with a slash; empty for all.
      config: the part in the file.
      target: the model that is wanted.
      changes: of parameters on the way, see `models.adaptation`.
      ignore: patterns of what may be unknown or missing.
      head_std: deviation of a new head's weights.
      source: name for the report.
      headless: whether the file's head was asked to be left out.
      fresh: paths of what starts anew though it would fit.
      classes: names of the head's, and whether somebody gave them; None for those of the file.

    Raises:
      CheckpointError: something is missing, or not part of the model.
      ConfigError: an entry of `ignore` matches nothing.
    """
    report = Report(source, weights=raw.weights, other_weights=raw.others)
    held = shapes_of(layout.config)

    def depth(path: str) -> int:  # of the blocks that it is stacked from
        return next(iter(held.get(path, ())), 0)

    report.dropped |= dict.fromkeys(raw.left_out, f"beside {raw.weights}")
    for rule in layout.rules:
        if rule.in_blocks and rule.per_layer and (blocks := depth(rule.ours[0])) > len(raw.tensors):
            raise CheckpointError(
                f"{raw.origin} holds {len(raw.tensors)} arrays, but its model has {blocks} blocks; it is incomplete."
            )
    rules = {path: rule for rule in layout.rules for path in rule.ours}
    wanted = shapes_of(target)
    used: set[str] = set()
    ignored = ignore if isinstance(ignore, Ignored) else Ignored(ignore)
    for path, shape in wanted.items():
        own = prefix + path
        rule = rules.get(own)
        names = list(rule.names(depth(own))) if rule else []
        missing = [name for name in names if name not in raw.tensors]
        refit = path not in fresh and (path in changes or held.get(own) == shape)
        if rule is None or not refit:
            report.new[path] = _start(path, head_std)
        elif missing and ignored(own, *missing):
            report.new[path] = "missing in the checkpoint, ignored"
        elif missing:
            remedy = f"{argument('ignore', [own], key='model.ignore')} would initialise it afresh."
            if path.startswith("head"):
                remedy = f"{argument('num_classes', 0, key='model.num_classes')} loads it without a head."
            raise CheckpointError(
                f"{raw.origin} lacks {few(missing)}, needed for {path}; it is incomplete or of a different model. "
                f"{remedy}"
            )
        elif path in changes:
            report.changed[path] = changes[path][1]
        else:
            report.loaded.append(path)
        if rule is not None and path not in report.new:
            used.update(names)
    known = {name: own for own, rule in rules.items() for name in rule.names(depth(own))}
    for name in raw.tensors:
        if name in used or any(fnmatch.fnmatch(name, pattern) for pattern in layout.computed):
            continue
        if 0 in raw.tensors[name].shape:  # no registers, as an array of none
            continue
        if name in known or any(fnmatch.fnmatch(name, pattern) for pattern in layout.others):
            report.dropped[name] = "not part of the model"
        elif ignored(name):
            report.dropped[name] = "unknown, ignored"
        elif _HEAD.fullmatch(name) and headless:
            report.dropped[name] = "a head, left out"
        else:
            remedy = f"{argument('ignore', [name], key='model.ignore')} leaves it out."
            if _HEAD.fullmatch(name):
                remedy = (
                    "it is a trained head, which the outputs would lack: load the features alone, "
                    f"{argument('num_classes', 0, key='model.num_classes')}, or start a new head of another size."
                )
            raise CheckpointError(
                f"{raw.origin} holds {name!r} {raw.tensors[name].shape}, which the model does not have; {remedy}"
            )
    if ignored is not ignore:  # else its owner asks
        ignored.check()
    if not report.loaded:
        raise CheckpointError(f"{raw.origin} holds nothing of this model.")
    own_head = not any(path.startswith("head") for path in report.new)
    outputs = getattr(target, "num_classes", 0)
    names, named = (classes or names_of(layout)) if own_head and outputs else ((), False)
    if names and len(names) != outputs:
        raise CheckpointError(
            f"{raw.origin} has {outputs} outputs and {len(names)} class names, so they cannot be matched; repair "
            f"or remove its names, or load it without a head, {argument('num_classes', 0, key='model.num_classes')}."
        )
    return Pretrained(target, report, names, named, raw, rules, held, changes, prefix, head_std)


def names_of(layout: Layout) -> tuple[tuple[str, ...], bool]:
    """Return the names of a checkpoint's classes, and whether somebody gave them."""
    names = layout.class_names
    return names, bool(names) and (not are_counted(names) if layout.named is None else layout.named)


class Ignored:
    """What may be unknown or missing.

    Args:
      patterns: shell patterns of their names or our paths.
    """

    def __init__(self, patterns: Sequence[str]):
        self.patterns = (patterns,) if isinstance(patterns, str) else tuple(patterns)
        self.matched: set[str] = set()

    def __call__(self, *names: str) -> bool:
        """Return whether one of the names is to be ignored."""
        found = {p for p in self.patterns for name in names if fnmatch.fnmatch(name, p)}
        self.matched |= found
        return bool(found)

    def check(self) -> None:
        """Raise ConfigError if a pattern matched nothing, which is a mistake."""
        for pattern in self.patterns:
            if pattern not in self.matched:
                raise ConfigError(
                    f"{argument('ignore', key='model.ignore')} has {pattern!r}, which matches no unknown or "
                    "missing array; leave it out."
                )


def shapes_of(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return the shape of every parameter and batch statistic of a model by path; nothing is allocated."""
    functions = model_functions(config)
    every = trees.flatten(functions.abstract) | trees.flatten(functions.abstract_buffers)
    return {path: leaf.shape for path, leaf in every.items()}


def _start(path: str, head_std: float) -> str:
    if path.startswith("head") and path.endswith(("kernel", "bias")):
        return f"normal, deviation {head_std:g}" if head_std and path.endswith("kernel") else "zero"
    return "as in a new model"
