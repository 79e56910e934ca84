"""Damaged images decode or are refused with one line, at little cost; and whatever would do otherwise is noticed."""

import json

from tests.runs import BENCHMARKS, run_benchmark

# A decoder that takes time and memory, leaks an error, prints, warns, writes two lines and returns other pixels.
NAUGHTY = """
import os, warnings
import numpy as np
import fuzz_images

careful = fuzz_images.decode
reads = 0
valid = sum(len(group) for group in fuzz_images.valid_files().values())

def naughty(data):
    global reads
    reads += 1
    if reads == valid + 1:
        os.write(2, b"libpng warning")
    if reads == valid + 2:
        open(os.devnull, "w").close()
    if reads == valid + 3:
        bytearray(2**30)
    if reads == valid + 4:
        raise type("Chatty", (fuzz_images.DataError,), dict(__str__=lambda self: "two\\nlines"))
    if reads == valid + 5:
        raise SyntaxError("broken")
    if reads == valid + 6:
        while True:
            pass
    pixels = careful(data)
    return 255 - pixels if reads > valid + 6 else pixels

fuzz_images.decode = naughty
print(sorted({failure["outcome"].split()[0] for failure in fuzz_images.work(0, 40, 0, None)["failures"]}))
"""


def test_damaged_images_are_read_or_refused(tmp_path):
    process = run_benchmark(
        BENCHMARKS / "fuzz_images.py", "--files", "500", "--json", tmp_path / "report.json"
    )
    assert process.returncode == 0, process.stdout + process.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["files"] == 500
    assert report["failures"] == []
    assert 0 < report["loaded"] < report["refused"]
    assert {name.split()[0] for name in report["counts"]} == {"JPEG", "PNG", "WebP", "GIF", "BMP", "TIFF"}


def test_a_decoder_that_misbehaves_is_noticed():
    process = run_benchmark("-c", NAUGHTY)
    found = "['MemoryError', 'SyntaxError', 'executed', 'more', 'other', 'printed', 'slow']"
    assert process.stdout.strip() == found, process.stdout + process.stderr


def test_bombs(tmp_path):
    process = run_benchmark(BENCHMARKS / "image_bombs.py", "--json", tmp_path / "bombs.json")
    report = json.loads((tmp_path / "bombs.json").read_text())
    assert len(report) > 25, process.stderr
    for name, found in report.items():
        assert found["outcome"] != "out of memory", name
        assert found["mib"] <= 256, name
        # Half a second on a machine that does nothing else.
        assert found["seconds"] < 2, name
        if "x" in name.split()[-1] and name != "JPEG 8000x8000":  # claims that are seen in the header
            assert "pixels" in found["outcome"], name
            assert found["seconds"] < 0.1, name
