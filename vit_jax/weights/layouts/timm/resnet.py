"""ResNets of timm and of torchvision, whose names are the same: what model arrays are of, and the `config.json`."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from vit_jax.errors import CheckpointError, ConfigError
from vit_jax.models.layers.encoder_config import replace
from vit_jax.models.registry import ModelConfig
from vit_jax.models.resnet.config import EXPANSION, SIZES, ResNetConfig
from vit_jax.weights.formats.tensors import RawCheckpoint, Tensor
from vit_jax.weights.layouts.layout import Layout, Reading, Written, check_model
from vit_jax.weights.layouts.problem_type import problem_type, read_problem
from vit_jax.weights.layouts.timm.config import class_names, values_of
from vit_jax.weights.preprocessing_formats import from_timm, to_timm
from vit_jax.weights.rules import CONV, Rule, affine, batch_counts, batch_norm

COMPUTED = ("*.num_batches_tracked",)
_FIRST = {"conv1.weight", "bn1.running_mean", "layer1.0.conv1.weight"}
# Of the class's arguments, those that say how a model trains, or again what the arrays say.
_WITHOUT_EFFECT = {"in_chans", "num_classes", "drop_path_rate", "drop_rate", "zero_init_last"}


def rules(config: ResNetConfig) -> list[Rule]:
    """Return the rules of a model."""
    found = _convolution("stem", "conv1", "bn1")
    numbers = dict.fromkeys(range(len(config.depths)), 0)
    for stage, layers, shortcut in config.blocks():
        ours, theirs = f"stages/{stage}/{numbers[stage]}", f"layer{stage + 1}.{numbers[stage]}"
        numbers[stage] += 1
        for index in range(len(layers)):
            names = f"{theirs}.conv{index + 1}", f"{theirs}.bn{index + 1}"
            found += _convolution(f"{ours}/layers/{index}", *names)
        if shortcut is not None:
            found += _convolution(f"{ours}/shortcut", f"{theirs}.downsample.0", f"{theirs}.downsample.1")
    return found + (affine("head", "fc") if config.num_classes else [])


def _convolution(ours: str, kernel: str, norm: str) -> list[Rule]:
    return affine(ours, kernel, CONV, bias=False) + batch_norm(f"{ours}/norm", norm)


def from_shapes(raw: RawCheckpoint) -> ResNetConfig:
    """Return the model of a file, from the shapes of its arrays, with images as torchvision takes them.

    Raises:
      CheckpointError: arrays are missing, or are of no ResNet that this library has.
    """
    tensors = raw.tensors
    try:
        stem, channels, *kernel = tensors["conv1.weight"].shape
        depths = _depths(tensors)
        block = "bottleneck" if "layer1.0.conv3.weight" in tensors else "basic"
        last, head = 3 if block == "bottleneck" else 2, tensors.get("fc.weight")
        outputs = [tensors[f"layer{stage + 1}.0.conv{last}.weight"].shape[0] for stage in range(len(depths))]
        inner, seen = tensors["layer1.0.conv2.weight"].shape[:2]
        widths = tuple(width // EXPANSION[block] for width in outputs)
        config = ResNetConfig(
            in_channels=channels,
            num_classes=head.shape[0] if head else 0,
            block=block,
            depths=depths,
            widths=widths,
            stem_width=stem,
            width_factor=inner // widths[0],
            groups=inner // seen,
        )
    except (KeyError, IndexError, ValueError, ZeroDivisionError):
        raise CheckpointError(f"{raw.origin} lacks arrays of a ResNet; it is damaged.") from None
    except ConfigError as error:
        raise CheckpointError(f"{raw.origin} holds no ResNet that this library has: {error}") from None
    if kernel != [7, 7]:
        raise CheckpointError(
            f"{raw.origin} has a first kernel of {kernel[0]}x{kernel[1]}; this library's ResNets have 7x7."
        )
    return config


def described(config: ResNetConfig, raw: RawCheckpoint) -> ResNetConfig:
    """Return a model with what timm's `config.json` beside its arrays says of it.

    Raises:
      CheckpointError: it is of another kind of ResNet, or says something we do not know.
    """
    about = raw.documents.get("config.json", {})
    if "architecture" not in about:
        return config
    name = about["architecture"]
    # Arrays of others, such as those with blurred strides, are the same, and what they compute is not.
    if name not in SIZES:
        raise CheckpointError(
            f"{raw.origin}: config.json has architecture {name!r:.60}; this library's ResNets are {', '.join(SIZES)}."
        )
    for argument in values_of(about, "model_args", raw.origin):
        if argument not in _WITHOUT_EFFECT:
            raise CheckpointError(
                f"{raw.origin}: config.json has model_args {argument!r:.60}, which this library does not know."
            )
    known = values_of(about, "pretrained_cfg", raw.origin)
    changes: dict[str, Any] = {"problem": read_problem(about, raw.origin)}
    if {"mean", "std"} <= known.keys():
        changes["preprocessing"], changes["image_size"] = from_timm(known)
    return replace(config, **changes)


def write(config: ResNetConfig, params: Mapping[str, Any], labels: Sequence[str]) -> Written:
    """Return a model in timm's words.

    Raises:
      ConfigError: timm has no such architecture.
    """
    name = next((name for name, fields in SIZES.items() if _is(config, fields)), None)
    if name is None:
        raise ConfigError(
            f"timm has no ResNet of {config.block} blocks {config.depths} and widths {config.widths}; choose 'orbax' "
            "or 'torchvision'."
        )
    _check_epsilon(config, "timm")
    about = {
        "architecture": name,
        "num_classes": config.num_classes,
        "num_features": config.feature_width,
        "model_args": {"in_chans": config.in_channels} if config.in_channels != 3 else {},
        "pretrained_cfg": {
            **to_timm(config.preprocessing, config.image_size, config.in_channels),
            "num_classes": config.num_classes,
            "pool_size": list(config.grid(len(config.depths) - 1)),
            "first_conv": "conv1",
            "classifier": "fc",
        },
        **(problem_type(config) if config.problem != "single_label" else {}),
        **({"label_names": list(labels)} if labels else {}),
    }
    own = rules(config)
    return Written(config, params, own, {"config.json": about}, batch_counts(own, params))


def write_state(config: ResNetConfig, params: Mapping[str, Any], labels: Sequence[str]) -> Written:
    """Return a model as the state of torchvision's module."""
    _check_epsilon(config, "torchvision")
    own = rules(config)
    return Written(config, params, own, constants=batch_counts(own, params))


def _check_epsilon(config: ResNetConfig, library: str) -> None:
    if config.norm_epsilon != 1e-5:
        raise ConfigError(
            f"norm_epsilon is {config.norm_epsilon}, which {library} has as 1e-05 always; choose 'orbax'."
        )


def _is(config: ResNetConfig, fields: Mapping[str, Any]) -> bool:
    """Return whether a model is of a published size, whatever its images and classes are."""
    base = ResNetConfig(**fields)
    known = ("block", "depths", "widths", "stem_width", "width_factor", "groups")
    return all(getattr(config, name) == getattr(base, name) for name in known)


def _depths(tensors: Mapping[str, Tensor]) -> tuple[int, ...]:
    found = {
        (int(m[1]), int(m[2])) for name in tensors if (m := re.match(r"layer(\d+)\.(\d+)\.conv1\.", name))
    }
    return tuple(
        sum(stage == number for stage, _ in found)
        for number in range(1, 1 + max(stage for stage, _ in found))
    )


def _read(raw: RawCheckpoint, model: ModelConfig | None) -> tuple[RawCheckpoint, Layout]:
    check_model(raw, model, "a ResNet", "resnet")
    config = described(from_shapes(raw), raw) if model is None else model
    names = class_names(raw.documents.get("config.json", {}))
    return raw, Layout(config, rules(config), COMPUTED, class_names=names)


READING = Reading("timm's and torchvision's ResNets", lambda raw: raw.tensors.keys() >= _FIRST, _read)
