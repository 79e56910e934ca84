"""Reference cases: weights and outputs of other libraries.

A case is `NAME.json` (its description), `NAME.npz` (inputs, outputs, gradient) and `NAME.safetensors` (weights, under
the names that a downloaded checkpoint has); of ours, what can be drawn again is left out of the files, see `drawn.py`.
"""

import atexit
import functools
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from tests.reference.drawn import drawn

HERE = Path(__file__).parent
METADATA = {"format": "pt"}


def load_case(case):
    """Return (description, arrays, weights) of a case: one of ours by name, another by its path without suffix."""
    path, weights = HERE / case, weights_file(case)
    description = json.loads(path.with_suffix(".json").read_text())
    arrays = dict(np.load(path.with_suffix(".npz"))) | drawn(description, "arrays")
    return description, arrays, load_file(weights) if weights.exists() else {}


@functools.cache
def weights_file(case):
    """Return the path of a case's weights as one file, as a user has it; a case of functions alone has none there."""
    path = (HERE / case).with_suffix(".safetensors")
    weights = drawn(json.loads(path.with_suffix(".json").read_text()), "weights")
    if not weights:
        return path
    whole = Path(tempfile.mkdtemp(dir=_folder())) / path.name
    save_file(weights | (load_file(path) if path.exists() else {}), whole, METADATA)
    return whole


@functools.cache
def _folder():
    folder = tempfile.mkdtemp(prefix="reference-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def tolerance(description, output):
    """The rule for passing: 20 times the float32 noise floor, or 2e-5 of the largest value."""
    about = description["outputs"][output]
    return max(20 * about.get("noise_f32_vs_f64", 0), 2e-5 * about["absmax"])


def assert_close(ours, theirs, limit, what):
    difference = np.abs(np.asarray(ours, np.float64) - theirs).max()
    assert difference <= limit, f"{what}: differs by {difference:.3g}, allowed {limit:.3g}"


def nhwc(images):
    return np.transpose(images, (0, 2, 3, 1))
