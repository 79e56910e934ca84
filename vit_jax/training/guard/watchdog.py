"""A process that does not get on ends itself, with its stack and one line that says where it was.

Training is always in some phase, see `metrics.PHASES`; every phase has a limit, counted anew each time it is entered.
A thread looks every half second. Code that never gives the interpreter free stops that thread too: then the parent,
if there is one (`training.guard.supervisor`), misses its signs of life.
"""

import faulthandler
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import NoReturn

from vit_jax.errors import PeerError

TICK = 0.5  # seconds between two looks
BEATS = "VIT_JAX_BEATS"  # the variable with the file descriptor for signs of life, set by the parent
# What is done anew in every step has the short limit, all else the long one.
WORDS = {"data_wait": "waiting for a batch of data", "step": "running a step"}


class Watchdog:
    """Ends this process with status 75 when a phase takes longer than its limit.

    Args:
      step_limit: seconds for one step or one batch of data.
      phase_limit: seconds for everything else: starting, compiling, restoring, evaluating, saving, waiting for others.

    Attributes:
      stalled: called in a thread of its own with the line to print; it ends the process.
      silence: seconds without a sign of life after which the parent ends this process, if that is less than the limit.
      step: the step being made.
      phase: where the run is.
    """

    def __init__(self, step_limit: float, phase_limit: float) -> None:
        self._limits = step_limit, phase_limit
        self._beats = int(os.environ[BEATS]) if BEATS in os.environ else None
        self._since = time.monotonic()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self.phase, self.step = "startup", 0
        self.silence = float("inf")
        self.stalled: Callable[[str], None] = end_stalled

    def __enter__(self) -> "Watchdog":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join(2 * TICK)

    def enter(self, phase: str) -> None:
        """Note that a phase begins now."""
        self._since = time.monotonic()
        self.phase = phase

    def limit(self) -> float:
        """Return the seconds that the present phase may take."""
        return self._limits[0 if self.phase in WORDS else 1]

    def _watch(self) -> None:
        looked = time.monotonic()
        while not self._done.wait(TICK):
            now = time.monotonic()
            # Time during which this process was stopped, by Ctrl-Z or a debugger, does not count.
            self._since += max(0.0, now - looked - 10 * TICK)
            looked = now
            self._beat()
            phase, seconds = self.phase, now - self._since
            if seconds > self.limit():
                self.stalled(self._line(phase, seconds))
                return

    def _line(self, phase: str, seconds: float) -> str:
        key = "step_limit" if phase in WORDS else "phase_limit"
        where = f"before step {self.step}" if phase == "data_wait" else f"at step {self.step}"
        return (
            f"stuck for {seconds:.0f} s in {phase} ({WORDS.get(phase, phase)}) {where}; watchdog.{key} allows "
            f"{self.limit():g}. The stacks of its threads are in its output; run the same command again to resume."
        )

    def _beat(self) -> None:
        """Tell the parent that this process runs, and after how many seconds without a word it does not."""
        if self._beats is None:
            return
        try:
            os.write(self._beats, f"{min(self.limit(), self.silence)}\n".encode())
        except BrokenPipeError:
            end_process(PeerError.exit_status)  # The parent has gone, and nobody would tell how this ends.


def end_stalled(line: str) -> NoReturn:
    """Print the stacks of all threads and a line, and end this process with status 75."""
    print_stacks()
    print(f"vit-jax: {line}", file=sys.stderr)
    end_process(PeerError.exit_status)


def print_stacks() -> None:
    """Print where every thread of this process is, to standard error."""
    sys.stdout.flush()
    faulthandler.dump_traceback(file=sys.__stderr__ or sys.stderr, all_threads=True)


def end_process(status: int) -> NoReturn:
    """End this process and those it has started now, without waiting for anybody."""
    for child in multiprocessing.active_children():
        child.kill()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
