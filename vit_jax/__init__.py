"""Vision Transformers in JAX: train, fine-tune and scale from a laptop to a TPU pod.

The public words are imported when first used, so that `import vit_jax` and the command line are instant.
"""

import importlib
from typing import TYPE_CHECKING, Any

from vit_jax import absent_tpu
from vit_jax.version import __version__

if TYPE_CHECKING:
    from vit_jax.evaluation.preprocess import preprocessing
    from vit_jax.inference.classifier.classifier import Classifier
    from vit_jax.inference.evaluating import evaluate_workdir as evaluate
    from vit_jax.inference.predictor import Predictor
    from vit_jax.inference.zero_shot import ZeroShotClassifier
    from vit_jax.models.names.resolve import list_models
    from vit_jax.models.registry import create_model, model_config
    from vit_jax.training.config.load import default_config, load_config
    from vit_jax.training.devices.distributed import initialize_distributed
    from vit_jax.training.loop import train
    from vit_jax.training.report.callbacks import Callback, StopTraining
    from vit_jax.weights.load import load
    from vit_jax.weights.save import save

_PUBLIC = {
    "Callback": "vit_jax.training.report.callbacks:Callback",
    "Classifier": "vit_jax.inference.classifier.classifier:Classifier",
    "Predictor": "vit_jax.inference.predictor:Predictor",
    "StopTraining": "vit_jax.training.report.callbacks:StopTraining",
    "ZeroShotClassifier": "vit_jax.inference.zero_shot:ZeroShotClassifier",
    "create_model": "vit_jax.models.registry:create_model",
    "default_config": "vit_jax.training.config.load:default_config",
    "evaluate": "vit_jax.inference.evaluating:evaluate_workdir",
    "initialize_distributed": "vit_jax.training.devices.distributed:initialize_distributed",
    "list_models": "vit_jax.models.names.resolve:list_models",
    "load": "vit_jax.weights.load:load",
    "load_config": "vit_jax.training.config.load:load_config",
    "model_config": "vit_jax.models.registry:model_config",
    "preprocessing": "vit_jax.evaluation.preprocess:preprocessing",
    "save": "vit_jax.weights.save:save",
    "train": "vit_jax.training.loop:train",
}

absent_tpu.silence()  # before jax looks for devices

__all__ = [
    "Callback",
    "Classifier",
    "Predictor",
    "StopTraining",
    "ZeroShotClassifier",
    "__version__",
    "create_model",
    "default_config",
    "evaluate",
    "initialize_distributed",
    "list_models",
    "load",
    "load_config",
    "model_config",
    "preprocessing",
    "save",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'vit_jax' has no attribute {name!r}")
    module, _, attribute = _PUBLIC[name].partition(":")
    value = globals()[name] = getattr(importlib.import_module(module), attribute)
    return value


def __dir__() -> list[str]:
    return __all__
