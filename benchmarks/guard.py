"""Say whether ours has become slower beside the libraries it is measured against.

    python benchmarks/train_step.py --peer-python PATH --json report.json
    python benchmarks/guard.py report.json            # exit status 1 if a ratio is more than 10 % above the stored one
    python benchmarks/guard.py report.json --store    # these ratios are the stored ones from now on

Ratios, not times: other work on the machine slows both sides. They are kept in `benchmarks/ratios.json` together with
what they depend on (processor, cores, versions, settings); a report is compared with ratios of the same alone.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from worker import PEERS

STORED = Path(__file__).parent / "ratios.json"
ALLOWED = 1.1


def ratios(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the ratios of a report, each with all it depends on."""
    about, settings = report["machine"], report["settings"]
    same = {"benchmark": report["benchmark"], "cpu": about["cpu"], "cores": about["cores"]}
    same |= {name: settings[name] for name in ("batch_size", "depth", "tuned_peers")}
    found = []
    for result in report["results"]:
        if result["model"] is None or result["side"] not in PEERS:
            continue
        packages = about["versions"]
        versions = {"jax": packages["ours"]["jax"], "torch": packages[result["side"]]["torch"]}
        low, middle, high = (round(value, 3) for value in result["ours_over_this_wall"])
        key = same | versions | {name: result[name] for name in ("model", "image_size", "dtype", "side")}
        found.append({"key": key, "ratio": middle, "spread": [low, high]})
    return found


def judge(new: list[dict[str, Any]], stored: list[dict[str, Any]]) -> tuple[list[str], bool]:
    """Return a line for each new ratio, and whether one is worse than allowed."""
    lines, worse = [], False
    for entry in new:
        key, ratio = entry["key"], entry["ratio"]
        name = f"{key['benchmark']} {key['model']} {key['dtype']} beside {key['side']}, jax {key['jax']}"
        before = next((old["ratio"] for old in stored if old["key"] == key), None)
        if before is None:
            lines.append(f"{name}: {ratio:.2f}; nothing is stored for this machine and these versions")
            continue
        bad = ratio > ALLOWED * before
        worse |= bad
        verdict = f"WORSE by {ratio / before - 1:.0%}" if bad else f"{ratio / before - 1:+.0%}"
        lines.append(f"{name}: {ratio:.2f}, stored {before:.2f}: {verdict}")
    return lines, worse


def main() -> int:
    """Compare or store."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "reports", nargs="+", type=Path, help="what train_step.py and inference.py wrote (--json)"
    )
    parser.add_argument("--store", action="store_true", help="keep these ratios")
    parser.add_argument("--ratios", type=Path, default=STORED, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    new = [entry for path in arguments.reports for entry in ratios(json.loads(path.read_text()))]
    stored = json.loads(arguments.ratios.read_text()) if arguments.ratios.exists() else []
    lines, worse = judge(new, stored)
    print("\n".join(lines) or "the reports have no ratio: measure beside a peer (--peer-python)")
    if arguments.store:
        keys = [entry["key"] for entry in new]
        kept = [entry for entry in stored if entry["key"] not in keys]
        text = ",\n".join(json.dumps(entry) for entry in [*kept, *new])
        arguments.ratios.write_text(f"[\n{text}\n]\n")
        return 0
    return int(worse)


if __name__ == "__main__":
    sys.exit(main())
