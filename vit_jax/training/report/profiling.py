"""A trace of some steps, by JAX's profiler. Importing this needs no jax: a mistake in the flag is told at once."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vit_jax.errors import ConfigError


def parse_steps(text: str) -> tuple[int, int]:
    """Return the first and last step of `10:20`; `15` is that one step.

    Raises:
      ConfigError: it is something else.
    """
    match = re.fullmatch(r"(\d+)(?::(\d+))?", text.strip(), re.ASCII)
    if match is None:
        raise ConfigError(f"--profile {text}: it must be FIRST:LAST or one step, for example 10:20.")
    steps = int(match[1]), int(match[2] or match[1])
    _check(steps)
    return steps


class Profile:
    """Traces the steps from `first` to `last`; what lies before the step that a run goes on after is left out.

    Every process writes a trace of its own, for TensorBoard or Perfetto; of several, to `process_0` and so on.

    Args:
      steps: first and last step, or None for no trace.
      folder: where the trace goes.
      total_steps: of the run.

    Raises:
      ConfigError: the run has no such steps.
    """

    def __init__(self, steps: tuple[int, int] | None, folder: Path, total_steps: int):
        if steps is not None:
            _check(steps)
            if steps[1] > total_steps:
                raise ConfigError(
                    f"--profile {steps[0]}:{steps[1]}: the run has {total_steps} steps; choose a range within them."
                )
        self._steps, self._folder = steps, folder
        self._done: list[int] = []
        self._running = False

    @contextmanager
    def open(self, report: Callable[[str], None]) -> Iterator["Profile"]:
        """End the trace, if it is still on, and tell where it is.

        Args:
          report: called with a line.
        """
        try:
            yield self
        finally:
            self._stop()
            if self._done:
                report(f"profile of steps {self._done[0]} to {self._done[-1]}: {self._folder}")
        if self._steps is not None and not self._done:
            report(f"nothing was profiled; step {self._steps[1]} was already done.")

    @contextmanager
    def step(self, number: int) -> Iterator[None]:
        """Begin the trace if it is time, and mark what is done inside as a step of it."""
        if self._steps is None or not self._steps[0] <= number <= self._steps[1]:
            yield
            return
        import jax

        if not self._running:
            # The files of a trace are named after the machine, on which there may be several processes.
            several = jax.process_count() > 1
            folder = self._folder / f"process_{jax.process_index()}" if several else self._folder
            options = jax.profiler.ProfileOptions()
            # Hooks in every Python thread slow the steps that are measured, and can crash as threads come and go.
            options.python_tracer_level = 0
            jax.profiler.start_trace(str(folder), profiler_options=options)
            self._running = True
        self._done.append(number)
        with jax.profiler.StepTraceAnnotation("train", step_num=number):
            yield

    def end_step(self, number: int, state: Any) -> None:
        """End the trace after its last step, when the devices have made it."""
        if self._running and self._steps is not None and number == self._steps[1]:
            import jax

            jax.block_until_ready(state)
            self._stop()

    def _stop(self) -> None:
        if self._running:
            import jax

            self._running = False
            jax.profiler.stop_trace()


def _check(steps: tuple[int, int]) -> None:
    first, last = steps
    if not 1 <= first <= last:
        raise ConfigError(
            f"--profile {first}:{last}: FIRST must be at least 1 and not above LAST, for example 10:20."
        )
