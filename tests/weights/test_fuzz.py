"""Damaged and malicious files load or are refused with one line; and whoever would do otherwise is noticed."""

import json
import pickle

from tests.runs import BENCHMARKS, run_benchmark

# A reader that executes pickles, and one that takes time, memory or several lines.
NAUGHTY = """
import pickle, sys
import fuzz_weights

careful = fuzz_weights.open_checkpoint
reads = 0

def naughty(path):
    global reads
    reads += 1
    valid = reads <= 6
    content = path.read_bytes()
    if content[:1] in b"\\x80(" and not valid:
        try:
            pickle.loads(content)
        except Exception:
            pass
    if reads == 10:
        while True:
            pass
    if reads == 11:
        bytearray(2**30)
    if reads == 12:
        raise type("Chatty", (fuzz_weights.CheckpointError,), dict(__str__=lambda self: "two\\nlines"))
    return careful(path)

fuzz_weights.open_checkpoint = naughty
print(sorted({failure["outcome"].split()[0] for failure in fuzz_weights.work(0, 150, 0, None)["failures"]}))
"""


def test_damaged_files_are_read_or_refused(tmp_path):
    process = run_benchmark(
        BENCHMARKS / "fuzz_weights.py", "--files", "300", "--json", tmp_path / "report.json"
    )
    assert process.returncode == 0, process.stdout + process.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["files"] == 300
    assert report["failures"] == []
    assert 0 < report["loaded"] < report["refused"]
    assert {name.split()[0] for name in report["counts"]} == {"safetensors", "npz", "torch"}


def test_a_reader_that_misbehaves_is_noticed():
    process = run_benchmark("-c", NAUGHTY)
    assert process.stdout.strip() == "['MemoryError', 'executed', 'more', 'slow']", (
        process.stdout + process.stderr
    )


def test_the_attacks_would_work(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from damaged_weights import attacks

    canary = tmp_path / "canary"
    worked = 0
    for attack in attacks(canary):
        try:
            pickle.loads(attack)
        except Exception:
            continue
        finally:
            worked += canary.exists()
            canary.unlink(missing_ok=True)
    assert worked > 30
