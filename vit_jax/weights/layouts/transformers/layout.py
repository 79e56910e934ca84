"""Files of Hugging Face transformers: which they are, and what they turn out to be."""

import re

from vit_jax.errors import CheckpointError
from vit_jax.models.mae.config import MaeConfig
from vit_jax.models.registry import ModelConfig
from vit_jax.models.vit.config import ViTConfig
from vit_jax.weights.formats.tensors import RawCheckpoint
from vit_jax.weights.layouts.layout import Layout, Reading, check_model
from vit_jax.weights.layouts.table import READINGS
from vit_jax.weights.layouts.transformers import config as transformers_config
from vit_jax.weights.layouts.transformers import memory as transformers_memory
from vit_jax.weights.layouts.transformers import towers as transformers_towers
from vit_jax.weights.layouts.transformers import towers_config as transformers_towers_config
from vit_jax.weights.layouts.transformers import upernet as transformers_upernet
from vit_jax.weights.layouts.transformers import vit as transformers
from vit_jax.weights.rules import Rule

_NAMES = re.compile(
    r"(\w+\.)?(embeddings\.patch_embeddings|vision_model\.|layer\.0\.attention\.)"
    r"|(cvt\.)?(encoder\.)?stages\.0\.layers\.0\.attention\."
)


def layout(raw: RawCheckpoint) -> Layout:
    """Return the model of transformers' `config.json` and where its parameters are.

    Raises:
      CheckpointError: it is a model we do not have, or says something we do not know.
    """
    document = raw.documents["config.json"]
    model_type = document["model_type"]
    names = transformers_config.class_names(document, raw.origin)
    if model_type in transformers_config.TOWERS:
        return _towers(raw, names)
    config, prefix, size = transformers_config.from_document(raw)
    computed = transformers.COMPUTED
    if isinstance(config, MaeConfig):
        found = _in_file(transformers.mae_rules(config, raw.tensors), raw, model_type)
        return Layout(config, found, computed, size)
    if model_type in ("beit", "data2vec-vision") and transformers_upernet.HEAD in raw.tensors:
        pixels = transformers_upernet.describe(raw, config)
        found = transformers_upernet.rules(pixels)
        if "decode_head.psp_bottleneck.convolution.weight" in raw.tensors:
            found = transformers_upernet.in_memory(found)
        found = transformers.placed(_in_file(found, raw, model_type), _backbones(prefix), raw.tensors)
        computed, unused = transformers_upernet.COMPUTED, transformers_upernet.UNUSED
        return Layout(pixels, found, computed, size, names, unused)
    names = names if config.num_classes and config.pool != "patches" else ()
    found = _in_file(transformers.rules(config, model_type, prefix), raw, model_type)
    return Layout(config, transformers.placed(found, _backbones(prefix), raw.tensors), computed, size, names)


def _in_file(rules: list[Rule], raw: RawCheckpoint, model_type: str) -> list[Rule]:
    if transformers_memory.is_in_memory(raw.tensors, model_type):
        return transformers_memory.in_memory(rules, raw.tensors)
    return rules


def _backbones(prefix: str) -> tuple[str, ...]:
    # DINOv3's blocks are called so in memory.
    return tuple(dict.fromkeys((prefix, *transformers.PREFIXES.values(), "model.")))


def _towers(raw: RawCheckpoint, names: tuple[str, ...]) -> Layout:
    config, sequences, size = transformers_towers_config.from_document(raw)
    found = transformers.placed(
        transformers_towers.rules(config, sequences), transformers_towers.PREFIXES, raw.tensors
    )
    others: tuple[str, ...] = ()
    classifier = isinstance(config, ViTConfig) and "classifier.weight" in raw.tensors
    if isinstance(config, ViTConfig) and config.pool == "mean":
        others = transformers_towers.UNUSED
    names = names if classifier else ()
    return Layout(config, found, transformers_towers.COMPUTED, size, names, others)


def _claims(raw: RawCheckpoint) -> bool:
    model_type = raw.documents.get("config.json", {}).get("model_type")
    if f"transformers/{model_type}" in READINGS:  # it has a file of its own
        return False
    return model_type is not None or any(map(_NAMES.match, raw.tensors))


def _read(raw: RawCheckpoint, model: ModelConfig | None) -> tuple[RawCheckpoint, Layout]:
    if "model_type" not in raw.documents.get("config.json", {}):
        raise CheckpointError(
            f"{raw.origin} has the names of transformers but no config.json beside it; put its repository's "
            "config.json there."
        )
    check_model(raw, model, "what its config.json says")
    return raw, layout(raw)


READING = Reading("transformers", _claims, _read)
