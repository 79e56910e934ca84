"""No wait without a limit: every call in the package that can wait for ever is known, with what bounds it."""

import re

import pytest

from tests.test_floors import PACKAGE

# What waits for others, or for a thread or process, and has no limit of its own.
FORBIDDEN = {
    "sync_global_devices": r"sync_global_devices",
    "barrier without a limit": r"wait_at_barrier\((?![^)\n]*,)[^)\n]+\)",
    "queue": r"\.get\(\)",
    "thread or process": r"\.join\(\)|\.communicate\(\)|\bsubprocess\.(run|call|check_output|check_call)\(",
    "event or process": r"\.wait\(\)",
    "collective outside a step": r"process_allgather|broadcast_one_to_all",
    "future": r"\.result\(\)|futures\.wait\(",
    "background save": r"wait_until_finished\(\)",
}
# Bounded by something else: by the watchdog, in whose phases they are, or by the sentinel of a process.
KNOWN = {
    ("training/loop.py", "event or process"): 1,  # checkpoints.wait(): phase checkpoint
    ("training/run.py", "event or process"): 2,  # the same
    ("checkpoints/finishing.py", "future"): 4,  # one that is done; three inside of checkpoints.wait()
    ("models/layers/placement.py", "queue"): 6,  # a ContextVar, not a queue
    ("models/layers/freezing.py", "queue"): 1,  # the same
    ("models/draws.py", "queue"): 1,  # the same
    ("training/report/writers/base.py", "queue"): 1,  # a daemon's own: nobody waits for it
    ("objectives/images.py", "collective outside a step"): 1,  # phase other: the report
    ("data/prepare/parallel.py", "future"): 2,  # those that are done
    ("inference/stream.py", "future"): 1,  # threads that decode one image after another
}


@pytest.mark.parametrize("kind", FORBIDDEN)
def test_every_wait_has_a_limit(kind):
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        count = len(re.findall(FORBIDDEN[kind], path.read_text()))
        if count:
            found[path.relative_to(PACKAGE).as_posix(), kind] = count
    assert found == {key: count for key, count in KNOWN.items() if key[1] == kind}
