"""The tables of layouts: which libraries' files are read, and which family is written in which format."""

import importlib
from typing import Any

from vit_jax.weights.layouts.layout import Reading, Writing

# By library, or library and family; of transformers `transformers/MODEL_TYPE`.
READINGS: dict[str, str | Reading] = {
    "timm": "vit_jax.weights.layouts.timm.reading:READING",
    "transformers": "vit_jax.weights.layouts.transformers.layout:READING",
    "google": "vit_jax.weights.layouts.google.reading:READING",
    "open_clip": "vit_jax.weights.layouts.open_clip.pair:READING",
    "torchvision": "vit_jax.weights.layouts.torchvision.vit:READING",
    "timm/hiera": "vit_jax.weights.layouts.timm.hiera:READING",
    "transformers/hiera": "vit_jax.weights.layouts.transformers.hiera:READING",
    "meta/hiera": "vit_jax.weights.layouts.meta.hiera:READING",
    "timm/mvit": "vit_jax.weights.layouts.timm.mvit:READING",
    "meta/mvit": "vit_jax.weights.layouts.meta.mvit:READING",
    "transformers/cvt": "vit_jax.weights.layouts.transformers.cvt:READING",
    "microsoft/cvt": "vit_jax.weights.layouts.microsoft.cvt:READING",
    "timm/resnet": "vit_jax.weights.layouts.timm.resnet:READING",
    "transformers/resnet": "vit_jax.weights.layouts.transformers.resnet:READING",
    "timm/swin": "vit_jax.weights.layouts.timm.swin_files:READING",
    "transformers/swin": "vit_jax.weights.layouts.transformers.swin:SWIN",
    "transformers/swinv2": "vit_jax.weights.layouts.transformers.swin:SWINV2",
    "torchvision/swin": "vit_jax.weights.layouts.torchvision.swin:READING",
    "transformers/dpt": "vit_jax.weights.layouts.transformers.dpt:READING",
    "transformers/depth_anything": "vit_jax.weights.layouts.transformers.dpt:READING_ANYTHING",
    "mmseg/setr": "vit_jax.weights.layouts.mmseg.setr:READING",
    "openai/dalle": "vit_jax.weights.layouts.openai.dalle:READING",
    "meta/dino_head": "vit_jax.weights.layouts.meta.dino_head:READING",
}

# By format and family.
WRITINGS: dict[tuple[str, str], str | Writing] = {
    ("timm", "vit"): "vit_jax.weights.layouts.timm.writing:write",
    ("timm", "mvit"): "vit_jax.weights.layouts.timm.mvit:write",
    ("timm", "swin"): "vit_jax.weights.layouts.timm.swin_files:write",
    ("timm", "resnet"): "vit_jax.weights.layouts.timm.resnet:write",
    ("torchvision", "resnet"): "vit_jax.weights.layouts.timm.resnet:write_state",
    ("hf", "resnet"): "vit_jax.weights.layouts.transformers.resnet:write",
    ("torchvision", "swin"): "vit_jax.weights.layouts.torchvision.swin:write",
    ("hf", "swin"): "vit_jax.weights.layouts.transformers.swin:write",
    ("hf", "vit"): "vit_jax.weights.layouts.transformers.writing:write_vit",
    ("hf", "mae"): "vit_jax.weights.layouts.transformers.writing:write_mae",
    ("hf", "text"): "vit_jax.weights.layouts.transformers.writing:write_towers",
    ("hf", "image_text"): "vit_jax.weights.layouts.transformers.writing:write_towers",
    ("hf", "upernet"): "vit_jax.weights.layouts.transformers.writing:write_upernet",
    ("timm", "hiera"): "vit_jax.weights.layouts.timm.hiera:write",
    ("hf", "hiera_mae"): "vit_jax.weights.layouts.transformers.hiera:write_mae",
    ("hf", "hiera"): "vit_jax.weights.layouts.transformers.hiera:write",
    ("hf", "cvt"): "vit_jax.weights.layouts.transformers.cvt:write",
    ("pth", "vit"): "vit_jax.weights.layouts.meta.vit:write",
    ("pth", "mae"): "vit_jax.weights.layouts.meta.vit:write",
    ("pth", "swin"): "vit_jax.weights.layouts.microsoft.swin:write",
    ("pth", "cvt"): "vit_jax.weights.layouts.microsoft.cvt:write",
    ("pth", "mvit"): "vit_jax.weights.layouts.meta.mvit:write",
    ("pth", "hiera"): "vit_jax.weights.layouts.meta.hiera:write",
    ("pth", "hiera_mae"): "vit_jax.weights.layouts.meta.hiera:write",
    ("npz", "vit"): "vit_jax.weights.layouts.google.writing:write_vit",
    ("npz", "image_text"): "vit_jax.weights.layouts.google.writing:write_pair",
}


def register_reading(name: str, reading: Reading) -> None:
    """Add a library that is known outside of this one."""
    READINGS[name] = reading


def register_writing(format: str, family: str, writing: Writing) -> None:
    """Add the words of a format for models of a family."""
    WRITINGS[format, family] = writing


def readings() -> list[Reading]:
    """Return how files are read, of every library that is known."""
    return [_imported(entry) for entry in READINGS.values()]


def libraries() -> list[str]:
    """Return the names of the libraries whose files are known, each once."""
    return list(dict.fromkeys(name.partition("/")[0] for name in READINGS))


def writing(format: str, family: str) -> Writing | None:
    """Return what writes models of a family in a format; None if they have no words for each other."""
    entry = WRITINGS.get((format, family))
    return None if entry is None else _imported(entry)


def formats_of(family: str) -> list[str]:
    """Return the formats of other libraries that models of a family can be written in."""
    return [format for format, name in WRITINGS if name == family]


def _imported(entry: Any) -> Any:
    if not isinstance(entry, str):
        return entry
    module, _, attribute = entry.partition(":")
    return getattr(importlib.import_module(module), attribute)
