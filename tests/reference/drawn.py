"""Random arrays of a reference case, drawn again instead of kept.

The generator of the cases fills every parameter, image and cotangent by a rule from NumPy's generator, seeded by the
case's seed and name and the array's name. `drawn` in a case's description says which: for its weights and for its
inputs, by rule, the names and shapes, and the sums by which a wrong draw is known. `shrink.py` makes such cases.
"""

import math
import zlib

import numpy as np

# What the generator calls an array whose name in the case is another; of weights, `runtime_to_disk` says it.
NAMES = {"in.pixel_values": "in.px"}
# Scales that go by the shape, one over the root: of a kernel that is kept outputs first, and of one kept inputs first.
SCALES = {"fan_in": lambda shape: math.prod(shape[1:]), "rows": lambda shape: math.prod(shape[:1])}


def drawn(about, kind):
    """Return the `weights` or `arrays` of a case that are not in its files, by name."""
    described = about.get("drawn", {}).get(kind)
    if not described:
        return {}
    names = generator_names(about)
    arrays = {
        name: draw(about, names.get(name, name), rule, tuple(shape))
        for rule, shapes in described["rules"].items()
        for name, shape in shapes.items()
    }
    found, kept = sums(arrays), described["sums"]
    # A last bit of some values may be another on another machine; another stream of random numbers is far away.
    assert max(abs(a - b) for a, b in zip(found, kept)) <= 1e-6 * kept[1], (
        f"{about['name']}: the {kind} drawn by NumPy {np.__version__} are not the case's: sum and sum of squares "
        f"{found}, not {kept}; its random numbers have changed, shrink the whole case again (tests/reference/shrink.py)"
    )
    return arrays


def generator_names(about):
    return NAMES | {disk: memory for memory, disk in about.get("runtime_to_disk", {}).items()}


def draw(about, name, rule, shape):
    """Return the array of this name in the generator by a rule: `normal MEAN SCALE` or `uniform LOW HIGH`."""
    seed = [about["seed"], zlib.crc32(about["name"].encode()), zlib.crc32(name.encode())]
    generator = np.random.default_rng(seed)
    kind, first, second = rule.split()
    if kind == "uniform":
        values = generator.uniform(float(first), float(second), shape)
    else:
        scale = 1 / math.sqrt(SCALES[second](shape)) if second in SCALES else float(second)
        values = float(first) + scale * generator.standard_normal(shape)
    return np.asarray(values, np.float32)


def sums(arrays):
    """Return the sum and the sum of squares of all values, in float64."""
    flat = [array.astype(np.float64).ravel() for array in arrays.values()]
    return [float(sum(values.sum() for values in flat)), float(sum(values @ values for values in flat))]
