"""Published checkpoints beside training runs: what a name means, their classes, their accuracy."""

import os
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import jax

from vit_jax import trees
from vit_jax.checkpoints.checkpoints import Checkpoints
from vit_jax.checkpoints.files import locate
from vit_jax.data.classes import BY_NAME
from vit_jax.errors import ConfigError
from vit_jax.inference.evaluating import in_classes_of
from vit_jax.inference.evaluation import Evaluation, run_evaluation
from vit_jax.inference.workdir import without_training
from vit_jax.models.config_json import config_to_json
from vit_jax.models.problem import LOSSES
from vit_jax.objectives.base import Objective
from vit_jax.paths import expanded
from vit_jax.processes import say
from vit_jax.training.config.defaults import default_config
from vit_jax.training.config.load import validate
from vit_jax.training.config.model import resolve_model
from vit_jax.training.config.overrides import apply_override
from vit_jax.training.experiment import build
from vit_jax.training.parts.records import open_evaluation

# vit_base_patch16_224 and ViT-B/16@384.
_ARCHITECTURE = re.compile(r"[\w-]+(/\d+(@\d+)?)?")


def is_checkpoint(name: str) -> bool:
    """Return whether the name of a model means weights, and not an architecture."""
    return os.path.exists(expanded(name)) or not _ARCHITECTURE.fullmatch(name)


def is_run(source: str | Path) -> bool:
    """Return whether a path or name means a training run (or one of its checkpoints), not a published checkpoint."""
    path = Path(expanded(source))
    if os.path.isdir(path) and (os.path.exists(path / "metrics.jsonl") or not os.listdir(path)):
        return True  # it has not come to a checkpoint yet, perhaps
    if os.path.exists(path):
        # What `vit_jax.save` writes looks like a run that has no configuration.
        steps, _ = locate(path)
        newest = Checkpoints(steps, read_only=True).newest_metadata() if os.path.isdir(steps) else None
        return os.path.isdir(steps) and (newest is None or "config" in newest)
    # Perhaps misspelled: a folder if there is one around it, a file if it has an ending, else a name.
    return not path.suffix and (isinstance(source, Path) or os.path.isdir(path.parent))


def objective_of(problem: str, fields: Collection[str] | None = None) -> dict[str, Any]:
    """Return the section `objective` of a configuration for outputs as they are.

    No file says whether outputs that are a probability for each class learned from one label an image, as those of
    Google's ImageNet-21k, or from several; records do. Without records any number of classes may be meant.

    Args:
      problem: see `models.problem`.
      fields: of the records to evaluate on; None where there are none.
    """
    if problem == "regression":
        return {"name": "regression", "scaling": "none"}
    if problem == "multi_label" and (fields is None or "labels" in fields):
        return {"name": "multi_label"}
    return {"name": "classification", "loss": next(loss for loss in LOSSES if LOSSES[loss] == problem)}


def state_of(objective: Objective, held: Any) -> tuple[Any, Any]:
    """Return the parameters and buffers of an objective, with buffers of its own as they begin.

    Args:
      held: what a checkpoint has of both, a nested dict.
    """
    key, flat = jax.random.key(0), trees.flatten(held)
    params, buffers = jax.eval_shape(objective.init, key)
    if own := trees.flatten(buffers).keys() - flat.keys():
        begun = trees.flatten(jax.jit(lambda key: objective.init(key)[1])(key))
        held = trees.unflatten(flat | {path: begun[path] for path in own})
    return trees.subset(held, params), trees.subset(held, buffers)


def evaluate_checkpoint(
    source: str,
    overrides: Sequence[str] = (),
    *,
    storage: str = "float32",
    labels: str = BY_NAME,
    output: str | Path | None = None,
    figure: str | Path | None = None,
) -> Evaluation:
    """Return the metrics of a published model on data whose classes or values are its own, every record counted once.

    Labels are matched with its classes by name; data with only some of the classes is evaluated on these. Outputs that
    are a probability for each class are evaluated by what records have: one label, or several.

    Args:
      source: whatever `vit_jax.load` takes.
      overrides: changes of the default configuration: which data, `data.source=folder`, `data.path=...`.
      storage: how parameters are stored, see `models.storage`.
      labels: `by-name`, or `by-position` where the data has as many classes under other names, in the same order, as
        ImageNet's synsets and words are.
      output, figure: files that get the prediction of every record and the report, see `run_evaluation`.

    Raises:
      VitError: the checkpoint or the data cannot be read, or the data has classes that the checkpoint has not.
    """
    config = default_config()
    for override in overrides:
        apply_override(config, override)
    config.model.checkpoint = source
    without_training(config)
    validate(config)
    model, pretrained = resolve_model(config.model, config.compute_dtype)
    assert pretrained is not None
    if not model.num_classes:
        raise ConfigError(f"checkpoint {source!r} has no classes to evaluate; fine-tune it first.")
    names = pretrained.class_names or tuple(map(str, range(model.num_classes)))
    opened = open_evaluation(config.data, model)
    needed = objective_of(model.problem, opened.fields)
    if needed["name"] == "regression" and "value" not in opened.fields:
        raise ConfigError(
            f"checkpoint {source!r} is a regression model, but the data has {', '.join(opened.fields)} and no "
            "value; choose data that has values."
        )
    if config.objective.name in (default_config().objective.name, needed["name"]):
        if needed.get("loss") and LOSSES.get(config.objective.get("loss")) == model.problem:
            del needed["loss"]  # another that means the same
        config.objective.update(needed)
    data, notice = in_classes_of(names, pretrained.named, opened, labels, "the checkpoint")
    # The head is what it is: nothing of it is made new for the data.
    experiment = build(config, (data, data), earlier=config_to_json(model), training=False)
    shapes = experiment.abstract_state.params, experiment.abstract_state.buffers
    shardings = {path: x.sharding for tree in shapes for path, x in trees.flatten(tree).items()}
    params, buffers = state_of(experiment.task.objective, pretrained.params(shardings))
    say(notice)
    return run_evaluation(
        experiment,
        params,
        jax.tree.map(lambda leaf, like: jax.device_put(leaf, like.sharding), buffers, shapes[1]),
        split=config.data.eval_split,
        storage=storage,
        output=output,
        figure=figure,
    )
