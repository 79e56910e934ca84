"""What a training run left behind: its configuration, class names, parameters and buffers."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from vit_jax import trees
from vit_jax.checkpoints.checkpoints import Checkpoints
from vit_jax.checkpoints.files import check_described, locate
from vit_jax.data.classes import are_counted
from vit_jax.errors import CheckpointError
from vit_jax.models.layers.lora import ROOT, Lora
from vit_jax.models.registry import model_functions
from vit_jax.objectives.adapted import Adapted
from vit_jax.objectives.base import Objective
from vit_jax.objectives.encoder import encoder_paths, encoder_state
from vit_jax.objectives.options import parse_options, training_options
from vit_jax.objectives.protocol import DataInfo
from vit_jax.objectives.registry import build_objective
from vit_jax.paths import expanded
from vit_jax.training.config.defaults import Config
from vit_jax.training.config.load import read_saved
from vit_jax.training.config.model import resolve_model
from vit_jax.weights.native import evaluated_with


@dataclass(frozen=True)
class Saved:
    """A checkpoint of a run, found but not loaded.

    Attributes:
      checkpoints: where it lies.
      step: which.
      config: what it was trained with.
      class_names: in order of label.
      named: whether these are names that somebody gave, see `Source.named`.
      eval_transforms: what happens to evaluation images.
      metrics: of the evaluation at this step, if there was one.
      model: as the run resolved it, as JSON; None in runs of versions that did not save it.
      averaged: whether a moving average of the parameters is there; it is what evaluation uses.
      adapted: whether low-rank factors lie beside the model's parameters.
      given: whether it was trained on records from outside, which its configuration does not name.
    """

    checkpoints: Checkpoints
    step: int
    config: Config
    class_names: tuple[str, ...]
    named: bool
    eval_transforms: str
    metrics: dict[str, float]
    model: dict[str, Any] | None
    averaged: bool
    adapted: bool
    given: bool

    def params(self, abstract: Any, part: str = "") -> Any:
        """Return the verified parameters that evaluation uses.

        Args:
          abstract: tree of shapes and dtypes, with shardings if they should lie on several devices.
          part: path of the part that is wanted, for example `encoder`; all of them if empty.
        """
        return self._restored("/".join(filter(None, ("ema" if self.averaged else "params", part))), abstract)

    def buffers(self, abstract: Any, part: str = "") -> Any:
        """Return the verified buffers, see `params`; nothing where there are none."""
        path = "/".join(filter(None, ("buffers", part)))
        return self._restored(path, abstract) if jax.tree.leaves(abstract) else abstract

    def objective(self, build: Callable[..., Objective] | None = None) -> Objective:
        """Return what it was trained for, with what its evaluation has found, and without the low-rank factors that lie
        beside its parameters.

        Args:
          build: makes it, if the run was given one, see `objectives.registry`.

        Raises:
          ConfigError: the run does not say what it needs, or there is no such objective.
        """
        config = self.config.copy_and_resolve_references()
        without_training(config)
        model = resolve_model(config.model, config.compute_dtype, len(self.class_names), self.model)[0]
        model = evaluated_with(model, self.eval_transforms)  # so that it is written with it, too
        info = DataInfo(len(self.class_names), self.class_names)
        return build_objective(parse_options(config.objective.to_dict()), model, info, build).settled(
            self.metrics
        )

    def state(self, objective: Objective) -> tuple[Any, Any]:
        """Return the parameters that evaluation uses, low-rank factors merged, and the buffers, on one device."""
        adapted = Adapted(objective, Lora(**self.config.lora.to_dict())) if self.adapted else objective
        abstract, buffers = jax.eval_shape(adapted.init, jax.random.key(0))
        params = self.params(abstract)
        merged = jax.jit(adapted.lora.merge)(params) if isinstance(adapted, Adapted) else params
        return merged, self.buffers(buffers)

    def encoder(self, objective: Objective, name: str | None = None) -> tuple[Any, Any]:
        """Return the parameters of one of the objective's encoders and the buffers beside them, see `state`.

        Args:
          objective: what it was trained for.
          name: see `objectives.encoder.encoder_paths`.
        """
        if self.adapted:
            return encoder_state(objective, *self.state(objective), name)
        # Not what `init` makes: it may ask for the teachers that a student learned from, and no longer needs.
        functions, (own, state) = model_functions(objective.model), encoder_paths(objective, name)
        if own == state:  # a moving one, which holds both
            both = trees.flatten(functions.abstract) | trees.flatten(functions.abstract_buffers)
            params = self._part(trees.unflatten(both), own)
            return params, params
        params = self._part(functions.abstract, own)
        return params, self._part(functions.abstract_buffers, state) if functions.abstract_buffers else {}

    def _part(self, abstract: Any, path: str) -> Any:
        kind, _, part = path.partition("/")
        return self.params(abstract, part) if kind == "params" else self.buffers(abstract, part)

    def _restored(self, path: str, abstract: Any) -> Any:
        restored = self.checkpoints.restore_part(path, abstract, self.step)
        assert restored is not None
        return restored[0]


def find(workdir: str | Path, step: int | None = None, *, best: bool = False) -> Saved:
    """Return a checkpoint of a workdir, or of a checkpoint directory itself (`WORKDIR/checkpoints/STEP`).

    Args:
      workdir: the folder given to training.
      step: which checkpoint; None takes the newest.
      best: take the best by the monitored metric instead.

    Raises:
      CheckpointError: there is none.
    """
    workdir = Path(expanded(workdir))
    folder, named = locate(workdir)
    if named is not None:
        workdir, step = folder.parent, named
    if not os.path.isdir(workdir):
        raise CheckpointError(
            f"{str(workdir)!r} does not exist; give the workdir of a run, or a checkpoint's file, folder or name."
        )
    checkpoints = Checkpoints(folder, read_only=True)
    newest = checkpoints.newest_metadata()
    if newest is None:
        raise CheckpointError(
            f"workdir {str(workdir)!r} has no checkpoint yet; train first, or give another workdir."
        )
    if best:
        monitor, mode = newest.get("monitor", ""), newest.get("monitor_mode", "max")
        scored = Checkpoints(checkpoints.directory, read_only=True, monitor=monitor, monitor_mode=mode)
        step = scored.best_step()
        if step is None:
            raise CheckpointError(
                f"no checkpoint of workdir {str(workdir)!r} was saved together with an evaluation of {monitor!r}; "
                "leave out --best."
            )
    steps = checkpoints.steps()
    if step is not None and step not in steps:
        raise CheckpointError(
            f"workdir {str(workdir)!r} has no checkpoint of step {step}; it has {', '.join(map(str, steps))}."
        )
    newest = check_described(newest if step is None else checkpoints.metadata(step), workdir)
    if newest.get("config") is None:
        raise CheckpointError(
            f"{str(workdir)!r} holds a saved model, not a training run; use it as a checkpoint: "
            f"--checkpoint {workdir}."
        )
    for key in ("class_names", "eval_transforms"):
        if newest.get(key) is None:
            raise CheckpointError(
                f"checkpoint {newest['step']} of {str(workdir)!r} lacks its {key} and is damaged."
            )
    names = tuple(newest["class_names"])
    return Saved(
        checkpoints,
        newest["step"],
        read_saved(newest["config"]),
        names,
        newest.get("classes_named", not are_counted(names)),  # versions before did not say it
        newest["eval_transforms"],
        newest["metrics"],
        newest.get("model"),
        any(path.startswith("ema/") for path in newest["arrays"]),
        any(path.startswith(f"params/{ROOT}/") for path in newest["arrays"]),
        _given(newest),
    )


def _given(metadata: dict[str, Any]) -> bool:
    data, section = metadata.get("data"), metadata["config"].get("data", {})
    # Arrays from nowhere are those that a `Classifier` was fitted to.
    from_nowhere = isinstance(section, dict) and section.get("source") == "arrays" and not section.get("path")
    return from_nowhere or (isinstance(data, dict) and data.get("given") is True)


def without_training(config: Config) -> None:
    """Leave out of a configuration what concerns training alone: it need not go with the data to evaluate on."""
    config.duration = "1 step"
    config.schedule.update(name="constant", warmup="0 steps", cooldown="0 steps", final=0.0)
    config.schedule.milestones, config.optimizer.delay = (), ()
    config.evaluation.baselines = ()
    config.data.update(mixture=(), balanced=False)
    config.data.train_split, config.data.train_transforms = (
        config.data.eval_split,
        config.data.eval_transforms,
    )
    for name in training_options(config.objective.name):
        if name in config.objective:
            del config.objective[name]
