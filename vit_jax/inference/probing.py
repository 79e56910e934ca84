"""What frozen features of a checkpoint are good for, on any records: nearest neighbours, linear classifiers, rank."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from vit_jax.compiler_options import prediction_options
from vit_jax.errors import ConfigError, argument
from vit_jax.evaluation.probes.features import Embed, compile_features
from vit_jax.evaluation.probes.measuring import Bench
from vit_jax.evaluation.probes.names import parse_probes
from vit_jax.inference.evaluating import check_data_said
from vit_jax.inference.published import is_run
from vit_jax.inference.workdir import Saved, find
from vit_jax.models.families import is_image_encoder
from vit_jax.objectives.base import Batch
from vit_jax.objectives.encoder import pooled_features
from vit_jax.processes import say
from vit_jax.training.config.defaults import Config, default_config
from vit_jax.training.config.load import validate
from vit_jax.training.config.overrides import apply_override
from vit_jax.training.devices.compilation import kept_programs
from vit_jax.training.devices.hardware import compute_dtype
from vit_jax.training.devices.mesh import batch_sharding, check_batch, make_mesh, replicated, shard_batch
from vit_jax.training.parts.data import make_data
from vit_jax.training.parts.probes import make_probes
from vit_jax.training.parts.records import open_records


@dataclass(frozen=True)
class Probed:
    """What probes found.

    Attributes:
      metrics: by name, in the order of the probes.
      bank, queries: how many training and evaluation records there are.
      splits: of the data; None of records that were given.
      width: of the features.
      step: of a run's checkpoint.
    """

    metrics: dict[str, float]
    bank: int
    queries: int
    splits: tuple[str, str] | None
    width: int
    step: int | None

    @property
    def origin(self) -> str:
        """What was probed, in words."""
        step = "" if self.step is None else f"step {self.step}, "
        train, evaluation = (f" of split {split!r}" for split in self.splits) if self.splits else ("", "")
        bank = f"{step}{self.width} features of {self.bank:,} records{train}"
        return f"{bank}, asked about {self.queries:,}{evaluation}"

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON can hold it, the metrics first and by their names."""
        found: dict[str, Any] = {} if self.step is None else {"step": self.step}
        splits = dict(zip(("bank_split", "split"), self.splits or (None, None)))
        return (
            found | self.metrics | splits | {"bank": self.bank, "records": self.queries, "width": self.width}
        )


def probe(
    source: str | Path,
    probes: Sequence[str],
    overrides: Sequence[str] = (),
    *,
    step: int | None = None,
    best: bool = False,
    weights: str | None = None,
    sources: tuple[Any, Any] | None = None,
) -> Probed:
    """Return what probes say of the features of a run or of a published checkpoint.

    Features are what goes into the model's head, see `objectives.encoder`. The bank is the training split, the
    questions the evaluation split, both under evaluation transforms; classes need not be the model's.

    Args:
      source: a workdir, or whatever `vit_jax.load` takes.
      probes: names, see `evaluation.probes.names`.
      overrides: changes of the run's configuration, or of the default one for a checkpoint: which data
        (`data.source=folder`, `data.path=...`), `evaluation.shots=(1, 5)`.
      step, best, weights: see `Predictor.load`.
      sources: training and evaluation records instead of those that the configuration names, see `as_sources`.

    Raises:
      VitError: checkpoint or data cannot be read, or a probe cannot be asked of these records.
    """
    encoder = _of_run(source, step, best) if is_run(source) else _published(source, weights)
    if weights is not None and encoder.saved is not None:
        raise ConfigError(
            f"{str(source)!r} is a training run; leave out weights, which select among those of published files."
        )
    if encoder.saved is not None:
        check_data_said(encoder.saved, source, overrides, sources)
    config = encoder.config
    for override in overrides:
        apply_override(config, override)
    _without_training(config, probes)
    model = encoder.model
    records = open_records(config.data, model, sources)
    asked = make_probes(config.evaluation, records.train, records.evaluation, model.dtype)
    data = make_data(config.data, config.seed, records, model)
    mesh = make_mesh(config.mesh, jax.devices())
    check_batch(data.eval_batch_size, 1, mesh, "data.eval_batch_size")
    whole = replicated(mesh)
    bench = Bench(
        compile_features(
            encoder.embed, whole, options=prediction_options(mesh.devices.flat[0].platform, model.dtype)
        ),
        lambda: (shard_batch(batch, mesh) for batch in data.bank_batches()),
        lambda: (shard_batch(batch, mesh) for batch in data.eval_batches(numbered=True)),
        records.train.num_classes,
        batch_sharding(mesh),
        say,
    )
    with kept_programs(config.compilation.cache, Path(source if encoder.saved else ".")):
        params, buffers = jax.device_put(encoder.state(), whole)
        bank, queries = bench.features(params, buffers)
        metrics = bench.of_features(asked, bank, queries)
    return Probed(
        metrics,
        len(bank),
        len(queries),
        None if sources is not None else (config.data.train_split, config.data.eval_split),
        bank.values.shape[1],
        None if encoder.saved is None else encoder.saved.step,
    )


@dataclass(frozen=True)
class _Encoder:
    """What gives features, not read yet.

    Attributes:
      model: its configuration.
      config: the run's, or the default one.
      embed: of parameters, buffers and a batch, the features.
      state: reads parameters and buffers.
      saved: the run's checkpoint; None for a published one.
    """

    model: Any
    config: Config
    embed: Embed
    state: Callable[[], tuple[Any, Any]]
    saved: Saved | None = None


def _of_run(source: str | Path, step: int | None, best: bool) -> _Encoder:
    saved = find(source, step, best=best)
    learned = saved.objective()
    config = saved.config.copy_and_resolve_references()
    return _Encoder(learned.model, config, learned.features, lambda: saved.state(learned), saved)


def _published(source: str | Path, weights: str | None) -> _Encoder:
    # Here because reading checkpoints takes imports that runs of our own do not need.
    from vit_jax.weights.load import open_pretrained

    config = default_config()
    dtype = compute_dtype(config.compute_dtype)
    pretrained = open_pretrained(source, num_classes=0, dtype=dtype, weights=weights)
    model = pretrained.config
    if not is_image_encoder(model):
        raise ConfigError(
            f"checkpoint {str(source)!r} is not an image encoder, so it has no features to probe."
        )

    def embed(params: Any, buffers: Any, batch: Batch) -> jax.Array:
        return pooled_features(model, params, buffers, batch)

    return _Encoder(model, config, embed, lambda: (pretrained.params(), {}))


def _without_training(config: Config, probes: Sequence[str]) -> None:
    """Leave data, mesh and these probes in a configuration, and check them."""
    for name, interval in parse_probes(probes, "probes").items():
        if interval:
            raise ConfigError(
                f"{argument('probes')} has '{name}:{interval}', but here each probe runs once; write {name!r}."
            )
    config.data.update(balanced=False, train_transforms=config.data.eval_transforms)
    config.evaluation.update(probes=tuple(parse_probes(probes, "probes")), monitor="", baselines=())
    validate(config)
