"""A progress bar for people, plain lines for log files."""

import sys
import time
from collections.abc import Callable, Mapping
from typing import TextIO

from tqdm import tqdm

from vit_jax.errors import printable


class Progress:
    """Shows step, metrics, images per second and the time left, on stderr.

    On a terminal it is one bar that moves with every step; elsewhere, or if the bar is not wanted, one line per
    `log`.

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
        self._logged_time = timer()
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
        if not self._enabled:
            return rate * self._images
        shown = {name: f"{value:.4g}" for name, value in metrics.items()} | {
            "images/s": f"{rate * self._images:.0f}"
        }
        if self._bar is not None:
            self._bar.set_postfix(shown)
        else:
            left = tqdm.format_interval((self._total - step) / rate) if rate else "?"
            words = "  ".join(f"{name} {value}" for name, value in shown.items())
            self._print(f"step {step}/{self._total}  {words}  left {left}")
        return rate * self._images

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
