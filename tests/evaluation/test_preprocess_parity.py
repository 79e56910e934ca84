"""Preprocessing gives what timm's and transformers' give, to 1/255 of the range of pixels."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.tiny import tiny
from vit_jax.evaluation.preprocess import preprocessing
from vit_jax.models.preprocessing import CLIP_MEAN, CLIP_STD, IMAGENET, INCEPTION, Preprocessing

REFERENCE = Path(__file__).parent.parent / "reference" / "aux_preprocess.npz"
HALF = (INCEPTION.mean, INCEPTION.std)
NATURAL = (IMAGENET.mean, IMAGENET.std)
OPENAI = (CLIP_MEAN, CLIP_STD)

# What each library was asked for; transformers crops from the lower of two middle pixels.
CASES = {
    "timm_bicubic_p90": Preprocessing(*HALF, "bicubic", 0.9),
    "timm_bilinear_p875": Preprocessing(*NATURAL, "bilinear", 0.875),
    "timm_bicubic_p100_squash": Preprocessing(*NATURAL, "bicubic", 1.0, "squash"),
    "timm_border": Preprocessing(*NATURAL, "bicubic", 0.9, "border"),
    "hf_vit": Preprocessing(*HALF, "bilinear", 1.0, "squash"),
    "hf_clip": Preprocessing(*OPENAI, "bicubic", 1.0, "center", "down"),
    "hf_siglip": Preprocessing(*HALF, "bicubic", 1.0, "squash"),
    "hf_beit": Preprocessing(*HALF, "bicubic", 32 / 36, "squash", "down"),
    "hf_dinov2": Preprocessing(*OPENAI, "bicubic", 32 / 36, "center", "down"),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("image", ["image", "small"])
def test_like_the_source(case, image):
    settings = CASES[case]
    with np.load(REFERENCE) as arrays:
        pixels = arrays[f"in.{image}"]
        outputs = {
            kind: arrays[f"out.{image}.{case}{kind}"].transpose(1, 2, 0)
            for kind in ("", "_default", "_pil")
            if f"out.{image}.{case}{kind}" in arrays
        }
    assert set(outputs) == ({""} if case.startswith("timm") else {"_default", "_pil"})
    prepared = preprocessing(tiny(image_size=32, preprocessing=settings))(pixels)[0]
    for kind, expected in outputs.items():
        differences = 255 * np.abs(prepared - expected) * np.asarray(settings.std)
        # Those that use Pillow are equal; torchvision rounds some pixels the other way.
        assert differences.max() < (1 if kind == "_default" else 0) + 1e-3, kind


def test_every_case_of_classifiers_is_compared():
    described = json.loads(REFERENCE.with_suffix(".json").read_text())
    names = {
        name.split(".")[1].removesuffix("_default").removesuffix("_pil") for name in described["outputs"]
    }
    assert names - {"hf_sam"} == set(CASES)
