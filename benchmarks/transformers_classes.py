"""transformers' own classes in both directions: a tiny model of each, saved by transformers, loaded here, written back.

Outputs must agree by the rule of the reference cases: 20 times the float32 noise floor, or 2e-5 of the largest value.
What is written must load there without arrays that are missing, unexpected or of another shape.
"""

import inspect
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

import vit_jax
from vit_jax.models.families import family_of
from vit_jax.models.patches import Patches
from vit_jax.models.text.model import ImageTextModel, TextTransformer

_SIZE = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
_IMAGE = dict(_SIZE, image_size=32, patch_size=8)
_LABELS = dict(num_labels=5)
_END = 98
_WORDS = dict(_SIZE, vocab_size=99, max_position_embeddings=16)
_BEIT = dict(_IMAGE, use_mask_token=True, use_relative_position_bias=True, vocab_size=50, **_LABELS)
_DINO = dict(_IMAGE, mlp_ratio=2, **_LABELS)
_PIXELS = dict(_BEIT, num_hidden_layers=4, out_indices=[1, 2, 3, 4], auxiliary_channels=16)
_DECODER = {
    "decoder_hidden_size": 32, "decoder_num_attention_heads": 2, "decoder_num_hidden_layers": 1,
    "decoder_intermediate_size": 64,
}  # fmt: skip
_VIT = dict(_IMAGE, encoder_stride=8, **_LABELS)
_SWIN = dict(
    image_size=32, patch_size=2, embed_dim=16, depths=[2, 2], num_heads=[2, 4], window_size=4, encoder_stride=4,
    **_LABELS,
)  # fmt: skip
_SWIN_V2 = dict(_SWIN, pretrained_window_sizes=[2, 0])
_CVT = dict(
    embed_dim=[16, 32, 64], depth=[1, 2, 3], num_heads=[1, 2, 4], drop_rate=[0.0] * 3, drop_path_rate=[0.0] * 3,
    **_LABELS,
)  # fmt: skip
_RESNET = dict(embedding_size=8, hidden_sizes=[16, 32], depths=[1, 2], **_LABELS)
_HIERA = dict(
    image_size=[64, 64], embed_dim=16, depths=[1, 1, 2], num_heads=[1, 2, 4], num_query_pool=2, query_stride=[2, 2],
    masked_unit_size=[4, 4], masked_unit_attention=[True, True, False], decoder_hidden_size=32, decoder_depth=1,
    decoder_num_heads=2, **_LABELS,
)  # fmt: skip


def _towers(family: str, **vision: Any) -> dict[str, dict[str, Any]]:
    """Return what the classes of two towers are made of."""
    size = {} if family.startswith("Siglip") else {"projection_dim": 16}
    image, text = {**_IMAGE, **vision, **size}, {**_WORDS, **size}
    image = {name: value for name, value in image.items() if value is not None}
    text |= {"projection_size": 32} if family.startswith("Siglip") else {"eos_token_id": _END}
    both = dict(vision_config=image, text_config=text, **size)
    found = {"Model": both, "VisionModel": image, "TextModel": text, "ForImageClassification": both | _LABELS}
    if size:
        found |= {"VisionModelWithProjection": image, "TextModelWithProjection": text}
    return {f"{family}{name}": about for name, about in found.items()}


# Class, and `/` with a variant of it -> arguments of its configuration, or of the class if they begin with `_`.
CLASSES: dict[str, dict[str, Any]] = {
    "ViTModel": _VIT,
    "ViTModel/no pooler": dict(_VIT, _add_pooling_layer=False),
    "ViTForImageClassification": _VIT,
    "ViTForImageClassification/1 label": dict(_VIT, num_labels=1),
    "ViTForMaskedImageModeling": _VIT,
    "DeiTModel": _VIT,
    "DeiTForImageClassification": _VIT,
    "DeiTForImageClassificationWithTeacher": _VIT,
    "DeiTForMaskedImageModeling": _VIT,
    "BeitModel": _BEIT,
    "BeitModel/no pooler": dict(_BEIT, _add_pooling_layer=False),
    "BeitModel/class token": dict(_BEIT, use_mean_pooling=False),
    "BeitForImageClassification": _BEIT,
    "BeitForMaskedImageModeling": _BEIT,
    "BeitForSemanticSegmentation": _PIXELS,
    "Data2VecVisionModel": _BEIT,
    "Data2VecVisionModel/pooler": dict(_BEIT, _add_pooling_layer=True),
    "Data2VecVisionForImageClassification": _BEIT,
    "Data2VecVisionForSemanticSegmentation": _PIXELS,
    "Dinov2Model": _DINO,
    "Dinov2ForImageClassification": _DINO,
    "Dinov2WithRegistersModel": _DINO,
    "Dinov2WithRegistersForImageClassification": _DINO,
    "DINOv3ViTModel": dict(_IMAGE, num_register_tokens=4),
    "DINOv3ViTModel/no registers": _IMAGE,
    "ViTMAEModel": dict(_IMAGE, mask_ratio=0.0),
    "ViTMAEForPreTraining": dict(_IMAGE, **_DECODER),
    "IJepaModel": dict(_IMAGE),
    "IJepaForImageClassification": dict(_IMAGE, **_LABELS),
    "ViTMSNModel": dict(_IMAGE),
    "ViTMSNForImageClassification": dict(_IMAGE, **_LABELS),
    "SwinModel": _SWIN,
    "SwinForImageClassification": _SWIN,
    "SwinForMaskedImageModeling": _SWIN,
    "Swinv2Model": _SWIN_V2,
    "Swinv2ForImageClassification": _SWIN_V2,
    "Swinv2ForMaskedImageModeling": _SWIN_V2,
    "CvtModel": _CVT,
    "CvtForImageClassification": _CVT,
    "ResNetModel": _RESNET,
    "ResNetForImageClassification": _RESNET,
    "ResNetForImageClassification/basic": dict(_RESNET, layer_type="basic"),
    "HieraModel": _HIERA,
    "HieraForImageClassification": _HIERA,
    "HieraForPreTraining": _HIERA,
    **_towers("CLIP"),
    **_towers("MetaClip2"),
    "CLIPTextModel/end token beyond the vocabulary": _WORDS,
    "MetaClip2Model/end token 2": dict(
        vision_config=dict(_IMAGE, projection_dim=16),
        text_config=dict(_WORDS, projection_dim=16, eos_token_id=2),
        projection_dim=16,
    ),
    "ChineseCLIPVisionModel": dict(_IMAGE),
    **_towers("Siglip"),
    "SiglipVisionModel/no head": dict(_IMAGE, vision_use_head=False),
    **_towers("Siglip2", image_size=None, num_patches=16),
}


def rows() -> Iterator[tuple[str, str, float | str]]:
    """Yield class, what it was written as, and the largest difference as a share of what is allowed, or what failed."""
    for index, (name, about) in enumerate(CLASSES.items()):
        try:
            yield name, *both_ways(name, about, index)
        except Exception as error:
            yield name, "", f"FAILED: {type(error).__name__} {str(error)[:300]}"


def both_ways(name: str, about: dict[str, Any], seed: int, **saving: Any) -> tuple[str, float]:
    """Return the class that a model is written back as, and the larger difference of both ways."""
    with tempfile.TemporaryDirectory() as folder:
        theirs = made(name, about, seed)
        inputs = inputs_of(theirs.config, seed)
        theirs.save_pretrained(Path(folder) / "theirs", **saving)
        model = vit_jax.load(Path(folder) / "theirs", verbose=False)
        reference = outputs(theirs, inputs)
        exact = outputs(
            theirs.double(), {n: v.double() if v.is_floating_point() else v for n, v in inputs.items()}
        )
        allowed = max(20 * np.abs(exact - reference).max(), 2e-5 * np.abs(exact).max())
        ours = computed(model, {n: v.numpy() for n, v in inputs.items()})
        assert ours.shape == exact.shape, f"outputs of shape {ours.shape}, and theirs of {exact.shape}"
        vit_jax.save(model, Path(folder) / "ours", "hf")
        again, kind = strictly(Path(folder) / "ours")
        back = outputs(again, inputs)
        assert back.shape == exact.shape, f"{kind} gives outputs of shape {back.shape}, and not {exact.shape}"
        worst = max(np.abs(ours - exact).max(), np.abs(back - exact).max()) / allowed
    assert worst <= 1, f"differs by {worst:.2g} of what is allowed, written as {kind}"
    return kind, float(worst)


def made(name: str, about: dict[str, Any], seed: int) -> Any:
    """Return a random model of a class, without neutral values."""
    import torch
    import transformers

    kind = getattr(transformers, name.partition("/")[0])
    options = {key[1:]: value for key, value in about.items() if key.startswith("_")}
    config = kind.config_class(**{key: value for key, value in about.items() if not key.startswith("_")})
    torch.manual_seed(seed)
    model = kind(config, **options).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
        for name, buffer in model.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.add_(0.1 * torch.rand(buffer.shape))
    return model


def strictly(folder: Path) -> tuple[Any, str]:
    """Return the model that transformers makes of a folder, and its class."""
    import transformers

    kind = json.loads((folder / "config.json").read_text())["architectures"][0]
    model, told = getattr(transformers, kind).from_pretrained(folder, output_loading_info=True)
    wrong = {what: sorted(map(str, names))[:3] for what, names in told.items() if names}
    assert not wrong, f"{kind} loads with {wrong}"
    return model.eval(), kind


def inputs_of(config: Any, seed: int) -> dict[str, Any]:
    """Return inputs of a model by name: images, patches of images, tokens."""
    import torch

    rng = np.random.default_rng(seed)
    vision = getattr(config, "vision_config", None) or (config if hasattr(config, "patch_size") else None)
    text = getattr(config, "text_config", None) or (config if hasattr(config, "vocab_size") else None)
    text = None if text is vision else text
    found: dict[str, np.ndarray] = {}
    if vision is not None and hasattr(vision, "num_patches"):
        found["pixel_values"] = rng.standard_normal((2, 16, 3 * vision.patch_size**2)).astype(np.float32)
        found["spatial_shapes"] = np.array([[4, 4], [2, 6]])
        found["pixel_attention_mask"] = (np.arange(16) < np.array([[16], [12]])).astype(np.int64)
    elif vision is not None or text is None:
        size = getattr(vision, "image_size", 32)
        sides = (size, size) if isinstance(size, int) else tuple(size)
        found["pixel_values"] = rng.standard_normal((2, 3, *sides)).astype(np.float32)
    if text is not None:
        tokens = rng.integers(3, _END, (3, text.max_position_embeddings))
        tokens[[0, 1, 2], [5, 15, 9]] = _END
        found["input_ids"] = tokens
    if config.model_type == "vit_mae":
        found["noise"] = (
            np.sort(rng.random((2, 16)).astype(np.float32)) if config.mask_ratio == 0 else rng.random((2, 16))
        )
    if config.model_type == "hiera":
        found |= {"noise": rng.random((2, 16)), "mask_ratio": np.asarray(config.mask_ratio)}
    return {name: torch.from_numpy(value) for name, value in found.items()}


def outputs(model: Any, inputs: dict[str, Any]) -> np.ndarray:
    """Return what a model of transformers is used for."""
    import torch

    takes, kind, config = inspect.signature(model.forward).parameters, type(model).__name__, model.config
    given = {n: v for n, v in inputs.items() if n in takes and n != "labels"}
    if kind.endswith("ForMaskedImageModeling"):
        h, w = (side // config.patch_size for side in given["pixel_values"].shape[2:])
        given["bool_masked_pos"] = torch.zeros(len(given["pixel_values"]), h * w, dtype=torch.bool)
    if "mask_ratio" in inputs:
        config.mask_ratio = float(inputs["mask_ratio"])
    with torch.no_grad():
        out = model(**given)
    if (pixels := getattr(out, "reconstruction", None)) is not None:
        (b, c, h, w), p = pixels.shape, config.encoder_stride
        split = pixels.numpy().reshape(b, c, h // p, p, w // p, p)
        return split.transpose(0, 2, 4, 3, 5, 1).reshape(b, -1, p * p * c)
    if kind == "HieraForPreTraining":  # whose pixels are channel by channel
        b, n, _ = out.logits.shape
        return np.moveaxis(out.logits.numpy().reshape(b, n, config.num_channels, -1), 2, 3).reshape(b, n, -1)
    for name in ("logits", "logits_per_image", "image_embeds", "text_embeds"):
        if getattr(out, name, None) is not None:
            return getattr(out, name).numpy()
    tokens = out.last_hidden_state.numpy()
    without_pooler = "pooler" in dict(model.named_children()) and model.pooler is None
    if getattr(out, "pooler_output", None) is not None and not without_pooler:
        return out.pooler_output.flatten(1).numpy()
    if getattr(out, "cls_token_value", None) is not None:
        return out.cls_token_value.numpy()[:, 0]
    if config.model_type in ("beit", "data2vec-vision") and config.use_mean_pooling:
        return tokens[:, 1:].mean(1)
    if hasattr(config, "depths"):
        return tokens
    return tokens.mean(1) if config.model_type.startswith(("ijepa", "siglip")) else tokens[:, 0]


def computed(model: Any, inputs: dict[str, Any]) -> np.ndarray:
    """Return the same of our model."""
    tokens: Any = inputs["input_ids"].astype(np.int32) if "input_ids" in inputs else None
    images: Any = None
    if "spatial_shapes" in inputs:
        images = Patches(inputs["pixel_values"], inputs["spatial_shapes"].astype(np.int32))
    elif "pixel_values" in inputs:
        images = np.transpose(inputs["pixel_values"], (0, 2, 3, 1))
    with jax.default_matmul_precision("highest"):
        if isinstance(model, TextTransformer):
            return np.asarray(model(tokens))
        if isinstance(model, ImageTextModel):
            return np.asarray(model(images, tokens).logits)
        if "noise" in inspect.signature(type(model).__call__).parameters:
            ratio = float(inputs.get("mask_ratio", 0.75))
            return np.asarray(model(images, inputs["noise"].astype(np.float32), ratio)[0])
        found = np.asarray(model(images))
    if found.ndim < 4:
        return found
    if not family_of(model.config).per_image(model.config) and "heads" in type(model).__module__:
        return np.transpose(found, (0, 3, 1, 2))  # logits of each pixel
    return found.reshape(len(found), -1, found.shape[-1])
