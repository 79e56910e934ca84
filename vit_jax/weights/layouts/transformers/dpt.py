"""transformers' DPT and Depth Anything: `DPTForDepthEstimation`, `DPTForSemanticSegmentation`, and
`DepthAnythingForDepthEstimation`, whose backbone is DINOv2.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from vit_jax.errors import CheckpointError, ConfigError
from vit_jax.models.heads.dpt.config import FACTORS, MAPS, READOUTS, DptConfig
from vit_jax.models.layers.encoder_config import replace
from vit_jax.models.registry import ModelConfig
from vit_jax.models.vit.config import ViTConfig
from vit_jax.weights.formats.tensors import RawCheckpoint
from vit_jax.weights.layouts.layout import Layout, Reading, check_model
from vit_jax.weights.layouts.transformers import vit as transformers
from vit_jax.weights.layouts.transformers.config import class_names, from_document, settings
from vit_jax.weights.rules import CONV, POINT, TRANSPOSED, Rule, affine, batch_norm, rule

DPT, ANYTHING = "dpt", "depth_anything"
COMPUTED = ("*.num_batches_tracked",)
# What transformers assumes when a `config.json` does not say.
_DPT: dict[str, Any] = dict(
    is_hybrid=False, readout_type="project", fusion_hidden_size=256, head_in_index=-1, add_projection=False,
    use_batch_norm_in_fusion_residual=False, semantic_classifier_dropout=0.1,
)  # fmt: skip
_ANYTHING: dict[str, Any] = dict(
    patch_size=14, fusion_hidden_size=64, head_in_index=-1, head_hidden_size=32, depth_estimation_type="relative",
    max_depth=1.0,
)  # fmt: skip
_ESTIMATIONS = {"relative": "relu", "metric": "sigmoid"}
# What the first fusion has and nothing is made of.
_UNUSED = ("neck.fusion_stage.layers.0.residual_layer1.*",)


def rules(config: DptConfig, model_type: str, prefix: str) -> list[Rule]:
    """Return the rules of a model; `prefix` is what the names of the backbone begin with."""
    kind = "vit" if model_type == DPT else "dinov2"
    found = [item.prefixed("encoder/") for item in transformers.rules(config.encoder, kind, prefix)]
    stage = "neck.reassemble_stage"
    for index, factor in enumerate(config.factors):
        ours, theirs = f"reassemble/{index}", f"{stage}.layers.{index}"
        if config.readout == "project":
            found += affine(f"{ours}/readout", f"{stage}.readout_projects.{index}.0")
        found += affine(f"{ours}/projection", f"{theirs}.projection", CONV)
        if factor != 1:
            found += affine(f"{ours}/resize", f"{theirs}.resize", TRANSPOSED if factor > 1 else CONV)
        found.append(rule(f"{ours}/output/kernel", f"neck.convs.{index}.weight", form=CONV))
        ours, theirs = f"fusion/{index}", f"neck.fusion_stage.layers.{index}"
        for part, name in (("skip", "residual_layer1"), ("residual", "residual_layer2")):
            if part == "skip" and not index:
                continue
            found += affine(f"{ours}/{part}/first", f"{theirs}.{name}.convolution1", CONV)
            found += affine(f"{ours}/{part}/second", f"{theirs}.{name}.convolution2", CONV)
        found += affine(f"{ours}/projection", f"{theirs}.projection", CONV)
    if config.output == "classes":
        found += _classes("head", "head.head")
        return found + (_classes("auxiliary", "auxiliary_head.head") if config.auxiliary else [])
    names = ("head.head.0", "head.head.2", "head.head.4")
    names = names if model_type == DPT else ("head.conv1", "head.conv2", "head.conv3")
    for part, name in zip(("first", "second", "third"), names):
        found += affine(f"head/{part}", name, POINT if part == "third" else CONV)
    return found


def _classes(ours: str, theirs: str) -> list[Rule]:
    found = affine(f"{ours}/conv", f"{theirs}.0", CONV, bias=False) + batch_norm(
        f"{ours}/conv/norm", f"{theirs}.1"
    )
    return found + affine(f"{ours}/head", f"{theirs}.4", POINT)


def _numbers(about: Mapping[str, Any], name: str, usual: list[int], where: str) -> tuple[int, ...]:
    values = about.get(name, usual)
    if not isinstance(values, list) or len(values) != MAPS or not all(type(value) is int for value in values):
        raise CheckpointError(f"{where} says {name} {values!r:.60}; it must be {MAPS} whole numbers.")
    return tuple(values)


def _check(about: Mapping[str, Any], known: Mapping[str, Any], where: str) -> None:
    for name, value in known.items():
        if about.get(name, value) != value:
            raise CheckpointError(
                f"{where} says {name} {about[name]!r:.60}; this library knows {value!r} alone."
            )


def _dpt(raw: RawCheckpoint, document: Mapping[str, Any], where: str) -> tuple[DptConfig, str]:
    about = settings(_DPT, document, where)
    known = dict(
        is_hybrid=False, add_projection=False, use_batch_norm_in_fusion_residual=False, head_in_index=-1
    )
    _check(about, known, where)
    _check(
        document,
        {"backbone_config": None, "reassemble_factors": list(FACTORS), "neck_ignore_stages": []},
        where,
    )
    if about["readout_type"] not in READOUTS:
        raise CheckpointError(
            f"{where} says readout_type {about['readout_type']!r:.60}; it must be one of {', '.join(READOUTS)}."
        )
    taps = tuple(index + 1 for index in _numbers(document, "backbone_out_indices", [2, 5, 8, 11], where))
    prefix = "dpt." if any(name.startswith("dpt.") for name in raw.tensors) else ""
    encoder = _encoder(raw, {**document, "model_type": "vit"}, prefix)
    encoder = replace(encoder, pool="none", pool_norm="none", resample="bilinear", resample_antialias=False)
    classes = raw.tensors.get("head.head.4.weight")
    depth = "head.head.1.running_mean" not in raw.tensors
    return DptConfig(
        encoder,
        1 if depth or classes is None else classes.shape[0],
        output="relu" if depth else "classes",
        taps=taps,
        readout=about["readout_type"],
        widths=_numbers(document, "neck_hidden_sizes", [96, 192, 384, 768], where),
        channels=about["fusion_hidden_size"],
        dropout_rate=about["semantic_classifier_dropout"],
        auxiliary=not depth and "auxiliary_head.head.0.weight" in raw.tensors,
    ), prefix


def _anything(raw: RawCheckpoint, document: Mapping[str, Any], where: str) -> tuple[DptConfig, str]:
    about, backbone = settings(_ANYTHING, document, where), document.get("backbone_config")
    if not isinstance(backbone, Mapping) or backbone.get("model_type") != "dinov2":
        raise CheckpointError(
            f"{where} says a backbone_config that is none of DINOv2, the only one known here."
        )
    _check(document, {"reassemble_factors": list(FACTORS), "head_in_index": -1}, where)
    _check(backbone, {"reshape_hidden_states": False}, f"{where}, backbone_config,")
    if about["depth_estimation_type"] not in _ESTIMATIONS:
        raise CheckpointError(
            f"{where} says depth_estimation_type {about['depth_estimation_type']!r:.60}; it must be one of "
            f"{', '.join(_ESTIMATIONS)}."
        )
    prefix = "backbone." if any(name.startswith("backbone.") for name in raw.tensors) else ""
    encoder = replace(_encoder(raw, backbone, prefix), pool="none")
    _check(about, {"patch_size": encoder.patch_size[0]}, where)
    head = raw.tensors.get("head.conv2.weight")
    return DptConfig(
        encoder,
        1,
        output=_ESTIMATIONS[about["depth_estimation_type"]],
        taps=_numbers(backbone, "out_indices", [], f"{where}, backbone_config,"),
        tap_norm=bool(backbone.get("apply_layernorm", True)),
        widths=_numbers(document, "neck_hidden_sizes", [48, 96, 192, 384], where),
        channels=about["fusion_hidden_size"],
        head_width=about["head_hidden_size"] if head is None else head.shape[0],
        max_depth=float(about["max_depth"]),
        fuse_to="next",
    ), prefix


def _encoder(raw: RawCheckpoint, document: Mapping[str, Any], prefix: str) -> ViTConfig:
    own = {
        name.removeprefix(prefix): tensor for name, tensor in raw.tensors.items() if name.startswith(prefix)
    }
    beside = {name: value for name, value in raw.documents.items() if name != "config.json"}
    alone = dataclasses.replace(raw, tensors=own, documents={**beside, "config.json": dict(document)})
    config = from_document(alone)[0]
    assert isinstance(config, ViTConfig)
    return replace(config, num_classes=0, representation_size=0, dynamic_image_size=True)


def _read(raw: RawCheckpoint, model: ModelConfig | None) -> tuple[RawCheckpoint, Layout]:
    check_model(raw, model, "what its config.json says")
    document, where = raw.documents["config.json"], f"{raw.origin}: config.json"
    model_type = document["model_type"]
    try:
        config, prefix = (_dpt if model_type == DPT else _anything)(raw, document, where)
    except ConfigError as error:
        raise CheckpointError(f"{where} describes no model: {error}") from None
    names = class_names(document, raw.origin) if config.output == "classes" else ()
    others = (*_UNUSED, f"{prefix}layernorm.*") if config.encoder.pool_norm == "none" else _UNUSED
    found = rules(config, model_type, prefix)
    return raw, Layout(config, found, COMPUTED, class_names=names, others=others)


def _type(raw: RawCheckpoint) -> Any:
    return raw.documents.get("config.json", {}).get("model_type")


READING = Reading("transformers' DPT", lambda raw: _type(raw) == DPT, _read)
READING_ANYTHING = Reading("transformers' Depth Anything", lambda raw: _type(raw) == ANYTHING, _read)
