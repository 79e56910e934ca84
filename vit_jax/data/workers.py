"""Processes that work for another one: they end with it, and it says how they ended."""

import multiprocessing
import os
import signal
import threading
from multiprocessing.connection import wait


def end_with_parent() -> None:
    """End this process, started by `multiprocessing`, as soon as its parent has: a killed one cannot say so."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def how_it_ended(code: int) -> str:
    """Return in words how a process ended, by its exit code; negative stands for a signal."""
    if code >= 0:
        return f"ended with exit code {code}"
    hint = ", perhaps for lack of memory" if -code == signal.SIGKILL else ""
    return f"was ended by {signal.Signals(-code).name} (exit code {code}){hint}"


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
