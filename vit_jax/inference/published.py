"""Published checkpoints beside training runs: what a name means, their classes, their accuracy."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from vit_jax import trees
from vit_jax.checkpoints.checkpoints import Checkpoints
from vit_jax.checkpoints.files import locate
from vit_jax.errors import ConfigError
from vit_jax.evaluation.evaluator import compile_evaluation, evaluate
from vit_jax.models.storage import stored
from vit_jax.training.compilation import kept_programs
from vit_jax.training.config import validate
from vit_jax.training.defaults import default_config
from vit_jax.training.experiment import build
from vit_jax.training.mesh import replicated
from vit_jax.training.model import resolve_model
from vit_jax.training.overrides import apply_override

# vit_base_patch16_224 and ViT-B/16@384.
_ARCHITECTURE = re.compile(r"[\w-]+(/\d+(@\d+)?)?")


def is_checkpoint(name: str) -> bool:
    """Return whether the name of a model means weights, and not an architecture."""
    return os.path.exists(name) or not _ARCHITECTURE.fullmatch(name)


def is_run(source: str | Path) -> bool:
    """Return whether a path or name means a training run (or one of its checkpoints), not a published checkpoint."""
    path = Path(source)
    if os.path.isdir(path) and (os.path.exists(path / "metrics.jsonl") or not os.listdir(path)):
        return True  # it has not come to a checkpoint yet, perhaps
    if os.path.exists(path):
        # What `vit_jax.save` writes looks like a run that has no configuration.
        steps, _ = locate(path)
        newest = Checkpoints(steps, read_only=True).newest_metadata() if os.path.isdir(steps) else None
        return os.path.isdir(steps) and (newest is None or "config" in newest)
    # Perhaps misspelled: a folder if there is one around it, a file if it has an ending, else a name.
    return not path.suffix and (isinstance(source, Path) or os.path.isdir(path.parent))


def evaluate_checkpoint(
    source: str, overrides: Sequence[str] = (), *, storage: str = "float32"
) -> dict[str, float]:
    """Return the metrics of a published classifier on data whose classes are its own, every record counted once.

    Args:
      source: whatever `vit_jax.load` takes.
      overrides: changes of the default configuration: which data, `data.source=folder`, `data.path=...`.
      storage: how parameters are stored, see `models.storage`.

    Raises:
      VitError: the checkpoint or the data cannot be read, or their numbers of classes differ.
    """
    config = default_config()
    for override in overrides:
        apply_override(config, override)
    config.model.checkpoint = source
    config.data.train_split = config.data.eval_split  # nothing is trained
    validate(config)
    own = resolve_model(config)[0].num_classes
    experiment = build(config)
    assert experiment.pretrained is not None
    if experiment.model.num_classes != own:
        raise ConfigError(
            f"checkpoint {source!r} has {own} classes and the data has {experiment.model.num_classes}; evaluate it on "
            "data with its own classes, or fine-tune it first."
        )
    shardings = {path: x.sharding for path, x in trees.flatten(experiment.abstract_state.params).items()}
    params = experiment.pretrained.params(shardings)
    run = compile_evaluation(
        experiment.objective, replicated(experiment.mesh), options=experiment.evaluation_options
    )
    with kept_programs(config.compilation.cache, Path()):
        return evaluate(run, stored(params, storage), {}, experiment.eval_batches())
