"""Fails unless the quickstart's workdir holds what the README promises. Usage: check_quickstart.py WORKDIR"""

import json
import sys
from pathlib import Path

from PIL import Image

workdir = Path(sys.argv[1])
summary = json.loads((workdir / "summary.json").read_text())
accuracy, baselines = summary["metrics"]["accuracy"], summary["baselines"]
width, height = Image.open(workdir / summary["figure"]).size
seconds = sum(summary["seconds"].values())
print(f"accuracy {accuracy:.4f}, baselines {baselines}, figure {width}x{height}, {seconds:.0f} s")
assert accuracy >= 0.972, "the quickstart promises at least 97.2 % for every seed"
assert (workdir / summary["checkpoint"]).is_dir(), "no checkpoint"
assert list((workdir / "samples").glob("*.png")), "no sample images"
assert 0.95 < baselines["logistic_regression"] < 0.98 < baselines["svm_rbf"], "the baselines moved"
