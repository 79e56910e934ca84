"""What a training run left behind: its configuration, class names and parameters."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from vit_jax.checkpoints.checkpoints import Checkpoints
from vit_jax.checkpoints.files import check_described, locate
from vit_jax.errors import CheckpointError
from vit_jax.evaluation.evaluator import compile_evaluation, evaluate
from vit_jax.models.lora import ROOT
from vit_jax.models.storage import stored
from vit_jax.training.compilation import kept_programs
from vit_jax.training.config import read_saved, validate
from vit_jax.training.defaults import Config
from vit_jax.training.experiment import build
from vit_jax.training.mesh import replicated
from vit_jax.training.overrides import apply_override


@dataclass(frozen=True)
class Saved:
    """A checkpoint of a run, found but not loaded.

    Attributes:
      checkpoints: where it lies.
      step: which.
      config: what it was trained with.
      class_names: in order of label.
      eval_transforms: what happens to evaluation images.
      metrics: of the evaluation at this step, if there was one.
      model: as the run resolved it, as JSON; None in runs of versions that did not save it.
      averaged: whether a moving average of the parameters is there; it is what evaluation uses.
      adapted: whether low-rank factors lie beside the model's parameters.
    """

    checkpoints: Checkpoints
    step: int
    config: Config
    class_names: tuple[str, ...]
    eval_transforms: str
    metrics: dict[str, float]
    model: dict[str, Any] | None
    averaged: bool
    adapted: bool

    def params(self, abstract: Any, part: str = "") -> Any:
        """Return the verified parameters that evaluation uses.

        Args:
          abstract: tree of shapes and dtypes, with shardings if they should lie on several devices.
          part: path of the part that is wanted, for example `encoder`; all of them if empty.
        """
        path = "/".join(filter(None, ("ema" if self.averaged else "params", part)))
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
    workdir = Path(workdir)
    folder, named = locate(workdir)
    if named is not None:
        workdir, step = folder.parent, named
    if not os.path.isdir(workdir):
        raise CheckpointError(
            f"workdir {str(workdir)!r} does not exist; train first: vit-jax train --workdir ..."
        )
    checkpoints = Checkpoints(folder, read_only=True)
    newest = checkpoints.newest_metadata()
    if newest is None:
        raise CheckpointError(
            f"workdir {str(workdir)!r} has no checkpoint yet; train first, or give another one."
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
            f"{str(workdir)!r} holds a model that was saved, not a training run; use it as a checkpoint: "
            f"--checkpoint {workdir}."
        )
    for key in ("class_names", "eval_transforms"):
        if newest.get(key) is None:
            raise CheckpointError(
                f"checkpoint {newest['step']} of {str(workdir)!r} does not say its {key}; it is damaged."
            )
    return Saved(
        checkpoints,
        newest["step"],
        read_saved(newest["config"]),
        tuple(newest["class_names"]),
        newest["eval_transforms"],
        newest["metrics"],
        newest.get("model"),
        any(path.startswith("ema/") for path in newest["arrays"]),
        any(path.startswith(f"params/{ROOT}/") for path in newest["arrays"]),
    )


def evaluate_workdir(
    workdir: str | Path,
    overrides: Sequence[str] = (),
    *,
    step: int | None = None,
    best: bool = False,
    storage: str = "float32",
) -> dict[str, float]:
    """Return the metrics of a saved model on its evaluation split, every record counted once.

    Args:
      workdir: see `find`.
      overrides: changes of its configuration, `data.path=...`.
      step, best: see `find`.
      storage: how parameters are stored, see `models.storage`.
    """
    saved = find(workdir, step, best=best)
    config = saved.config
    for override in overrides:
        apply_override(config, override)
    config.evaluation.baselines = ()  # of training, and not for every source
    if not saved.adapted:
        config.lora.rank = 0  # the factors were merged when it was saved
    if config.objective.name == "classification":
        config.model.num_classes = len(saved.class_names)
    validate(config)
    experiment = build(config, earlier=saved.model)
    params = saved.params(experiment.abstract_state.params)
    buffers = experiment.abstract_state.buffers
    if jax.tree.leaves(buffers):
        restored = saved.checkpoints.restore_part("buffers", buffers, saved.step)
        assert restored is not None
        buffers = restored[0]
    run = compile_evaluation(
        experiment.objective, replicated(experiment.mesh), options=experiment.evaluation_options
    )
    with kept_programs(config.compilation.cache, Path(workdir)):
        metrics = evaluate(run, stored(params, storage), buffers, experiment.eval_batches())
    return {"step": saved.step} | metrics
