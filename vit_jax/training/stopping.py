"""Asked to stop: finish the step, save, and say that the run can be started again.

With several processes, a signal to any one of them stops all after the same step: jax's preemption service tells
the others, and they agree on a step that none has passed.
"""

import os
import signal
import threading
from types import FrameType, TracebackType

import jax
from jax.experimental import multihost_utils

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """Notes SIGTERM and SIGINT while it is open, instead of dying of them.

    A second signal gets the default treatment, for whoever cannot wait. Outside the main thread, where Python
    takes no signal handlers, it notes nothing.

    With several processes, jax takes SIGTERM from their start on, and SIGINT becomes SIGTERM.

    Attributes:
      signal: the name of the signal that came, or None.
    """

    def __init__(self) -> None:
        self._shared = jax.process_count() > 1
        self.signal: str | None = None
        self._previous: dict[signal.Signals, object] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            taken = (signal.SIGINT,) if self._shared else SIGNALS
            self._previous = {number: signal.signal(number, self._note) for number in taken}
        return self

    def reached(self, step: int) -> bool:
        """Return whether to stop after this step; all processes must ask after every step.

        Args:
          step: number of the step just made, larger than the one before.
        """
        if not self._shared:
            return self.signal is not None
        reached = multihost_utils.reached_preemption_sync_point(step)
        if reached and self.signal is None:
            self.signal = "SIGTERM to one of the processes"
        return reached

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number).name
        self._restore()
        if self._shared:
            os.kill(os.getpid(), signal.SIGTERM)

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            # None stands for a handler that Python did not install and cannot put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # pyright: ignore[reportArgumentType]
        self._previous = {}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()
