"""Make reference cases small by leaving out what can be drawn again: `python -m tests.reference.shrink DIR [NAME ...]`.

Cases of DIR (`NAME.json`, `NAME.npz`, `NAME.safetensors`, as their generator writes them; all that have weights if none
is named) are put into this folder, which may be DIR itself. Of each array the rule is looked for by which it was drawn,
bit for bit; `drawn` in NAME.json says it, and the files keep the rest: tables of sines, indices, outputs, gradients. A
case of which nothing was drawn so stays whole. Of the description, listings that nothing here reads are left out.
"""

import json
import sys
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from tests.reference.cases import HERE, METADATA, load_case, weights_file
from tests.reference.drawn import draw, generator_names, sums

RULES = (
    "normal 0 fan_in", "normal 0 rows", "normal 0 0.2", "normal 1 0.25", "normal 0 0.3", "normal 0 0.7",
    "normal 0 0.8", "normal 0 1", "normal 1.5 0.2", "normal -1 0.3", "uniform 0.3 1.3", "uniform 0.5 1.5",
)  # fmt: skip
UNREAD = (
    "fallback_rule", "kept_at_init", "param_count", "params", "params_unused_by_these_outputs", "params_zero_grad",
    "reload_max_diff", "seconds", "sha256_safetensors",
)  # fmt: skip


def main(folder, *names):
    folder = Path(folder).absolute()
    for name in names or sorted(path.stem for path in folder.glob("*.safetensors")):
        kept = shrink(folder / name, HERE / name)
        print(f"{name:<28} {kept}")


def shrink(source, target):
    """Write the case at a path, without suffix, small to another; return what came of it, in words."""
    about = json.loads(source.with_suffix(".json").read_text())
    if "drawn" in about:
        return "is small already"
    arrays, weights = dict(np.load(source.with_suffix(".npz"))), load_file(source.with_suffix(".safetensors"))
    with safe_open(source.with_suffix(".safetensors"), "np") as file:
        assert file.metadata() == METADATA, f"{source.name}: metadata {file.metadata()}, not {METADATA}"
    small = {key: value for key, value in about.items() if key not in UNREAD} | {"drawn": {}}
    rest = {}
    for kind, given in (("weights", weights), ("arrays", arrays)):
        rules = {name: rule_of(about, name, array) for name, array in given.items()}
        found = {name: given[name] for name, rule in rules.items() if rule}
        rest[kind] = {name: array for name, array in given.items() if not rules[name]}
        if found:
            shapes = {
                rule: {name: array.shape for name, array in found.items() if rules[name] == rule}
                for rule in RULES
                if rule in rules.values()
            }
            small["drawn"][kind] = {"sums": sums(found), "rules": shapes}
    if "weights" not in small["drawn"]:
        return "has no array of a known rule; left as it is"
    target.with_suffix(".json").write_text(json.dumps(small, separators=(",", ":")))
    np.savez_compressed(target.with_suffix(".npz"), **rest["arrays"])
    target.with_suffix(".safetensors").unlink(missing_ok=True)
    if rest["weights"]:
        save_file(rest["weights"], target.with_suffix(".safetensors"), METADATA)
    weights_file.cache_clear()
    for kind, ours, theirs in zip(("arrays", "weights"), load_case(target)[1:], (arrays, weights)):
        assert ours.keys() == theirs.keys(), f"{source.name}: other {kind}"
        wrong = [name for name, array in theirs.items() if not same(ours[name], array)]
        assert not wrong, f"{source.name}: {kind} that are not the same: {wrong}"
    return f"keeps {len(rest['weights'])} of {len(weights)} weights, {len(rest['arrays'])} of {len(arrays)} arrays"


def rule_of(about, name, array):
    """Return the rule by which an array was drawn, or None."""
    if array.dtype != np.float32 or not array.size:
        return None
    own = generator_names(about).get(name, name)
    return next((rule for rule in RULES if same(draw(about, own, rule, array.shape), array)), None)


def same(ours, theirs):
    return (ours.dtype, ours.shape, ours.tobytes()) == (theirs.dtype, theirs.shape, theirs.tobytes())


if __name__ == "__main__":
    main(*sys.argv[1:])
