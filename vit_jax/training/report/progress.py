"""A progress bar for people, plain lines for log files."""

import sys
import time
from collections.abc import Callable, Mapping
from typing import TextIO

from tqdm import tqdm

from vit_jax.errors import printable

QUIET = 30.0  # seconds after which a log file gets a line
REFRESH = 0.2  # seconds between two looks at a bar that has nothing else to show yet


class Progress:
    """Shows step, metrics, images per second and the time left, on stderr.

    On a terminal it is one bar that moves with every step; elsewhere, or if the bar is not wanted, one line per
    `log`, one after the first step, and one where `QUIET` seconds would pass without.

    Args:
      total_steps: of the whole run.
      step: where this run starts, more than 0 when it is resumed.
      images_per_step: the global batch size.
      bar: draw a bar if the stream is a terminal.
      enabled: False shows nothing, as in all processes but one.
      stream: where to write; stderr by default.
      timer: returns seconds; monotonic.
    """

    def __init__(
        self,
        total_steps: int,
        *,
        step: int = 0,
        images_per_step: int,
        bar: bool = True,
        enabled: bool = True,
        stream: TextIO | None = None,
        timer: Callable[[], float] = time.monotonic,
    ):
        self._total, self._images = total_steps, images_per_step
        self._stream = stream if stream is not None else sys.stderr
        self._timer, self._enabled = timer, enabled
        self._step = self._logged_step = step
        self._logged_time = self._shown_time = timer()
        self._begun = False  # to show metrics
        self._bar = None
        if enabled and bar and self._stream.isatty():
            self._bar = tqdm(
                total=total_steps, initial=step, unit="step", dynamic_ncols=True, file=self._stream
            )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def advance(self, step: int) -> None:
        """Say that a step was started; cheap."""
        if self._bar is not None:
            self._bar.update(step - self._step)
        self._step = step

    def glance(self, step: int, metrics: Callable[[], Mapping[str, float]]) -> None:
        """Show metrics between two `log`s, where there would be nothing to see for long; cheap.

        Args:
          step: number of the last step in the metrics.
          metrics: returns them, in the order to show; empty: there are none yet.
        """
        now, first = self._timer(), not self._begun
        quiet = now - self._shown_time
        # A bar keeps what `log` showed; a line is written at first, and again after a while.
        due = first and quiet >= REFRESH if self._bar is not None else first or quiet >= QUIET
        if not self._enabled or not due:
            return
        shown = {name: f"{value:.4g}" for name, value in metrics().items()}
        if not shown:
            return
        self._shown_time = now
        if self._bar is not None:
            self._bar.set_postfix(shown)
            return
        self._begun = True
        done, seconds = step - self._logged_step, now - self._logged_time
        self._line(step, shown, None if first or not seconds else done / seconds)

    def log(self, step: int, metrics: Mapping[str, float]) -> float:
        """Show metrics and return images per second since the last call.

        Args:
          step: number of the step.
          metrics: scalars, in the order to show.
        """
        now = self._timer()
        done, seconds = step - self._logged_step, now - self._logged_time
        rate = done / seconds if seconds > 0 else 0.0
        self._logged_step, self._logged_time = step, now
        self._begun, self._shown_time = True, now
        if not self._enabled:
            return rate * self._images
        shown = {name: f"{value:.4g}" for name, value in metrics.items()}
        if self._bar is not None:
            self._bar.set_postfix(shown | {"images/s": f"{rate * self._images:.0f}"})
        else:
            self._line(step, shown, rate)
        return rate * self._images

    def _line(self, step: int, shown: Mapping[str, str], rate: float | None) -> None:
        words = [f"step {step}/{self._total}", *(f"{name} {value}" for name, value in shown.items())]
        if rate is not None:
            left = tqdm.format_interval((self._total - step) / rate) if rate else "?"
            words += [f"images/s {rate * self._images:.0f}", f"left {left}"]
        self._print("  ".join(words))

    def skip_time(self) -> None:
        """Begin to measure images per second anew, after something that is not training."""
        self._logged_step, self._logged_time = self._step, self._timer()

    def write(self, text: str) -> None:
        """Print a line without disturbing the bar."""
        if not self._enabled:
            return
        text = printable(text)  # may quote names of files
        if self._bar is not None:
            self._bar.write(text, file=self._stream)
        else:
            self._print(text)

    def close(self) -> None:
        """Leave the bar as it is and go to the next line."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _print(self, text: str) -> None:
        print(text, file=self._stream, flush=True)
