"""A checkpoint matched with the model that is wanted: what each parameter becomes, before any is read."""

import dataclasses
import fnmatch
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from vit_jax import trees
from vit_jax.errors import CheckpointError, ConfigError
from vit_jax.models.registry import ModelConfig, model_functions
from vit_jax.weights import adapt
from vit_jax.weights.layouts.layout import Layout
from vit_jax.weights.report import Report, few
from vit_jax.weights.rules import Rule
from vit_jax.weights.target import Shards, Whole, place
from vit_jax.weights.tensors import RawCheckpoint

Params = dict[str, Any]


@dataclass(frozen=True)
class Pretrained:
    """A checkpoint that is understood; its arrays have not been read yet.

    Attributes:
      config: the model, with the sizes that were asked for.
      report: what is loaded, changed, new and dropped.
      class_names: in order of logits, if the checkpoint says them and the head is its own.
    """

    config: ModelConfig
    report: Report
    class_names: tuple[str, ...]
    _raw: RawCheckpoint = field(repr=False)
    _rules: Mapping[str, Rule] = field(repr=False)  # our path -> where it is
    _shapes: Mapping[str, tuple[int, ...]] = field(repr=False)  # in the file's model
    _changes: Mapping[str, adapt.Change] = field(repr=False)
    _prefix: str = field(repr=False)
    _head_std: float = field(repr=False)

    def params(self, shardings: Mapping[str, Any] | None = None, *, seed: int = 0) -> Params:
        """Return the parameters, a nested dict of float32 arrays.

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
            flat = {path: leaf for path, leaf in trees.flatten(functions.init(key)).items() if path in wanted}
            for path in wanted & {"head/kernel", "head_distillation/kernel"}:
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
    changes: Mapping[str, adapt.Change],
    ignore: Sequence[str],
    head_std: float,
    source: str,
) -> Pretrained:
    """Return what each parameter becomes; anything unexpected is an error unless it is to be ignored.

    Args:
      raw, layout: the checkpoint.
      prefix: path of the part that is wanted, with a slash; empty for all.
      config: the part in the file.
      target: the model that is wanted.
      changes: of parameters on the way, see `adapt.changes`.
      ignore: patterns of what may be unknown or missing.
      head_std: deviation of a new head's weights.
      source: name for the report.

    Raises:
      CheckpointError: something is missing, or not part of the model.
      ConfigError: an entry of `ignore` matches nothing.
    """
    report, depth = Report(source), _depths(layout.config)
    for rule in layout.rules:
        if rule.in_blocks and rule.per_layer and (blocks := depth(rule.ours[0])) > len(raw.tensors):
            raise CheckpointError(
                f"{raw.origin} holds {len(raw.tensors)} arrays, but its model has {blocks} blocks; it is incomplete."
            )
    rules = {path: rule for rule in layout.rules for path in rule.ours}
    wanted, held = shapes_of(target), shapes_of(layout.config)
    used: set[str] = set()
    ignored = Ignored(ignore)
    for path, shape in wanted.items():
        own = prefix + path
        rule = rules.get(own)
        names = list(rule.names(depth(own))) if rule else []
        missing = [name for name in names if name not in raw.tensors]
        refit = path in changes or held.get(own) == shape
        if rule is None or not refit:
            report.new[path] = _start(path, head_std)
        elif missing and ignored(own, *missing):
            report.new[path] = "missing in the checkpoint, ignored"
        elif missing:
            raise CheckpointError(
                f"{raw.origin} lacks {few(missing)}, needed for {path}; it is incomplete or of another model. "
                f"ignore=[{own!r}] would start it anew."
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
        if name in known or any(fnmatch.fnmatch(name, pattern) for pattern in layout.others):
            report.dropped[name] = "not part of the model"
        elif ignored(name):
            report.dropped[name] = "unknown, ignored"
        else:
            raise CheckpointError(
                f"{raw.origin} holds {name!r} {raw.tensors[name].shape}, which the model does not have; "
                f"ignore=[{name!r}] leaves it out."
            )
    ignored.check()
    if not report.loaded:
        raise CheckpointError(f"{raw.origin} holds nothing of this model.")
    own_head = not any(path.startswith("head") for path in report.new)
    names = layout.class_names if own_head and getattr(target, "num_classes", 0) else ()
    return Pretrained(target, report, names, raw, rules, held, changes, prefix, head_std)


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
                    f"ignore has {pattern!r}, which matches nothing unknown or missing; leave it out."
                )


def shapes_of(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return the shape of every parameter of a model by path; nothing is allocated."""
    return {path: leaf.shape for path, leaf in trees.flatten(model_functions(config).abstract).items()}


def _depths(config: ModelConfig) -> Callable[[str], int]:
    """Return the function from a path to the number of blocks it is stacked from."""

    def depth(path: str) -> int:
        own = getattr(config, path.partition("/")[0], None)
        return getattr(own if dataclasses.is_dataclass(own) else config, "depth", 0)

    return depth


def _start(path: str, head_std: float) -> str:
    if path.startswith("head"):
        return f"normal, deviation {head_std:g}" if head_std and path.endswith("kernel") else "zero"
    return "as in a new model"
