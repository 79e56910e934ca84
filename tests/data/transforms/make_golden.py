"""Make `golden_augmentations.npz` and `golden_policies.json` with timm 1.0.31, torchvision 0.28 and Pillow.

Not run by the tests; `python tests/data/transforms/make_golden.py` where those three are installed. What the tests
then compare needs none of them.
"""

import json
import math
import random
from pathlib import Path

import numpy as np
import timm.data.auto_augment as timm_augment
from PIL import Image
from torchvision.transforms import AutoAugment, AutoAugmentPolicy, InterpolationMode, TrivialAugmentWide
from torchvision.transforms import functional as F
from torchvision.transforms.autoaugment import _apply_op

FOLDER = Path(__file__).parent
# Ours for timm's; torchvision's are written alike.
NAMES = {
    "AutoContrast": "autocontrast",
    "Equalize": "equalize",
    "Invert": "invert",
    "Identity": "identity",
    "Rotate": "rotate",
    "Posterize": "posterize",
    "PosterizeIncreasing": "posterize_increasing",
    "PosterizeOriginal": "posterize_original",
    "Solarize": "solarize",
    "SolarizeIncreasing": "solarize_increasing",
    "SolarizeAdd": "solarize_add",
    "ShearX": "shear_x",
    "ShearY": "shear_y",
    "TranslateX": "translate_x",
    "TranslateY": "translate_y",
    "TranslateXRel": "translate_x_rel",
    "TranslateYRel": "translate_y_rel",
    "Desaturate": "desaturate",
    "GaussianBlur": "gaussian_blur",
    "GaussianBlurRand": "gaussian_blur_random",
}
NAMES |= {name: name.lower() for name in ("Color", "Contrast", "Brightness", "Sharpness")}
NAMES |= {
    f"{name}Increasing": f"{name.lower()}_increasing"
    for name in ("Color", "Contrast", "Brightness", "Sharpness")
}
# What the uniform draws of a policy return, for either sign.
DRAWS = {"plus": 0.1, "minus": 0.9}
RAND_POLICIES = [
    "rand",
    "rand-m9-mstd0.5-inc1",
    "rand-m9-mstd0.5",
    "rand-m15-n3-mmax20-inc1",
    "rand-m6-n4-p0.8-mstd101-inc0",
    "rand-m9-n6-mstd0.5-inc1",
    "rand-mstd1-tweights",
    "rand-m5-t3a-inc1",
    "rand-m5-n1-t3aw",
]
AUTO_POLICIES = ["v0", "v0r", "original", "originalr", "3a"]
MIX_POLICIES = ["augmix-m3", "augmix-m5-w4-d2", "augmix-m5-mstd1-a2"]
LEVELS = [0, 1, 2.5, 5, 7, 9, 10]


def photograph(height: int, width: int) -> np.ndarray:
    """Return an image with smooth parts, edges and a little noise."""
    rng = np.random.default_rng(7)
    y, x = np.mgrid[:height, :width] / 8
    planes = [
        np.sin(x * f + g * y) + np.cos(y * h)
        for f, g, h in ((0.7, 0.2, 0.5), (0.3, 0.6, 0.8), (0.9, 0.1, 0.3))
    ]
    image = 118 + 42 * np.stack(planes, axis=-1) + rng.normal(0, 3, (height, width, 3))
    image[8:20, 14:30] *= (0.4, 1.1, 0.8)
    return np.clip(image, 4, 251).astype(np.uint8)


def levels() -> dict:
    """Return what timm makes of levels, for either sign."""
    table: dict = {}
    for name, function in timm_augment.LEVEL_TO_ARG.items():
        if function is None or name in ("TranslateX", "TranslateY"):
            continue
        for sign, draw in DRAWS.items():
            timm_augment.random.random = lambda draw=draw: draw
            hparams = dict(timm_augment._HPARAMS_DEFAULT)
            table.setdefault(NAMES[name], {})[sign] = [float(function(level, hparams)[0]) for level in LEVELS]
    return {"levels": LEVELS, "arguments": table}


def rand_policy(text: str) -> dict:
    """Return what timm reads in a RandAugment policy."""
    policy = timm_augment.rand_augment_transform(text, dict(timm_augment._HPARAMS_DEFAULT))
    first = policy.ops[0]
    return {
        "names": [NAMES[operation.name] for operation in policy.ops],
        "weights": None if policy.choice_weights is None else list(policy.choice_weights),
        "number": policy.num_layers,
        "probability": first.prob,
        "magnitude": first.magnitude,
        "deviation": "inf" if first.magnitude_std == math.inf else first.magnitude_std,
        "most": first.magnitude_max or timm_augment._LEVEL_DENOM,
    }


def mix_policy(text: str) -> dict:
    """Return what timm reads in an AugMix policy."""
    policy = timm_augment.augment_and_mix_transform(text, dict(timm_augment._HPARAMS_DEFAULT))
    first = policy.ops[0]
    return {
        "names": [NAMES[operation.name] for operation in policy.ops],
        "magnitude": first.magnitude,
        "width": policy.width,
        "depth": max(0, policy.depth),
        "alpha": policy.alpha,
        "deviation": "inf" if first.magnitude_std == math.inf else first.magnitude_std,
    }


def auto_policy(name: str) -> list:
    """Return the steps of an AutoAugment policy of timm."""
    pairs = timm_augment.auto_augment_policy(name)
    return [[[NAMES[step.name], step.prob, step.magnitude] for step in pair] for pair in pairs]


def paper_policy(policy: AutoAugmentPolicy) -> list:
    """Return the steps of an AutoAugment policy of torchvision."""
    pairs = AutoAugment(policy).policies
    return [[[NAMES[name], chance, level or 0] for name, chance, level in pair] for pair in pairs]


def timm_images(image: np.ndarray) -> dict[str, np.ndarray]:
    """Return what timm's operations make of an image."""
    images = {}
    for name in timm_augment.LEVEL_TO_ARG:
        if name in ("TranslateX", "TranslateY", "GaussianBlurRand"):
            continue
        for level in (2.5, 9) if timm_augment.LEVEL_TO_ARG[name] else (0,):
            for sign, draw in DRAWS.items():
                if sign == "minus" and level == 2.5:
                    continue
                timm_augment.random.random = lambda draw=draw: draw
                for interpolation in ("bilinear", "bicubic"):
                    moves = name.startswith(("Shear", "Translate", "Rotate"))
                    if interpolation == "bicubic" and not moves:
                        continue
                    hparams = {
                        "img_mean": (124, 116, 104),
                        "interpolation": Image.Resampling[interpolation.upper()],
                    }
                    operation = timm_augment.AugmentOp(name, 1.0, level, hparams)
                    result = np.asarray(operation(Image.fromarray(image)))
                    method = interpolation if moves else "any"
                    if sign == "minus" and np.array_equal(
                        images[f"timm/{NAMES[name]}/{level:g}/plus/{method}"], result
                    ):
                        continue
                    images[f"timm/{NAMES[name]}/{level:g}/{sign}/{method}"] = result
    return images


def torchvision_images(image: np.ndarray) -> dict[str, np.ndarray]:
    """Return what TrivialAugment's operations, and the changes of colours, make of an image."""
    images = {}
    picture = Image.fromarray(image)
    for name, (magnitudes, signed) in TrivialAugmentWide()._augmentation_space(31).items():
        for bin in (6, 30) if magnitudes.ndim else (0,):
            magnitude = float(magnitudes[bin]) if magnitudes.ndim else 0.0
            for sign in ("plus", "minus") if signed and bin == 30 else ("plus",):
                signed_magnitude = -magnitude if sign == "minus" else magnitude
                result = _apply_op(picture, name, signed_magnitude, InterpolationMode.NEAREST, None)
                images[f"wide/{NAMES[name]}/{bin}/{sign}"] = np.asarray(result)
    for shift in (-0.1, 0.05, 0.4):
        images[f"torchvision/hue/{shift}"] = np.asarray(F.adjust_hue(picture, shift))
    return images


def main() -> None:
    """Write both files."""
    draw = random.random
    image = photograph(32, 40)
    arrays = {"image": image, **timm_images(image), **torchvision_images(image)}
    tables = {
        "timm": levels(),
        "rand": {text: rand_policy(text) for text in RAND_POLICIES},
        "mix": {text: mix_policy(text) for text in MIX_POLICIES},
        "auto": {name: auto_policy(name) for name in AUTO_POLICIES}
        | {
            "cifar10": paper_policy(AutoAugmentPolicy.CIFAR10),
            "svhn": paper_policy(AutoAugmentPolicy.SVHN),
        },
        "paper": {
            NAMES[name]: magnitudes.tolist()
            for name, (magnitudes, _) in AutoAugment()._augmentation_space(10, (331, 331)).items()
            if magnitudes.ndim
        },
        "wide": {
            NAMES[name]: magnitudes.tolist()
            for name, (magnitudes, _) in TrivialAugmentWide()._augmentation_space(31).items()
            if magnitudes.ndim
        },
    }
    random.random = draw
    np.savez_compressed(FOLDER / "golden_augmentations.npz", **arrays)
    (FOLDER / "golden_policies.json").write_text(json.dumps(tables) + "\n")


if __name__ == "__main__":
    main()
