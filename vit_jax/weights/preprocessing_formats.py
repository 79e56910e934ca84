"""Preprocessing as other libraries write it beside their weights: dictionaries in, dictionaries out.

timm keeps it in `pretrained_cfg`, transformers in `preprocessor_config.json`, OpenCLIP in `preprocess_cfg`. Each
reader returns our preprocessing and the size that it makes of images, which may differ from the size that the
positions were trained for.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from vit_jax.errors import CheckpointError, ConfigError, argument, nearest
from vit_jax.models.preprocessing import (
    CHOICES,
    CLIP_MEAN,
    CLIP_STD,
    IMAGENET_MEAN,
    IMAGENET_STD,
    INCEPTION_MEAN,
    INCEPTION_STD,
    Preprocessing,
)
from vit_jax.weights.formats.tensors import LARGEST

Size = tuple[int, int]

# transformers writes Pillow's numbers.
RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}

# What transformers assumes where a file says nothing. A whole number as `size` is a square, or the short side.
_SQUARE = dict(size=224, whole="square", resample=2, image_mean=INCEPTION_MEAN, image_std=INCEPTION_STD)
_SHORT = dict(
    size=224, whole="short", resample=3, image_mean=CLIP_MEAN, image_std=CLIP_STD, do_center_crop=True
)
_PROCESSORS: dict[str, dict[str, Any]] = {
    "ViTImageProcessor": _SQUARE,
    "DeiTImageProcessor": {**_SQUARE, "size": 256, "resample": 3, "do_center_crop": True},
    "BeitImageProcessor": {**_SQUARE, "resample": 3},
    "SiglipImageProcessor": {**_SQUARE, "resample": 3, "whole": "short"},
    "DINOv3ViTImageProcessor": {**_SQUARE, "image_mean": IMAGENET_MEAN, "image_std": IMAGENET_STD},
    "CLIPImageProcessor": _SHORT,
    "ChineseCLIPImageProcessor": _SHORT,
    "BitImageProcessor": _SHORT,
    "DPTImageProcessor": {**_SQUARE, "size": 384, "resample": 3},
    "ViTHybridImageProcessor": {**_SHORT, "image_mean": INCEPTION_MEAN, "image_std": INCEPTION_STD},
    "ConvNextImageProcessor": dict(
        size=384,
        whole="short",
        resample=2,
        image_mean=INCEPTION_MEAN,
        image_std=INCEPTION_STD,
        crop_pct=224 / 256,
    ),
}
_CROP_SQUARES = ("DeiTImageProcessor", "BeitImageProcessor")
_CROP_ANYTHING = ("CLIPImageProcessor", "ChineseCLIPImageProcessor", "BitImageProcessor")


def from_timm(config: Mapping[str, Any]) -> tuple[Preprocessing, Size]:
    """Return preprocessing and image size of a timm `pretrained_cfg`.

    Raises:
      CheckpointError: a value is not one that timm has.
    """
    where = "pretrained_cfg"
    config = _entries(config, where)
    sizes = _numbers(config.get("input_size", (3, 224, 224)), f"{where}.input_size")
    if len(sizes) != 3 or any(size != int(size) or size < 1 for size in sizes):
        raise CheckpointError(f"{where}.input_size is {sizes}; it must be channels, height and width.")
    preprocessing = Preprocessing(
        _numbers(config.get("mean", IMAGENET_MEAN), f"{where}.mean"),
        _numbers(config.get("std", IMAGENET_STD), f"{where}.std", positive=True),
        _choice(config.get("interpolation", "bicubic"), CHOICES["interpolation"], f"{where}.interpolation"),
        _positive(config.get("crop_pct", 0.875), f"{where}.crop_pct"),
        _choice(config.get("crop_mode", "center"), CHOICES["crop_mode"], f"{where}.crop_mode"),
    )
    return preprocessing, (int(sizes[1]), int(sizes[2]))


def to_timm(preprocessing: Preprocessing, image_size: Size, channels: int = 3) -> dict[str, Any]:
    """Return the entries of a timm `pretrained_cfg`; timm has no `crop_rounding` other than `even`."""
    return dict(
        input_size=[channels, *image_size],
        interpolation=preprocessing.interpolation,
        crop_pct=preprocessing.crop,
        crop_mode=preprocessing.crop_mode,
        mean=_per_channel(preprocessing.mean, channels),
        std=_per_channel(preprocessing.std, channels),
    )


def from_open_clip(config: Mapping[str, Any]) -> tuple[Preprocessing, Size]:
    """Return preprocessing and image size of OpenCLIP's `preprocess_cfg`.

    Raises:
      CheckpointError: a value is not one that OpenCLIP has, or pads with something else than the mean.
    """
    where = "preprocess_cfg"
    config = _entries(config, where)
    height, width = _pair(config.get("size", 224), f"{where}.size")
    mean = _numbers(config.get("mean", CLIP_MEAN), f"{where}.mean")
    modes = {"shortest": "center", "squash": "squash", "longest": "border"}
    mode = modes[_choice(config.get("resize_mode", "shortest"), modes, f"{where}.resize_mode")]
    fill = config.get("fill_color", 0)
    if mode == "border" and any(round(255 * value) != fill for value in mean):
        raise CheckpointError(
            f"{where}.fill_color is {fill!r}, which is not the mean {mean}; images are padded with the mean only."
        )
    interpolation = _choice(
        config.get("interpolation", "bicubic"), CHOICES["interpolation"], f"{where}.interpolation"
    )
    std = _numbers(config.get("std", CLIP_STD), f"{where}.std", positive=True)
    return Preprocessing(mean, std, interpolation, 1.0, mode), (height, width)


def from_hf(config: Mapping[str, Any], image_size: Size) -> tuple[Preprocessing, Size]:
    """Return preprocessing and image size of a transformers `preprocessor_config.json`.

    Files of all ages are read: `ViTFeatureExtractor` is `ViTImageProcessor`, and sizes may be whole numbers. A file
    without a type is a `ViTImageProcessor`.

    Args:
      config: the file.
      image_size: height and width of the model's images, for processors that leave images of several sizes.

    Raises:
      CheckpointError: an unknown processor or value, or something that a resize and a centre crop cannot do.
    """
    where = "preprocessor_config.json"
    config = _entries(config, where)
    processor = _processor(config)
    config = {**_PROCESSORS[processor], **config}
    if processor == "ConvNextImageProcessor":
        config |= _cropped_by_share(config, where)
    for step in ("do_pad", "do_flip_channel_order", "keep_aspect_ratio"):
        if config.get(step):
            raise CheckpointError(f"{where}: {step} is {config[step]!r}; only False is supported.")
    crops, resizes = bool(config.get("do_center_crop", False)), bool(config.get("do_resize", True))
    kept = _pair(config.get("crop_size", 224), f"{where}: crop_size") if crops else None
    if not resizes and crops:
        raise CheckpointError(
            f"{where}: do_center_crop without do_resize is not supported; set both or none."
        )
    resized, mode = _resized(config, f"{where}: size") if resizes else (image_size, "squash")
    kept = kept or (image_size if mode == "center" else resized)
    mean, std = _normalisation(config, where)
    code = config["resample"]
    if not _is_number(code) or code not in RESAMPLE:
        listed = ", ".join(f"{number} {name}" for number, name in RESAMPLE.items())
        raise CheckpointError(f"{where}: resample is {code!r}; it must be one of {listed}.")
    rounding = "even" if kept == resized and mode == "squash" else "down"
    # Our own word: transformers passes over it, and reading what we wrote gives our pixels.
    rounding = _choice(
        config.get("crop_rounding", rounding), CHOICES["crop_rounding"], f"{where}: crop_rounding"
    )
    preprocessing = Preprocessing(mean, std, RESAMPLE[code], kept[0] / resized[0], mode, rounding)
    if preprocessing.resized(kept) != resized:
        raise CheckpointError(
            f"{where}: a crop of {kept} of {resized} keeps different shares of height and width."
        )
    return preprocessing, kept


def to_hf(
    preprocessing: Preprocessing, image_size: Size, processor: str = "ViTImageProcessor", channels: int = 3
) -> dict[str, Any]:
    """Return a transformers `preprocessor_config.json`.

    Args:
      preprocessing: of the model; transformers has no `crop_rounding` other than `down`, so another is written for
        us to read, and what is cropped from a `corner`, or `uncovered`, is left to the patches.
      image_size: height and width of the model's images.
      processor: the family's own class. Where it cannot do what is asked in every version of transformers,
        `BitImageProcessor`, which can, is written instead.
      channels: of the model's images.

    Raises:
      ConfigError: transformers has no processor that does it.
    """
    resized, mode = preprocessing.resized(image_size), preprocessing.crop_mode
    if mode == "border" or (mode == "center" and len({*image_size}) > 1):
        squash = f"decode|resize({image_size})"
        raise ConfigError(
            f"crop_mode is {mode!r} for images of {image_size}, which no image processor of transformers can do; they "
            f"can do crop_mode 'squash': evaluate with data.eval_transforms=\"{squash}\", and write it with "
            f"{argument('eval_transforms', squash)}."
        )
    kept = image_size[0] + preprocessing.uncovered[0], image_size[1] + preprocessing.uncovered[1]
    crops = mode == "center" or (resized != image_size and preprocessing.crop_rounding != "corner")
    able = _CROP_ANYTHING if mode == "center" else _CROP_ANYTHING + _CROP_SQUARES
    # DINOv3's resizes floats, which bicubic and Lanczos filters carry beyond the range of pixels.
    overshoots = processor.startswith("DINOv3") and preprocessing.interpolation in ("bicubic", "lanczos")
    if (crops and processor not in able) or overshoots:
        processor = "BitImageProcessor"
    size = {"shortest_edge": resized[0]} if mode == "center" else _height_width(resized)
    return {
        "image_processor_type": processor,
        "do_resize": True,
        "size": size,
        "resample": {name: code for code, name in RESAMPLE.items()}[preprocessing.interpolation],
        "do_center_crop": crops,
        **({"crop_size": _height_width(kept)} if crops else {}),
        **(
            {"crop_rounding": preprocessing.crop_rounding}
            if crops and preprocessing.crop_rounding != "down"
            else {}
        ),
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": _per_channel(preprocessing.mean, channels),
        "image_std": _per_channel(preprocessing.std, channels),
    }


def naflex_from_hf(config: Mapping[str, Any], patches: int) -> tuple[Preprocessing, int]:
    """Return preprocessing and the most patches of an image, of the `preprocessor_config.json` of a SigLIP 2 NaFlex.

    Args:
      config: the file.
      patches: at most, where the file does not say it.

    Raises:
      CheckpointError: a value is not one that transformers has.
    """
    where = "preprocessor_config.json"
    config = {
        "image_mean": INCEPTION_MEAN,
        "image_std": INCEPTION_STD,
        "resample": 2,
        **_entries(config, where),
    }
    mean, std = _normalisation(config, where)
    code, patches = config["resample"], config.get("max_num_patches", patches)
    if not _is_number(code) or code not in RESAMPLE:
        listed = ", ".join(f"{number} {name}" for number, name in RESAMPLE.items())
        raise CheckpointError(f"{where}: resample is {code!r}; it must be one of {listed}.")
    if not isinstance(patches, int) or isinstance(patches, bool) or not 0 < patches < LARGEST:
        raise CheckpointError(f"{where}: max_num_patches is {patches!r}; it must be a whole number above 0.")
    return Preprocessing(mean, std, RESAMPLE[code]), patches


def naflex_to_hf(
    preprocessing: Preprocessing, patches: int, patch_size: int, channels: int
) -> dict[str, Any]:
    """Return the `preprocessor_config.json` of a SigLIP 2 NaFlex, see `naflex_from_hf`."""
    return {
        "image_processor_type": "Siglip2ImageProcessor",
        "do_resize": True,
        "resample": {name: code for code, name in RESAMPLE.items()}[preprocessing.interpolation],
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": _per_channel(preprocessing.mean, channels),
        "image_std": _per_channel(preprocessing.std, channels),
        "patch_size": patch_size,
        "max_num_patches": patches,
    }


def _processor(config: Mapping[str, Any]) -> str:
    """Return the name of a processor's class, without its age and backend."""
    name = config.get("image_processor_type", config.get("feature_extractor_type", "ViTImageProcessor"))
    known = str(name).removesuffix("Fast").removesuffix("Pil").replace("FeatureExtractor", "ImageProcessor")
    if known not in _PROCESSORS:
        shown = name if len(str(name)) <= 80 else f"{str(name)[:80]}..."  # a damaged file has any length
        raise CheckpointError(
            f"preprocessor_config.json: the image processor {shown!r} is not supported; supported are "
            f"{', '.join(_PROCESSORS)}.{nearest(known, _PROCESSORS)}"
        )
    return known


def _resized(config: Mapping[str, Any], where: str) -> tuple[Size, str]:
    """Return the size that transformers resizes to and our crop mode; squares stand for their short side."""
    size = config["size"]
    if isinstance(size, Mapping) and set(size) == {"shortest_edge"}:
        return _pair(size["shortest_edge"], where), "center"
    if isinstance(size, Mapping) and set(size) == {"height", "width"}:
        return _pair((size["height"], size["width"]), where), "squash"
    if isinstance(size, Mapping):
        raise CheckpointError(f"{where} is {dict(size)}; it must have height and width, or shortest_edge.")
    whole = isinstance(size, int) and config["whole"] == "short"
    return _pair(size, where), "center" if whole else "squash"


def _cropped_by_share(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return in words of other processors what a size and a share of it mean: from 384 on, nothing is cropped."""
    size = config["size"]
    edge = _pair(size.get("shortest_edge") if isinstance(size, Mapping) else size, f"{where}: size")[0]
    share = _positive(config["crop_pct"], f"{where}: crop_pct")
    if edge >= 384:
        return {"size": {"height": edge, "width": edge}}
    return {"size": {"shortest_edge": int(edge / share)}, "do_center_crop": True, "crop_size": edge}


def _normalisation(config: Mapping[str, Any], where: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and std of pixels in [0, 1], whatever range the file scales them to."""
    mean, std = ((0.0,), (1.0,))
    if config.get("do_normalize", True):
        mean = _numbers(config["image_mean"], f"{where}: image_mean")
        std = _numbers(config["image_std"], f"{where}: image_std", positive=True)
    scale, offset = 255.0, 0.0
    if config.get("do_rescale", True):
        scale *= _positive(config.get("rescale_factor", 1 / 255), f"{where}: rescale_factor")
        offset = 1.0 if config.get("offset", config.get("rescale_offset", False)) else 0.0
    if math.isclose(scale, 1) and not offset:
        return mean, std
    return tuple((value + offset) / scale for value in mean), tuple(value / scale for value in std)


def _height_width(size: Size) -> dict[str, int]:
    return {"height": size[0], "width": size[1]}


def _per_channel(values: tuple[float, ...], channels: int) -> list[float]:
    return list(values) * channels if len(values) == 1 else list(values)


def _pair(value: Any, where: str) -> Size:
    """Return height and width of a whole number, a pair or a dictionary of them."""
    sides: Any
    if isinstance(value, Mapping):
        sides = (value.get("height"), value.get("width"))
    else:
        sides = value if isinstance(value, list | tuple) else (value, value)
    if len(sides) != 2 or not all(
        isinstance(s, int) and not isinstance(s, bool) and 0 < s < LARGEST for s in sides
    ):
        raise CheckpointError(f"{where} is {value!r}; it must be height and width in pixels.")
    return sides[0], sides[1]


def _numbers(value: Any, where: str, positive: bool = False) -> tuple[float, ...]:
    values = tuple(value) if isinstance(value, list | tuple) else (value,)
    if not values or not all(_is_number(v) and (v > 0 or not positive) for v in values):
        kind = "numbers above 0" if positive else "numbers"
        raise CheckpointError(f"{where} is {value!r}; it must be a list of {kind}.")
    return values


def _positive(value: Any, where: str) -> float:
    if not _is_number(value) or value <= 0:
        raise CheckpointError(f"{where} is {value!r}; it must be a number above 0.")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -LARGEST < value < LARGEST


def _choice(value: Any, allowed: Iterable[str], where: str) -> str:
    allowed = list(allowed)
    if value not in allowed:
        raise CheckpointError(
            f"{where} is {value!r}; it must be one of {', '.join(allowed)}.{nearest(str(value), allowed)}"
        )
    return value


def _entries(config: Any, where: str) -> dict[str, Any]:
    """Return what a file says; null says nothing."""
    if not isinstance(config, Mapping):
        raise CheckpointError(
            f"{where} is a {type(config).__name__}; it must be an object of names and values."
        )
    return {name: value for name, value in config.items() if value is not None}
