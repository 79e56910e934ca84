"""Anybody's checkpoint as a model of ours."""

import dataclasses
import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vit_jax import trees
from vit_jax.errors import CheckpointError, ConfigError
from vit_jax.models import names as model_names
from vit_jax.models.encoder_config import EncoderConfig, replace
from vit_jax.models.registry import ModelConfig, model_functions
from vit_jax.models.text_config import TextConfig
from vit_jax.models.vit_config import ViTConfig
from vit_jax.weights import adapt
from vit_jax.weights.fetch import fetch
from vit_jax.weights.files import open_checkpoint
from vit_jax.weights.layouts.layout import Layout
from vit_jax.weights.native import is_native, open_native
from vit_jax.weights.report import Report, few
from vit_jax.weights.rules import Rule
from vit_jax.weights.target import Shards, Whole, place
from vit_jax.weights.tensors import RawCheckpoint
from vit_jax.weights.understand import understand

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

        One array of the file is in memory at a time beside the parameters, and each goes straight to its devices.

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
        target = Shards(shape, sharding) if in_pieces and Shards.suits(shape, sharding) else Whole(shape)
        rule.read(own, self._shapes, lambda name: self._raw.tensors[name].read(), target)
        if path in self._changes:
            assert isinstance(target, Whole)
            return place(np.ascontiguousarray(self._changes[path][0](target.array)), sharding)
        return target.placed(sharding)

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


def load(
    source: str | Path,
    *,
    num_classes: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    in_channels: int | None = None,
    drop_path_rate: float | None = None,
    ignore: Sequence[str] = (),
    verbose: bool = True,
    seed: int = 0,
    **options: Any,
) -> Any:
    """Return the model of a checkpoint, computing what the library that published it computes.

    Args:
      source: a file or folder; a repository of the Hugging Face hub (`timm/vit_base_patch16_224.augreg_in21k_ft_in1k`,
        `hf-hub:google/vit-base-patch16-224`, `facebook/dinov2-base`); `gs://vit_models/...npz` or an https URL.
      num_classes: size of a new head, 0 for none; None keeps the checkpoint's.
      image_size: in pixels; positions are resampled by the rule of the model's family.
      in_channels: channels of the images; the first kernel is adapted.
      drop_path_rate: for training.
      ignore: patterns of arrays in the file, or of our parameters, that may be unknown or missing.
      verbose: whether to print what was changed, dropped or is new, if anything.
      seed: of new parameters.
      **options: see `open_pretrained`.

    Returns:
      A `VisionTransformer`, `MaskedAutoencoder`, `ImageTextModel` or `TextTransformer`; its `config.preprocessing`
      is that of the source.

    Raises:
      CheckpointError: there is no such checkpoint, it is damaged, or it holds what the model does not have.
      ConfigError: an option is wrong.
    """
    pretrained = open_pretrained(
        source,
        num_classes=num_classes,
        image_size=image_size,
        in_channels=in_channels,
        drop_path_rate=drop_path_rate,
        ignore=ignore,
        **options,
    )
    report = pretrained.report
    if verbose and (report.changed or report.new or report.dropped):
        print(report)
    return model_functions(pretrained.config).bind(pretrained.params(seed=seed))


def open_pretrained(
    source: str | Path,
    *,
    num_classes: int | None = None,
    image_size: Any = None,
    in_channels: int | None = None,
    drop_path_rate: float | None = None,
    ignore: Sequence[str] = (),
    model: str | ModelConfig | None = None,
    part: str | None = None,
    patch_resample: str = "flexi",
    head_std: float = 0.0,
    native_size: bool = False,
    **options: Any,
) -> Pretrained:
    """Return a checkpoint understood and checked, from its headers alone.

    Args:
      source, num_classes, image_size, in_channels, drop_path_rate, ignore: see `load`.
      model: name or configuration of the model, for files that do not say it.
      part: `image`, `text` or `encoder` of a model of several parts; None for all, or for the part that can have
        classes when `num_classes` is given.
      patch_resample: how patch kernels go to another `patch_size`, `flexi` or `bilinear`.
      head_std: deviation of a new head's weights; 0 starts it at zero.
      native_size: keep the size of the checkpoint's positions even if its preprocessing makes smaller images.
      **options: any field of `ViTConfig`, for example `patch_size`, `pool` or `dtype`.

    Raises:
      CheckpointError, ConfigError: see `load`.
    """
    raw, layout = open_layout(source, model)
    prefix, config = adapt.part_of(layout.config, part, bool(num_classes))
    if isinstance(config, ViTConfig):
        if image_size is None and not native_size:
            image_size = layout.input_size
        target = adapt.adapted(
            config,
            num_classes=num_classes,
            image_size=image_size,
            in_channels=in_channels,
            drop_path_rate=drop_path_rate,
            **options,
        )
        changes = adapt.changes(config, target, patch_resample)
    else:
        sizes = dict(num_classes=num_classes, image_size=image_size, in_channels=in_channels)
        asked = {name: value for name, value in {**sizes, **options}.items() if value is not None}
        target, changes = _whole(config, asked, drop_path_rate), {}
    return _matched(raw, layout, prefix, config, target, changes, ignore, head_std, str(source))


def open_layout(source: str | Path, model: str | ModelConfig | None = None) -> tuple[RawCheckpoint, Layout]:
    """Return a checkpoint, fetched if need be, and what it is; see `open_pretrained`."""
    path = fetch(str(source))
    if is_native(path):
        return open_native(path)
    raw = open_checkpoint(path)
    if isinstance(model, str):
        model = model_names.resolve(model)[1]
    return understand(raw, model)


def _whole(config: ModelConfig, asked: Mapping[str, Any], drop_path_rate: float | None) -> ModelConfig:
    """Return a model of several parts with options that concern how it runs; others would not fit its weights."""
    if drop_path_rate is not None:
        asked = {**asked, "drop_path_rate": drop_path_rate}
    for name in asked:
        if name not in ("dtype", "attention", "remat", "unroll"):
            raise ConfigError(
                f"{name} cannot change in a model of several parts; load one of them, with part='image', 'text' or "
                "'encoder'."
            )
    if isinstance(config, TextConfig):
        return replace(config, **asked)
    parts = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    towers = {name: replace(part, **asked) for name, part in parts.items() if isinstance(part, EncoderConfig)}
    return dataclasses.replace(config, **towers)


def _matched(
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
    """Return what each parameter becomes; anything unexpected is an error unless it is to be ignored."""
    report, depth = Report(source), _depths(layout.config)
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


@lru_cache(maxsize=16)
def shapes_of(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return the shape of every parameter of a model by path; nothing is allocated."""
    abstract = jax.eval_shape(model_functions(config).init, jax.random.key(0))
    return {path: leaf.shape for path, leaf in trees.flatten(abstract).items()}


def _depths(config: ModelConfig) -> Any:
    """Return the function from a path to the number of blocks it is stacked from."""

    def depth(path: str) -> int:
        own: Any = config
        for name in path.split("/")[:1]:
            own = (
                getattr(config, name, config)
                if dataclasses.is_dataclass(getattr(config, name, None))
                else config
            )
        return getattr(own, "depth", 0)

    return depth


def _start(path: str, head_std: float) -> str:
    if path.startswith("head"):
        return f"normal, deviation {head_std:g}" if head_std and path.endswith("kernel") else "zero"
    return "as in a new model"
