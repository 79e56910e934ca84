"""A loader that sleeps for good, in the process that a file beside the workdir names."""

# Appended to `driver.CONFIG`: a configuration is Python, and this is the real command with a loader that stalls.
STALL = """

import sys
import time
from pathlib import Path
from vit_jax.data.reader import BatchReader

_read = BatchReader.__call__


def _stalling(self, step):
    workdir = Path(sys.argv[sys.argv.index("--workdir") + 1])
    order = workdir.with_name(workdir.name + ".stall")
    while self.shuffle and order.exists() and order.read_text() == str(self.process_index):
        time.sleep(0.1)
    return _read(self, step)


BatchReader.__call__ = _stalling
"""
