"""Does what we write compute the same in the library it was written for?

Every reference case is loaded, written in timm's and in transformers' layout, loaded there by their own functions
(`timm.create_model` from the folder and from the file, `from_pretrained`), and run on the case's images; logits or
features are compared with ours. Then a tiny model of each of transformers' classes goes from there to here and back
(`transformers_classes.py`). Needs `pip install vit-jax[parity]`.

  python benchmarks/roundtrip.py --cases DIR
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")
sys.path.insert(0, str(Path(__file__).parent.parent))

import jax
import jax.numpy as jnp
import numpy as np
import transformers_classes

import vit_jax
from tests.parity.sources import prepare
from tests.reference.cases import load_case, weights_file
from vit_jax.errors import ConfigError
from vit_jax.models.mae.model import MaskedAutoencoder
from vit_jax.models.text.model import ImageTextModel
from vit_jax.models.vit.model import VisionTransformer
from vit_jax.weights.load import load

FAMILIES = ("vit", "hybrid", "deit", "beit", "mae", "dino", "clip", "siglip")


def main() -> int:
    parser = argparse.ArgumentParser(description="Round trips through timm and transformers.")
    parser.add_argument("--cases", default="tests/reference", help="folder of reference cases")
    cases = sorted(Path(parser.parse_args().cases).absolute().glob("*.json"))
    worst, failed = 0.0, 0
    for path in cases:
        about = json.loads(path.read_text())
        if (
            not isinstance(about, dict)
            or about.get("family") not in FAMILIES
            or not weights_file(path.with_suffix("")).exists()
        ):
            continue
        for library, result in written_and_read(about, path):
            error = result if isinstance(result, float) else None
            bad = error is not None and error > 2e-5
            failed += bad or str(result).startswith("FAILED")
            worst = max(worst, error or 0.0)
            print(
                f"{about['name']:<24} {library:<14} {f'{error:.1e}' if error is not None else result}{'  FAILED' * bad}"
            )
    print(f"largest difference {worst:.1e} of the largest value")
    for name, written, result in transformers_classes.rows():
        failed += isinstance(result, str)
        share = result if isinstance(result, str) else f"{result:.2f} of what is allowed"
        print(f"{name:<45} {written:<42} {share}")
    print(f"{failed} failed")
    return int(failed > 0)


def written_and_read(about: dict[str, Any], path: Path):
    """Yield (library, largest difference relative to the largest value, or why the library cannot hold the model)."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "in").mkdir()
        try:
            source: Any
            source, options = prepare(about, weights_file(path.with_suffix("")), place / "in")
            model = load(source, verbose=False, **dict[str, Any](options))
        except Exception as error:  # a case that is no model, such as losses
            yield "-", f"not a model here: {str(error)[:80]}"
            return
        if not isinstance(model, VisionTransformer | MaskedAutoencoder | ImageTextModel):
            yield "-", "a head or a decoder of its own"
            return
        arrays = load_case(path.with_suffix(""))[1]
        ours = compute(model, arrays)
        for format, library in (("timm", "timm"), ("hf", "transformers")):
            target = place / format
            try:
                ignore = losses(model) if format == "timm" else []
                vit_jax.save(model, target, format, ignore=ignore)
            except ConfigError as error:
                yield library, f"cannot: {str(error).split(';')[0][:90]}"
                continue
            try:
                theirs = {"timm": read_timm, "hf": read_transformers}[format](target, arrays)
            except Exception as error:
                yield library, f"FAILED to load there: {type(error).__name__} {str(error)[:300]}"
                continue
            yield library, difference(ours, theirs, 1e-6 if "norm_epsilon" in ignore else 0.0)


def losses(model: Any) -> list[str]:
    """Return what timm cannot say of transformers' models: their epsilon, and a token that only training uses."""
    config = model.config
    lost = ["norm_epsilon"] if getattr(config, "norm_epsilon", 0.0) == 1e-12 else []
    return lost + ["mask_token"] * bool(getattr(config, "mask_token", False) and config.pool != "patches")


def compute(model: Any, arrays: dict[str, Any]) -> np.ndarray:
    inputs = {name[3:]: value for name, value in arrays.items() if name.startswith("in.")}
    images: Any = inputs.get("pixel_values", inputs.get("global_crops"))
    with jax.default_matmul_precision("highest"):
        if isinstance(model, MaskedAutoencoder):
            pixels = jnp.transpose(images, (0, 2, 3, 1))
            return np.asarray(model(pixels, jnp.asarray(inputs["noise"]), 0.75)[0])
        if isinstance(model, ImageTextModel):
            if images.ndim == 3:
                from vit_jax.models.vit.embedding import Patches

                pixels: Any = Patches(images, inputs["spatial_shapes"].astype(np.int32))
            else:
                pixels = np.transpose(images, (0, 2, 3, 1))
            return np.asarray(model(pixels, inputs["input_ids"].astype(np.int32)).logits)
        size = model.config.image_size
        pixels = crop(images if images is not None else None, size, arrays)
        return np.asarray(model(np.transpose(pixels, (0, 2, 3, 1))))


def crop(images: Any, size: tuple[int, int], arrays: dict[str, np.ndarray]) -> np.ndarray:
    """Return images of the model's own size: cases with other sizes are cut or tiled to it."""
    if images is None or images.ndim != 4:
        return np.random.default_rng(0).standard_normal((2, 3, *size)).astype(np.float32)
    tiled = np.tile(images, (1, 1, 2, 2))
    return tiled[:, :, : size[0], : size[1]]


def read_timm(target: Path, arrays: dict[str, np.ndarray]) -> np.ndarray:
    import timm
    import torch

    about = json.loads((target / "config.json").read_text())
    model = timm.create_model(f"local-dir:{target}", pretrained=True).eval()
    direct = timm.create_model(
        about["architecture"],
        checkpoint_path=str(target / "model.safetensors"),
        num_classes=about["num_classes"],
        **about["model_args"],
    ).eval()
    images = images_of(arrays, tuple(about["model_args"]["img_size"]))
    with torch.no_grad():
        one, other = model(torch.from_numpy(images)).numpy(), direct(torch.from_numpy(images)).numpy()
    assert np.array_equal(one, other), "timm's two ways of loading disagree"
    return one


def read_transformers(target: Path, arrays: dict[str, np.ndarray]) -> np.ndarray:
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    about = json.loads((target / "config.json").read_text())
    model, _ = transformers_classes.strictly(target)
    inputs = {name[3:]: value for name, value in arrays.items() if name.startswith("in.")}
    with torch.no_grad():
        if about["model_type"] in ("clip", "siglip", "siglip2"):
            given = {name: torch.from_numpy(value) for name, value in inputs.items()}
            return model(**given).logits_per_image.numpy()
        size = about["image_size"]
        images = torch.from_numpy(images_of(arrays, (size, size) if isinstance(size, int) else tuple(size)))
        if about["model_type"] == "vit_mae":
            return model(images, noise=torch.from_numpy(inputs["noise"])).logits.numpy()
        mask = torch.zeros(len(images), (images.shape[2] // about["patch_size"]) ** 2, dtype=torch.bool)
        masked = {"bool_masked_pos": mask} if "MaskedImage" in about["architectures"][0] else {}
        out = model(images, **masked)
    if hasattr(out, "reconstruction"):
        p = about["patch_size"]
        pixels = out.reconstruction.numpy()
        b, c, h, w = pixels.shape
        return (
            pixels.reshape(b, c, h // p, p, w // p, p).transpose(0, 2, 4, 3, 5, 1).reshape(b, -1, p * p * c)
        )
    if hasattr(out, "logits"):
        return out.logits.numpy()
    if getattr(out, "pooler_output", None) is not None:
        return out.pooler_output.numpy()
    tokens = out.last_hidden_state.numpy()
    return tokens.mean(1) if about["model_type"] == "ijepa" else tokens[:, 0]


def images_of(arrays: dict[str, np.ndarray], size: tuple[int, int]) -> np.ndarray:
    images = arrays.get("in.pixel_values", arrays.get("in.global_crops"))
    return np.ascontiguousarray(crop(images, size, arrays))


def difference(ours: np.ndarray, theirs: np.ndarray, allowed: float) -> float:
    assert ours.shape == theirs.shape, f"{ours.shape} and {theirs.shape}"
    gap = float(np.abs(ours - theirs).max() / np.abs(theirs).max())
    return max(0.0, gap - 20 * allowed)  # another epsilon moves results by about itself


if __name__ == "__main__":
    sys.exit(main())
