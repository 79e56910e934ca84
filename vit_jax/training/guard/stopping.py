"""Asked to stop: finish the step, save, and say that the run can be started again.

With several processes, a signal to any one of them stops all after the same step: jax's preemption service tells
the others, and they agree on a step that none has passed.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

import jax
from jax.experimental import multihost_utils

from vit_jax.errors import Preempted
from vit_jax.training.guard.watchdog import end_process

EARLY = "stopped by SIGTERM before the first step; nothing was lost; run the same command again."
PATIENCE = 2.0  # seconds for Python to end by itself


class StopRequest:
    """Takes SIGTERM and SIGINT while it is open, instead of dying of them.

    While steps are made, a signal is noted. Before, there is nothing to save: SIGTERM ends the process, also in the
    middle of a compilation, and SIGINT does what it always does.

    SIGTERM is often sent again by those who sent it: further ones change nothing. A second SIGINT gets the
    default treatment, for whoever cannot wait. Outside the main thread, where Python takes no signal handlers,
    nothing is noted.

    With several processes, jax takes SIGTERM from their start on, until the first step; SIGINT becomes SIGTERM.

    Attributes:
      signal: the name of the signal that came, or None.
      asked: whether the run itself asked.
    """

    def __init__(self) -> None:
        self._shared = jax.process_count() > 1
        self._main = threading.current_thread() is threading.main_thread()
        self.signal: str | None = None
        self.asked = False
        self._previous: dict[signal.Signals, object] = {}
        self._unwound = threading.Event()

    def __enter__(self) -> "StopRequest":
        if not self._shared:
            self._take(signal.SIGTERM, self._leave)
            self._watch_early()
        return self

    @contextmanager
    def after_steps(self) -> Iterator[None]:
        """From here on `reached` is asked after every step."""
        self._unwound.set()
        if self.signal is not None:
            raise Preempted(EARLY)
        if not self._shared:
            self._take(signal.SIGTERM, self._note)
        self._take(signal.SIGINT, self._note)
        yield

    def reached(self, step: int) -> bool:
        """Return whether to stop after this step; all processes must ask after every step.

        Args:
          step: number of the step just made, larger than the one before.
        """
        if not self._shared:
            return self.asked or self.signal is not None
        reached = multihost_utils.reached_preemption_sync_point(step)
        if reached and self.signal is None:
            self.signal = "SIGTERM to one of the processes"
        return reached

    def ask(self) -> None:
        """Make `reached` true in all processes, soon: in a run of one process after this very step."""
        if self._shared and not self.asked:
            os.kill(os.getpid(), signal.SIGTERM)  # the way by which all of them agree on a step
        self.asked = True

    def _take(self, number: signal.Signals, handler: object) -> None:
        if self._main:
            before = signal.signal(number, handler)  # pyright: ignore[reportArgumentType]
            self._previous.setdefault(number, before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number).name
        if number == signal.SIGINT:
            self._restore(signal.SIGINT)
        if self._shared:
            os.kill(os.getpid(), signal.SIGTERM)

    def _leave(self, number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        self.signal = signal.SIGTERM.name
        # Raised in a callback of the garbage collector, it would be printed and forgotten; `after_steps` does it then.
        self._report_unraisable = sys.unraisablehook
        sys.unraisablehook = self._not_early
        raise Preempted(EARLY)

    def _not_early(self, unraisable: Any) -> None:
        if not isinstance(unraisable.exc_value, Preempted):
            self._report_unraisable(unraisable)

    def _watch_early(self) -> None:
        """End the process although the main thread compiles, for minutes perhaps, and Python's handlers wait for it."""
        if not self._main:
            return
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        threading.Thread(target=self._end_early, name="stopping", daemon=True).start()

    def _end_early(self) -> None:
        while number := os.read(self._reader, 1):
            if number[0] == signal.SIGTERM and not self._unwound.wait(PATIENCE):
                print(f"vit-jax: {EARLY}", file=sys.stderr)
                end_process(Preempted.exit_status)
            if self._unwound.is_set():
                break
        os.close(self._reader)

    def _restore(self, number: signal.Signals) -> None:
        handler = self._previous.pop(number)
        # None stands for a handler that Python did not install and cannot put back.
        signal.signal(number, signal.SIG_DFL if handler is None else handler)  # pyright: ignore[reportArgumentType]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._unwound.set()
        if sys.unraisablehook == self._not_early:
            sys.unraisablehook = self._report_unraisable
        if not self._shared and self._main:
            signal.set_wakeup_fd(self._wakeup)
            os.close(self._writer)
        for number in list(self._previous):
            self._restore(number)
