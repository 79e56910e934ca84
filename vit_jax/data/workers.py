"""Processes that work for another one: they end with it, and it says how they ended."""

import multiprocessing
import os
import re
import select
import signal
import sys
import threading
from multiprocessing.connection import wait

from vit_jax.errors import ConfigError


def end_with_parent() -> None:
    """End this process, started by `multiprocessing`, as soon as its parent has: a killed one cannot say so."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def check_guarded(num_workers: int) -> None:
    """Raise `ConfigError` in a process that was started to read, but runs the program of its parent once more.

    Python does so before it is told what to do, and a program that does not look who runs it would start again.
    """
    if num_workers and getattr(multiprocessing.current_process(), "_inheriting", False):
        _let_parent_go()
        raise ConfigError(
            f"data.num_workers is {num_workers}, and each of these processes first runs this program's file, "
            "which would start training again; put the code under if __name__ == '__main__', or set "
            "data.num_workers=0."
        )


def _let_parent_go() -> None:
    """Read what the parent of a process that is just starting writes to it.

    The parent would wait for ever that it is read: it holds the other end of the pipe too, so that it is not told that
    nobody will.
    """
    pipe = re.search(r"pipe_handle=(\d+)", " ".join(sys.orig_argv))
    while pipe and select.select([int(pipe[1])], [], [], 1.0)[0] and os.read(int(pipe[1]), 2**20):
        pass


def how_it_ended(code: int) -> str:
    """Return in words how a process ended, by its exit code; negative stands for a signal."""
    if code >= 0:
        return f"ended with exit code {code}"
    hint = ", perhaps for lack of memory" if -code == signal.SIGKILL else ""
    return f"was ended by {signal.Signals(-code).name} (exit code {code}){hint}"


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
