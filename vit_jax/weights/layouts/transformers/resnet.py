"""transformers' ResNet: `ResNetModel` and `ResNetForImageClassification`. The epsilon of its batch norms is torch's."""

from collections.abc import Mapping, Sequence
from typing import Any

from vit_jax.errors import CheckpointError, ConfigError
from vit_jax.models.registry import ModelConfig
from vit_jax.models.resnet.config import EXPANSION, PREPROCESSING, ResNetConfig
from vit_jax.weights.formats.tensors import RawCheckpoint
from vit_jax.weights.layouts.layout import Layout, Reading, Written, check_model
from vit_jax.weights.layouts.problem_type import problem_type, read_problem
from vit_jax.weights.layouts.transformers.config import class_names, settings
from vit_jax.weights.layouts.transformers.document import label_names
from vit_jax.weights.layouts.transformers.writing import written
from vit_jax.weights.preprocessing_formats import from_hf
from vit_jax.weights.rules import CONV, Rule, affine, batch_norm

TYPE = "resnet"
PREFIXES = ("resnet.", "")  # in a classifier, and in a bare model
COMPUTED = ("*.num_batches_tracked",)
# What transformers assumes when a `config.json` does not say.
DEFAULTS: dict[str, Any] = dict(
    num_channels=3, embedding_size=64, hidden_sizes=[256, 512, 1024, 2048], depths=[3, 4, 6, 3],
    layer_type="bottleneck", hidden_act="relu", downsample_in_first_stage=False, downsample_in_bottleneck=False,
)  # fmt: skip
_FIXED = ("hidden_act", "downsample_in_first_stage", "downsample_in_bottleneck")


def rules(config: ResNetConfig, prefix: str) -> list[Rule]:
    """Return the rules of a model; `prefix` is one of `PREFIXES`."""
    found = _convolution("stem", f"{prefix}embedder.embedder")
    numbers = dict.fromkeys(range(len(config.depths)), 0)
    for stage, layers, shortcut in config.blocks():
        number = numbers[stage]
        ours, theirs = f"stages/{stage}/{number}", f"{prefix}encoder.stages.{stage}.layers.{number}"
        numbers[stage] += 1
        for index in range(len(layers)):
            found += _convolution(f"{ours}/layers/{index}", f"{theirs}.layer.{index}")
        found += [] if shortcut is None else _convolution(f"{ours}/shortcut", f"{theirs}.shortcut")
    return found + (affine("head", "classifier.1") if config.num_classes else [])


def _convolution(ours: str, theirs: str) -> list[Rule]:
    kernel = affine(ours, f"{theirs}.convolution", CONV, bias=False)
    return kernel + batch_norm(f"{ours}/norm", f"{theirs}.normalization")


def _claims(raw: RawCheckpoint) -> bool:
    return raw.documents.get("config.json", {}).get("model_type") == TYPE


def _read(raw: RawCheckpoint, model: ModelConfig | None) -> tuple[RawCheckpoint, Layout]:
    check_model(raw, model, "what its config.json says")
    where = f"{raw.origin}: config.json"
    document = raw.documents["config.json"]
    scalars = {name: value for name, value in DEFAULTS.items() if not isinstance(value, list)}
    about = {**DEFAULTS, **settings(scalars, document, where)}
    for name in ("hidden_sizes", "depths"):
        values = about[name]
        if not isinstance(values, list) or not all(type(value) is int for value in values):
            raise CheckpointError(
                f"{where} says {name} {values!r:.60}; it must be a whole number for each stage."
            )
    for name in _FIXED:
        if about[name] != DEFAULTS[name]:
            raise CheckpointError(
                f"{where} says {name} {about[name]!r:.60}; this library knows {DEFAULTS[name]!r} alone."
            )
    head = raw.tensors.get("classifier.1.weight")
    processor = raw.documents.get("preprocessor_config.json")
    preprocessing, size = (PREPROCESSING, (224, 224)) if processor is None else from_hf(processor, (224, 224))
    try:
        outputs, expansion = about["hidden_sizes"], EXPANSION.get(about["layer_type"], 1)
        if any(width % expansion for width in outputs):
            raise ConfigError(f"hidden_sizes is {outputs}; they must be multiples of {expansion}.")
        config = ResNetConfig(
            image_size=size,
            in_channels=about["num_channels"],
            num_classes=head.shape[0] if head and head.shape else 0,
            problem=read_problem(about, raw.origin),
            block=about["layer_type"],
            depths=about["depths"],
            widths=tuple(width // expansion for width in outputs),
            stem_width=about["embedding_size"],
            preprocessing=preprocessing,
        )
    except ConfigError as error:
        raise CheckpointError(f"{raw.origin}: config.json describes no model: {error}") from None
    prefix = next((p for p in PREFIXES if f"{p}embedder.embedder.convolution.weight" in raw.tensors), "")
    names = class_names(document, raw.origin) if config.num_classes else ()
    size_of_inputs = None if processor is None else size
    return raw, Layout(config, rules(config, prefix), COMPUTED, size_of_inputs, names)


READING = Reading("transformers' ResNet", _claims, _read)


def write(config: ResNetConfig, params: Mapping[str, Any], labels: Sequence[str]) -> Written:
    """Return a ResNet in transformers' words.

    Raises:
      ConfigError: transformers has no such model.
    """
    needed = {"width_factor": 1, "groups": 1, "norm_epsilon": 1e-5}
    for field, value in needed.items():
        if getattr(config, field) != value:
            raise ConfigError(
                f"transformers' ResNet has {field} {value} always, and this model {getattr(config, field)}; choose "
                "'timm' or 'orbax'."
            )
    about = {
        **DEFAULTS,
        "model_type": TYPE,
        "architectures": ["ResNetForImageClassification" if config.num_classes else "ResNetModel"],
        "num_channels": config.in_channels,
        "embedding_size": config.stem_width,
        "hidden_sizes": [width * EXPANSION[config.block] for width in config.widths],
        "depths": list(config.depths),
        "layer_type": config.block,
        "dtype": "float32",
        **(label_names(config.num_classes, labels) if config.num_classes else {}),
        **problem_type(config),
    }
    return written(config, params, about, rules(config, PREFIXES[0 if config.num_classes else 1]))
