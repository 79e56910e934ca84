"""Reference cases: weights and outputs of other libraries."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

HERE = Path(__file__).parent


def load_case(name):
    """Return (description, arrays, weights) of a case."""
    description = json.loads((HERE / f"{name}.json").read_text())
    arrays = dict(np.load(HERE / f"{name}.npz"))
    weights = HERE / f"{name}.safetensors"
    return description, arrays, load_file(weights) if weights.exists() else {}


def tolerance(description, output):
    """The rule for passing: 20 times the float32 noise floor, or 2e-5 of the largest value."""
    about = description["outputs"][output]
    return max(20 * about.get("noise_f32_vs_f64", 0), 2e-5 * about["absmax"])


def assert_close(ours, theirs, limit, what):
    difference = np.abs(np.asarray(ours, np.float64) - theirs).max()
    assert difference <= limit, f"{what}: differs by {difference:.3g}, allowed {limit:.3g}"


def nhwc(images):
    return np.transpose(images, (0, 2, 3, 1))
