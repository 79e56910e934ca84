"""Does what we write compute the same in the library it was written for?

Every reference case is loaded, written in timm's and in transformers' layout, loaded there by their own functions
(`timm.create_model` from the folder and from the file, `from_pretrained`), and run on the case's images; logits or
features are compared with ours. Then a tiny model of each of transformers' classes goes from there to here and back
(`transformers_classes.py`). Needs `pip install vit-jax[parity]`.

  python benchmarks/roundtrip.py --cases DIR
  python benchmarks/roundtrip.py --models mvitv2_tiny vit_small_r26_s32_224
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
import numpy as np
import transformers_classes

import vit_jax
from tests.parity.sources import prepare
from tests.reference.cases import load_case, weights_file
from vit_jax.errors import ConfigError, VitError
from vit_jax.models.registry import model_config, model_functions
from vit_jax.weights.load import load


def main() -> int:
    parser = argparse.ArgumentParser(description="Round trips through timm and transformers.")
    parser.add_argument("--cases", default="tests/reference", help="folder of reference cases")
    parser.add_argument(
        "--only", default="", help="cases whose names begin so (default: all, and all classes)"
    )
    parser.add_argument(
        "--models", nargs="*", default=[], help="published architectures instead, at full size"
    )
    arguments = parser.parse_args()
    worst, failed, count = 0.0, 0, 0
    for name, library, result in results(arguments):
        error = result if isinstance(result, float) else None
        bad = str(result).startswith("FAILED") or (error is not None and error > 2e-5)
        failed, worst, count = failed + bad, max(worst, error or 0.0), count + (error is not None)
        shown = result if error is None else f"{error:.1e}{'  FAILED' * bad}"
        print(f"{name:<24} {library:<14} {shown}", flush=True)
    print(f"{count} models written and read, largest difference {worst:.1e} of the largest value", flush=True)
    for name, kind, result in () if arguments.only or arguments.models else transformers_classes.rows():
        failed += isinstance(result, str)
        share = result if isinstance(result, str) else f"{result:.2f} of what is allowed"
        print(f"{name:<45} {kind:<42} {share}", flush=True)
    print(f"{failed} failed")
    return int(failed > 0)


def results(arguments: argparse.Namespace):
    """Yield (model, library, what came of it)."""
    for name in arguments.models:
        yield from ((name, *result) for result in published(name))
    if arguments.models:
        return
    for path in sorted(Path(arguments.cases).absolute().glob(f"{arguments.only}*.json")):
        about = json.loads(path.read_text())
        if isinstance(about, dict) and "name" in about and weights_file(path.with_suffix("")).exists():
            yield from ((about["name"], *result) for result in written_and_read(about, path))


def written_and_read(about: dict[str, Any], path: Path):
    """Yield (library, largest difference relative to the largest value, or why the library cannot hold the model)."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "in").mkdir()
        try:
            source: Any
            source, options = prepare(about, weights_file(path.with_suffix("")), place / "in")
            model = load(source, verbose=False, **dict[str, Any](options))
        except (VitError, KeyError, TypeError) as error:  # of another kind than models, or not known here
            yield "-", f"not a model here: {type(error).__name__} {str(error)[:80]}"
            return
        if all("." in name for name in about["outputs"]):
            yield "-", "gives maps of several stages alone, which tests/parity compare"
            return
        given = {name[3:]: v for name, v in load_case(path.with_suffix(""))[1].items() if name[:3] == "in."}
        if "mask_ratio" in about["config"]:
            given["mask_ratio"] = np.asarray(about["config"]["mask_ratio"])
        yield from written(model, given, place)


def published(name: str):
    """Yield the same of a published architecture with random parameters, written and read at its full size."""
    with tempfile.TemporaryDirectory() as folder:
        functions, rng = model_functions(model_config(name)), np.random.default_rng(0)
        params, buffers = functions.init_state(jax.random.key(0))
        # What begins as zeros, the head for one, would say nothing.
        params = jax.tree.map(lambda x: x + 0.02 * rng.standard_normal(x.shape, np.float32), params)
        model = functions.bind(params, buffers)
        yield from written(model, {}, Path(folder))


def written(model: Any, given: dict[str, np.ndarray], place: Path):
    """Yield the same of a model, written into folders in `place`."""
    inputs, ours = inputs_of(model, given), None
    for format, library in (("timm", "timm"), ("hf", "transformers")):
        target = place / format
        try:
            ignore = losses(model) if format == "timm" else []
            vit_jax.save(model, target, format, ignore=ignore)
        except ConfigError as error:
            yield library, f"cannot: {str(error).split(';')[0][:90]}"
            continue
        ours = transformers_classes.computed(model, inputs) if ours is None else ours
        try:
            theirs = {"timm": read_timm, "hf": read_transformers}[format](target, inputs)
        except Exception as error:
            yield library, f"FAILED to load there: {type(error).__name__} {str(error)[:300]}"
            continue
        yield library, difference(ours, theirs, 1e-6 if "norm_epsilon" in ignore else 0.0)


def losses(model: Any) -> list[str]:
    """Return what timm cannot say of transformers' models: their epsilon, and a token that only training uses."""
    config = model.config
    lost = ["norm_epsilon"] if getattr(config, "norm_epsilon", 0.0) == 1e-12 else []
    return lost + ["mask_token"] * bool(getattr(config, "mask_token", False) and config.pool != "patches")


def inputs_of(model: Any, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return inputs for a model: a case's images cut or tiled to its own size, or drawn where there are none."""
    images: Any = given.get("pixel_values", given.get("global_crops"))
    size = getattr(model.config, "image_size", None)
    if size is not None and getattr(images, "ndim", 0) != 4:
        shape = (2, model.config.in_channels, *size)
        images = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    elif size is not None:
        repeats = [-(-side // have) for side, have in zip(size, images.shape[2:])]
        images = np.tile(images, (1, 1, *repeats))[:, :, : size[0], : size[1]]
    seen = {
        name: value for name, value in given.items() if name != "bool_masked_pos"
    }  # nothing is hidden here
    return seen | {"pixel_values": np.ascontiguousarray(images)}


def read_timm(target: Path, inputs: dict[str, np.ndarray]) -> np.ndarray:
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
    images = torch.from_numpy(inputs["pixel_values"])
    with torch.no_grad():
        one, other = model(images).numpy(), direct(images).numpy()
    assert np.array_equal(one, other), "timm's two ways of loading disagree"
    return one


def read_transformers(target: Path, inputs: dict[str, np.ndarray]) -> np.ndarray:
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    model, _ = transformers_classes.strictly(target)
    return transformers_classes.outputs(model, {name: torch.from_numpy(v) for name, v in inputs.items()})


def difference(ours: np.ndarray, theirs: np.ndarray, allowed: float) -> float:
    assert ours.shape == theirs.shape, f"{ours.shape} and {theirs.shape}"
    assert np.isfinite(theirs).all(), "numbers that are not finite"
    assert np.any(theirs), "zeros, which say nothing"
    gap = float(np.abs(ours - theirs).max() / np.abs(theirs).max())
    return max(0.0, gap - 20 * allowed)  # another epsilon moves results by about itself


if __name__ == "__main__":
    sys.exit(main())
